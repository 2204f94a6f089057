"""Tells each target of each alert once, in order, however often either side is away. It knows neither words nor networks.

How far a target has been told is a mark in the ledger, written when a message has arrived: a herald that is killed between the
two tells it a second time, with the same id. A target that is down is tried again with growing pauses and keeps nobody waiting.
"""

import threading
from collections import deque
from collections.abc import Callable

from core import lore
from core.alert_config import Alerts
from core.durable import read_json
from core.ledger import Ledger
from core.paths import RealmPaths
from monitoring import alerts
from monitoring.alert_targets import Message, Target, Unsent, targets

HOUR = 3600.0
BACKOFF_SECONDS = (2.0, 300.0)
TELLING_FAILURES = 3  # in a row, from which on the pages say so
SLOW_SECONDS = 60.0
UNMARKED = 200  # events that are looked at again after a restart, at most


class Herald:
    """`turn(now)` looks, sends and remembers; it never blocks."""

    def __init__(self, paths: RealmPaths, policy: Alerts, hero: str, ledger: Ledger, backoff=BACKOFF_SECONDS):
        self._paths, self._policy, self._hero, self._ledger = paths, policy, hero, ledger
        self._outboxes = [_Outbox(target, ledger, policy.per_hour, backoff) for target in targets(policy)]
        for outbox in self._outboxes:
            outbox.begin(self._newest(), self._level()[0])

    def turn(self, now: float) -> None:
        level, step = self._level()
        for outbox in self._outboxes:
            if outbox.free(now):
                self._fill(outbox, level, step, now)

    def _fill(self, outbox: "_Outbox", level: int, step: int, now: float) -> None:
        """Give an outbox what comes next: one message, or all that wait as one when no more than that is allowed."""
        messages, looked_at = alerts.news(self._ledger, outbox.event, self._policy.on, self._hero)
        risen = level > outbox.level
        if risen and "level_up" in self._policy.on:
            messages.append(alerts.level_up(level, step, looked_at, self._hero))
        if not messages:
            outbox.remember(looked_at, max(level, outbox.level), told=False)
        elif (allowed := outbox.allowed(now)) > 1 or allowed == len(messages) == 1:
            first = messages[0]
            last = len(messages) == 1
            outbox.send(first, looked_at if last else first.id, level if last and risen else outbox.level, now)
        elif allowed:
            outbox.send(alerts.together(messages), looked_at, max(level, outbox.level), now)

    def _newest(self) -> int:
        return self._ledger.one("SELECT MAX(id) AS id FROM events")["id"] or 0

    def _level(self) -> tuple[int, int]:
        """The hero's level, as the trainer's snapshot has it; the lowest while there is none."""
        step = (read_json(self._paths.status, {}).get("hero") or {}).get("global_step") or 0
        return lore.level(step), step


class _Outbox:
    """One target: how far it has been told, the message that is on its way, when the next may go."""

    def __init__(self, target: Target, ledger: Ledger, per_hour: int, backoff: tuple[float, float]):
        self._target, self._ledger, self._per_hour, self._backoff = target, ledger, per_hour, backoff
        self._sent: deque[float] = deque()
        self._thread: threading.Thread | None = None
        self._due = self._began = float("-inf")
        self._failures, self._told, self._problem = 0, False, ""
        self._next = (0, 0)
        self.event = self.level = self._marked = 0

    def begin(self, event: int, level: int) -> None:
        """Go on where the mark is; a new target hears of what happens from now on."""
        mark = self._ledger.mark(self._target.key) or {"event": event, "level": level}
        self.remember(mark["event"], mark["level"])

    def remember(self, event: int, level: int, told: bool = True) -> None:
        """What was looked at and not `told` may be looked at again, so not each event costs a flush of the disk."""
        if told or level != self.level or event - self._marked >= UNMARKED:
            self._ledger.set_mark(self._target.key, {"event": event, "level": level})
            self._marked = event
        self.event, self.level = event, level

    def allowed(self, now: float) -> int:
        """Messages that may still go within this hour."""
        while self._sent and now - self._sent[0] >= HOUR:
            self._sent.popleft()
        return self._per_hour - len(self._sent)

    def send(self, message: Message, event: int, level: int, now: float) -> None:
        """In a thread that ends with the process; `event`, `level`: how far the target is told when it arrives."""
        self._next, self._began, self._problem = (event, level), now, ""
        self._thread = threading.Thread(target=self._deliver, args=(message, self._target.send), daemon=True)
        self._thread.start()

    def _deliver(self, message: Message, send: Callable[[Message], None]) -> None:
        self._problem = "it was broken off"
        try:
            send(message)
            self._problem = ""
        except Unsent as problem:
            self._problem = str(problem)

    def free(self, now: float) -> bool:
        """Whether the next message may go; takes in what has become of the last."""
        if self._thread is not None:
            if self._thread.is_alive():
                if now - self._began > SLOW_SECONDS:
                    self._tell("it takes the message and does not end")
                return False
            self._thread = None
            self._arrived(now) if not self._problem else self._failed(now)
        return now >= self._due

    def _arrived(self, now: float) -> None:
        self._sent.append(now)
        self.remember(*self._next)
        if self._told:
            self._ledger.event("herald", "alerts_sent", f"The {self._target.name} takes alerts again.")
        self._failures, self._told = 0, False

    def _failed(self, now: float) -> None:
        first, longest = self._backoff
        self._failures += 1
        self._due = now + min(longest, first * 2 ** min(self._failures - 1, 20))
        if self._failures >= TELLING_FAILURES:
            self._tell(self._problem)

    def _tell(self, why: str) -> None:
        if not self._told:
            self._told = True
            text = f"The {self._target.name} gets no alerts: {why}. They wait and are sent when it takes them."
            self._ledger.event("herald", "alerts_unsent", text, "warning")


def try_all(policy: Alerts, hero: str) -> dict[str, str]:
    """Send a test to every target, at once and here: what went wrong by target, an empty text for what arrived."""
    outcome = {}
    for target in targets(policy):
        try:
            target.send(alerts.trial(hero))
            outcome[target.name] = ""
        except Unsent as problem:
            outcome[target.name] = str(problem)
    return outcome
