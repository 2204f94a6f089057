"""The supervisor: keeps the services of a realm alive, and ends them. It knows nothing about what a service does.

`loop(now)` is one turn: see deaths, hear heartbeats, start what is due. A death after progress is answered at once;
deaths without progress wait 1, 2, 4 ... 60 seconds, and after five of them in ten minutes the service stays down, for
all to see, while the others go on. A death in battle counts half, since the quest answers for it too; one that came from
outside counts nothing. Whatever touches the world (clock, sleep, process start, jitter, table, ledger) is given in.
"""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.dossier import Action, Crash, Kind
from core.heartbeat import Beat
from safety.crash_detector import LEVELS, Evidence, diagnose, exit_name
from safety.states import State, change

TURN_SECONDS = 0.1
BACKOFF_SECONDS = (1.0, 60.0)
BUDGET = (5, 600.0)  # crashes without progress, in so many seconds
IN_BATTLE, HOPELESS = (
    0.5,
    2.5,
)  # crashes that a death counts as: what a quest answers for, and what a restart cannot mend
HEALTHY_SECONDS = 60.0
HANG_SECONDS = 30.0  # between asking a silent service to end and killing it
SUSPENDED_SECONDS = 5.0  # a turn that comes later than this: the machine stood still, or all of the realm did


class Process(Protocol):
    """What the supervisor needs of a process; `safety.child.Child` is the real one."""

    pid: int
    started: float

    def poll(self) -> int | None: ...

    def send(self, number: int) -> None: ...

    def stopped(self) -> bool: ...

    def said(self) -> str: ...

    def oom_killed(self) -> bool: ...


@dataclass(frozen=True)
class Service:
    """What is to be kept alive. Seconds: `silence` until it counts as hung, unless its heartbeat says more or less;
    `grace` to end when asked.

    `progress` returns a value that changes when the service gets on; without it, a minute of life is progress.
    `wanted`: asked of a service that runs on demand only; such a one may end by itself (exit 0) and is then off.
    """

    name: str
    command: tuple[str, ...]
    silence: float = 60.0
    grace: float = 10.0
    progress: Callable[[], Any] | None = None
    wanted: Callable[[], bool] | None = None


@dataclass
class Life:
    """A service's present: `process` while it lives, `due` when it is to be started, `crashes` since it got on."""

    service: Service
    state: State = State.STOPPED
    since: float = 0.0
    process: Process | None = None
    born: float = 0.0
    heard: float = 0.0
    before: Beat | None = None  # the last beat of the life before
    beat: Beat | None = None
    asked_to_end: float | None = None
    hung: bool = False
    due: float = 0.0
    crashes: list[tuple[float, float]] = field(default_factory=list)
    marker: Any = None
    restarts: int = 0
    last_exit: str = ""
    last_crash: Crash | None = None


