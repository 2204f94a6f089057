"""While the trainer works on a quest that is no battle yet: it shows that it lives and how far it is, and hears wishes.

It tokenises what comes to an idle hero and was not tokenised by the daemon before, and has the hero answer what the Mirror
asks. This knows nothing about rows or tokens.
"""

import time

from core import control, jobs
from core.between_steps import LOOK_SECONDS, Resident, wished
from core.quest import Quest
from core.wishes import Ending

STATES = {"preparation": "preparing", "sparring": "sparring"}


class LeftEarly(Exception):
    """Somebody wishes that the quest be left; what was done so far is thrown away."""

    def __init__(self, ending: Ending):
        super().__init__(ending.kind)
        self.ending = ending


class Preparation:
    """A block in which it is called again and again with the share that is done. One of some length goes on record as a
    job of that `kind`."""

    def __init__(self, worker: Resident, quest: Quest, kind: str = "preparation"):
        self.worker, self.quest, self.kind = worker, quest, kind
        self._began = self._looked = time.monotonic()
        self._job: int | None = None

    def __enter__(self) -> "Preparation":
        return self

    def __exit__(self, _, problem: BaseException | None, __) -> None:
        if self._job is not None:
            jobs.end(self.worker.ledger, self._job, problem and f"left: {problem}")

    def __call__(self, share: float) -> None:
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        if self._job is None:
            self._job = jobs.begin(self.worker.ledger, self.kind, "trainer", self.quest.stem, self.quest.id)
        self._show(share)
        self._obey()
        while control.is_paused(self.worker.ledger):
            self._began += LOOK_SECONDS
            self._show(share, paused=True)
            self.worker.should_exit.wait(LOOK_SECONDS)
            self._obey()
        self._looked = time.monotonic()

    def _show(self, share: float, paused: bool = False) -> None:
        left = (time.monotonic() - self._began) * (1 - share) / share if share else None
        state = "paused" if paused else STATES[self.kind]
        self.worker.beat()
        self.worker.report.preparing(self.quest, share, left, self.worker.hero_facts(), state, self.kind)

    def _obey(self) -> None:
        self.worker.collect()
        if ending := wished(self.worker, self.quest, at_rest=not self.worker.writer.busy):
            raise LeftEarly(ending)
