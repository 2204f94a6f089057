"""While the trainer has to tokenise a quest by itself: it shows that it lives and how far it is, and hears wishes.

Most quests were tokenised by the daemon before their battle; one that is large and comes to an idle hero was not.
It knows nothing about rows or tokens.
"""

import time

from core import control, jobs
from core.between_steps import LOOK_SECONDS, Resident, wished
from core.quest import Quest
from core.wishes import Ending


class LeftEarly(Exception):
    """Somebody wishes that the quest be left; what was tokenised so far is thrown away."""

    def __init__(self, ending: Ending):
        super().__init__(ending.kind)
        self.ending = ending


class Preparation:
    """A block in which it is called again and again with the share that is done. One of some length goes on record."""

    def __init__(self, worker: Resident, quest: Quest):
        self.worker, self.quest = worker, quest
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
            self._job = jobs.begin(self.worker.ledger, "preparation", "trainer", self.quest.stem, self.quest.id)
        self._show(share)
        self._obey()
        while control.is_paused(self.worker.ledger):
            self._began += LOOK_SECONDS
            self._show(share, "paused")
            self.worker.should_exit.wait(LOOK_SECONDS)
            self._obey()
        self._looked = time.monotonic()

    def _show(self, share: float, state: str = "preparing") -> None:
        left = (time.monotonic() - self._began) * (1 - share) / share if share else None
        self.worker.beat()
        self.worker.report.preparing(self.quest, share, left, self.worker.hero_facts(), state)

    def _obey(self) -> None:
        self.worker.collect()
        if ending := wished(self.worker, self.quest, at_rest=not self.worker.writer.busy):
            raise LeftEarly(ending)
