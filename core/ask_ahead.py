"""Has the teachers on servers asked while their quests wait, the daemon's part: the trainer takes only what is answered.

A box may be slow, and it answers nobody faster for being waited for: so a child process asks, and the hero is taught other
quests meanwhile. A quest that a teacher fails waits behind the others and goes to failed/ in the end, as after a battle.
"""

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from core import jobs
from core.blame import blame
from core.config import Config
from core.dossier import attempt_of
from core.durable import write_json
from core.errors import UserError
from core.ledger import Ledger
from core.paths import PRIORITIES, RealmPaths
from core.quest import ANSWERS, Quest
from core.teacher_answers import SCHOOL, is_ready
from core.training_queue import TrainingQueue
from core.validation_process import ValidationProcess

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
AGAIN_SECONDS = 20.0  # after a failure, each time twice as long
KIND = "asking"


class AskAhead:
    """One quest at a time, in the order in which they wait. `lane`: the child that asks."""

    def __init__(
        self, paths: RealmPaths, config: Config, ledger: Ledger, queue: TrainingQueue, wake: Callable[[], None]
    ):
        self.paths, self.config, self.ledger, self.queue = paths, config, ledger, queue
        self.lane = ValidationProcess(wake)
        paths.asking.unlink(missing_ok=True)  # of a daemon that was killed
        self._next_look, self._not_before = 0.0, {}
        self._job, self._began, self._first, self._told = 0, 0.0, 0.0, -1.0

    def close(self) -> None:
        self.lane.close()
        self.paths.asking.unlink(missing_ok=True)

    def turn(self, now: float, begin: bool) -> None:
        """See what came, and `begin` the next; never blocking."""
        if self.lane.busy:
            if done := self.lane.take(now):
                self._settle(*done, now)
            else:
                self._tell(now)
        elif begin and now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            if quest := self._next(now):
                self._give(quest, now)

    def _next(self, now: float) -> Quest | None:
        waiting = {
            row["id"] for row in self.ledger.all("SELECT id FROM quests WHERE state='queued' AND school=?", (SCHOOL,))
        }
        if not waiting:
            return None
        return next(
            (
                quest
                for quest in self.queue.coming()
                if quest.id in waiting and now >= self._not_before.get(quest.id, 0.0) and not is_ready(quest)
            ),
            None,
        )

    def _give(self, quest: Quest, now: float) -> None:
        with self.queue.alone():
            if not quest.path.exists():
                return
            quest.companion(ANSWERS).touch()  # here and not by the child, or it might lie where the quest was
        card, configured = quest.card, self.config.schools.whisper.url
        may_know = card["settings"]["schools"]["whisper"]["url"] == configured and self.paths.whisper_key.is_file()
        self._job = jobs.begin(self.ledger, KIND, "daemon", quest.stem, quest.id)
        self._told = -1.0
        self.lane.give(
            {
                "task": "ask",
                "quest": quest.id,
                "stem": quest.stem,
                "path": str(quest.path),
                "card": card,
                "answers": str(quest.companion(ANSWERS)),
                "key": str(self.paths.whisper_key) if may_know else None,
            },
            now,
        )

    def _tell(self, now: float) -> None:
        """How far it is, for `status` and the pages."""
        task, share = self.lane.task, self.lane.share
        if self._told < 0:
            self._began, self._first = now, share  # which may have been reached before
        if share != self._told:
            left = (now - self._began) * (1 - share) / (share - self._first) if share > self._first else None
            facts = {
                "quest": task["stem"],
                "quest_id": task["quest"],
                "kind": KIND,
                "share": share,
                "eta_seconds": left,
            }
            write_json(self.paths.asking, facts)
            self._told = share

    def _settle(self, task: dict[str, Any], answer: dict[str, Any], now: float) -> None:
        self.paths.asking.unlink(missing_ok=True)
        self._next_look, failure = now, answer.get("failure")
        jobs.end(self.ledger, self._job, failure)
        if failure and ("no_space" in answer or not os.path.lexists(task["path"])):
            return  # it is asked for again, wherever it waits
        with self.queue.alone():
            try:
                quest = self.queue.find(task["quest"])
            except UserError:  # its owner took the file away
                return
            if not failure:
                self._answered(quest, answer)  # though the trainer may have claimed it already
            elif quest.state in PRIORITIES:
                self._failed(quest, failure, now)

    def _answered(self, quest: Quest, answer: dict[str, Any]) -> None:
        self._not_before.pop(quest.id, None)
        told = {key: answer[key] for key in ("rows", "left_out", "model", "url")}
        write_json(quest.companion(".report.json"), {**quest.report, KIND: told | {"time": time.time()}})
        text = f"{quest.stem}: {answer['model']} answered {answer['rows']:,} rows."
        self.ledger.event("daemon", "teacher_answered", text, quest=quest.id, **told)

    def _failed(self, quest: Quest, failure: str, now: float) -> None:
        log.warning("asking the teacher for %s failed: %s", quest.name, failure)
        left = blame(self.queue, self.ledger, quest, failure, attempt_of(UserError(failure), 0), stay=True, by="daemon")
        row = self.ledger.one("SELECT failures FROM quests WHERE id=?", (left.id,))
        self._not_before[quest.id] = now + AGAIN_SECONDS * 2 ** (row["failures"] - 1)
        if left.state not in PRIORITIES:
            del self._not_before[quest.id]