class Watchdog:
    """The only parent. `begin(service, environment)` starts a process, `heartbeat(name)` is its last beat,
    `publish(rows)` shows the table, `tell(code, text, level, **data)` writes history."""

    def __init__(
        self,
        services: list[Service],
        begin: Callable[[Service, dict[str, str]], Process],
        heartbeat: Callable[[str], Beat | None],
        publish: Callable[[list[dict[str, Any]]], None],
        tell: Callable[..., None],
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        jitter: Callable[[], float] = lambda: random.uniform(0.0, 0.1),
    ):
        self.lives = [Life(service, State.OFF if service.wanted else State.STOPPED) for service in services]
        self._begin, self._heartbeat, self._publish, self._tell = begin, heartbeat, publish, tell
        self._clock, self._wall, self._jitter = clock, wall, jitter
        self._shown: list[dict[str, Any]] | None = None
        self._turned: float | None = None

    def run(self, sleep: Callable[[float], bool]) -> None:
        """Watch until `sleep(seconds)` says that it is time to end."""
        while True:
            self.loop(self._clock())
            if sleep(TURN_SECONDS):
                return

    def loop(self, now: float) -> None:
        """One turn."""
        self._excuse(now)
        for life in self.lives:
            if life.process is not None:
                self._look_after(life, now)
            if life.state in (State.OFF, State.STOPPED, State.BACKOFF) and now >= life.due:
                self._begin_or_leave(life, now)
        self._show()

    def _begin_or_leave(self, life: Life, now: float) -> None:
        if life.service.wanted is None or life.service.wanted():
            self._start(life, now)
        elif life.state is State.BACKOFF:
            self._enter(life, State.OFF)

    def _excuse(self, now: float) -> None:
        """Time in which the supervisor could do nothing either is nobody's silence."""
        late = now - self._turned if self._turned is not None else 0.0
        self._turned = now
        if late > SUSPENDED_SECONDS:
            for life in self.lives:
                life.born, life.heard = life.born + late, life.heard + late
                life.asked_to_end = life.asked_to_end and life.asked_to_end + late

    def stop(self, sleep: Callable[[float], Any]) -> None:
        """Ask every service to end, wait as long as each is granted, kill the rest; returns when none lives."""
        began = self._clock()
        for life in self.lives:
            if life.process is not None:
                life.process.send(signal.SIGTERM)
        while living := [life for life in self.lives if life.process is not None]:
            for life in living:
                self._await_end(life, self._clock() - began)
            sleep(TURN_SECONDS / 2)
        for life in self.lives:
            if life.state not in (State.STOPPED, State.OFF):
                self._enter(life, State.STOPPED)
        self._show()

    def _await_end(self, life: Life, waited: float) -> None:
        code = life.process.poll()
        if code is not None:
            self._buried(life, code)
            self._tell(
                "service_exited",
                f"{life.service.name} ended ({exit_name(code)})",
                "info",
                name=life.service.name,
                exit=exit_name(code),
            )
            self._enter(life, State.STOPPED)
            self._show()
        elif waited > life.service.grace:
            life.process.send(signal.SIGKILL)

    # One service

    def _start(self, life: Life, now: float) -> None:
        life.restarts += life.state is State.BACKOFF
        life.marker = life.service.progress() if life.service.progress else None
        life.beat = life.before = self._heartbeat(life.service.name)
        life.born = life.heard = now
        life.asked_to_end, life.hung = None, False
        self._enter(life, State.STARTING)
        try:
            told = {
                "REALM_LAST_EXIT": life.last_exit,
                "REALM_LAST_CRASH": life.last_crash.text() if life.last_crash else "",
            }
            life.process = self._begin(life.service, told)
        except OSError as problem:  # no memory, no process left, no disk: the same as a death at birth
            self._crashed(life, Evidence(None, str(problem)), now)
            return
        self._tell(
            "service_started",
            f"{life.service.name} started, pid {life.process.pid}",
            "info",
            name=life.service.name,
            pid=life.process.pid,
            restarts=life.restarts,
        )

    def _look_after(self, life: Life, now: float) -> None:
        code = life.process.poll()
        if code is not None:
            process, beat = life.process, self._heartbeat(life.service.name)
            self._buried(life, code)
            if code == 0 and life.service.wanted is not None:
                self._enter(life, State.OFF)
                return
            own = beat if beat and beat != life.before else Beat((0, ""))
            evidence = Evidence(code, process.said(), process.oom_killed(), life.hung, own.phase, own.number)
            self._crashed(life, evidence, now)
            return
        beat = self._heartbeat(life.service.name)
        if beat is not None and beat != life.beat:
            life.beat, life.heard = beat, now
            if life.state is State.STARTING:
                self._enter(life, State.RUNNING)
        if life.asked_to_end is not None:
            if now - life.asked_to_end > HANG_SECONDS:
                life.process.send(signal.SIGKILL)
        elif now - life.heard > self._silence(life):
            where = f" in its {life.beat.phase}" if life.beat and life.beat.phase else ""
            self._tell(
                "service_hung",
                f"{life.service.name} has been silent{where} for {now - life.heard:.0f} s and is ended",
                "warning",
                name=life.service.name,
            )
            life.asked_to_end, life.hung = now, not life.process.stopped()
            life.process.send(signal.SIGUSR1)  # its stacks go to logs/NAME.out (safety.lifeline)
            life.process.send(signal.SIGTERM)
            life.process.send(signal.SIGCONT)  # one that somebody stopped hears nothing before

    def _silence(self, life: Life) -> float:
        """Seconds that its last beat grants; until the first of this life, those of the service."""
        named = life.beat.silence if life.beat and life.beat != life.before else None
        return life.service.silence if named is None else named

    def _buried(self, life: Life, code: int) -> None:
        life.process = None
        life.last_exit = str(code)

    def _crashed(self, life: Life, evidence: Evidence, now: float) -> None:
        """Every end that was not asked for is a crash, exit 0 too: a service has no end of its own."""
        crashes, period = BUDGET
        if self._got_on(life, now):
            life.crashes.clear()
        name, crash = life.service.name, diagnose(evidence)
        if evidence.code is not None:  # a life that could not begin has answered for nothing
            life.last_crash = crash
        life.crashes.append((now, _weight(crash)))
        where = f" in its {crash.phase}" if crash.phase else ""
        facts = {key: value for key, value in vars(crash).items() if key != "time"}
        text = f"{name} ended{where} ({crash.kind}, {crash.exit}): {crash.advice}"
        self._tell("crash", text, LEVELS.get(crash.kind, "warning"), name=name, **facts)
        if sum(weight for moment, weight in life.crashes if now - moment <= period) >= crashes:
            self._enter(life, State.FAILED)
            self._tell(
                "service_failed",
                f"{name} died again and again without getting on and stays down ({crash.kind}). {crash.advice} Read "
                f"`logs {name} --crashes`, then `stop-all` and `start-all`.",
                "alert",
                name=name,
            )
        else:
            life.due = now + self._delay(len(life.crashes))
            self._enter(life, State.BACKOFF)

    def _got_on(self, life: Life, now: float) -> bool:
        if life.service.progress is None:
            return now - life.born >= HEALTHY_SECONDS
        return life.service.progress() != life.marker or now - life.born >= BUDGET[1]

    def _delay(self, crashes: int) -> float:
        """Nothing after the first crash since progress, then doubling."""
        first, longest = BACKOFF_SECONDS
        return min(longest, first * 2 ** (min(crashes, 20) - 2)) * (1 + self._jitter()) if crashes > 1 else 0.0

    # The table

    def _enter(self, life: Life, state: State) -> None:
        life.state = change(life.state, state)
        life.since = self._wall()

    def _show(self) -> None:
        rows = [_row(life) for life in self.lives]
        if rows != self._shown:
            self._publish(rows)
            self._shown = rows


def _row(life: Life) -> dict[str, Any]:
    process = life.process
    return {
        "name": life.service.name,
        "pid": process and process.pid,
        "started": process and process.started,
        "state": str(life.state),
        "restarts": life.restarts,
        "last_exit": life.last_exit,
        "since": life.since,
    }


def _weight(crash: Crash) -> float:
    """How many crashes a death counts as."""
    if crash.kind in (Kind.KILLED, Kind.DISK):
        return 0.0
    if crash.action is Action.STOP:
        return HOPELESS
    return IN_BATTLE if crash.in_battle else 1.0
