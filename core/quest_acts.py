"""What people do with quests by hand: retry, cancel, move. Command line, pages and API all ask here; it knows none of them.

A quest that waits is moved at once, under the queue's lock, so that the trainer finds it in its old place or in its new
one. The one that is trained is the trainer's: cancelling it is a wish. Files go back through the inbox like new ones.
"""

import fcntl
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from core.control import wish
from core.durable import read_json
from core.errors import UserError, WrongState, nearest
from core.inbox import drop
from core.ledger import Ledger
from core.paths import PRIORITIES, RealmPaths
from core.quest import COMPANIONS, Quest, priority_of
from core.status import service_states
from core.training_queue import TrainingQueue

ENDS = ("first", "last", "up", "down")


class QuestActs:
    """The acts on one realm's quests; each answers {quest, text, …}. Raises UserError, WrongState. `by`: who tells of it."""

    def __init__(self, paths: RealmPaths, ledger: Ledger, by: str):
        self.paths, self.ledger, self.by = paths, ledger, by
        self.queue = TrainingQueue(paths, ledger)

    # Cancel

    def cancel(self, number: int) -> dict[str, Any]:
        """To failed/: at once, or by the trainer as soon as it can (`wish`: whose result tells what came of it)."""
        with self.queue.alone():
            quest = self.queue.find(number)
            trained = quest.state == "processing" and self._trainer_lives()
            if quest.state not in (*PRIORITIES, "processing"):
                raise WrongState(
                    f"quest {number} is in {quest.state}; only one that waits or is in training can be cancelled"
                )
            if not trained:
                self.queue.give_up(quest, "cancelled")
        if trained:
            key, text = (
                wish(self.ledger, "cancel", str(number)),
                f"The trainer will cancel {quest.name} as soon as it can.",
            )
            return {"quest": number, "text": text, "wish": key}
        self._tell("quest_withdrawn", f"{quest.stem} was cancelled before it was trained.", number)
        return {"quest": number, "text": f"{quest.name} is in queue/failed/."}

    def _trainer_lives(self) -> bool:
        return any(service["name"] == "trainer" and service["pid"] for service in service_states(self.paths))

    # Move

    def move(
        self,
        number: int,
        priority: str | None = None,
        before: int | None = None,
        after: int | None = None,
        to: str | None = None,
    ) -> dict[str, Any]:
        """Just before or after another quest, or `to` an end of its priority or one place up or down."""
        given = [value for value in (before, after, to) if value is not None]
        if len(given) > 1 or not (given or priority):
            raise UserError("say where to: a priority, and at most one of before, after and to")
        if to is not None and to not in ENDS:
            raise UserError(f"to = {to[:40]!r}{nearest(to, ENDS) or '.'} Known: {', '.join(ENDS)}")
        with self.queue.alone():
            quest = self._waiting(number)
            other = before if after is None else after
            if priority is None:
                priority = quest.state if other is None else self._waiting(other).state
            line = [each.id for each in self.queue.in_line(priority_of(priority))]
            position = self._position(number, line, other, after is not None, to)
            moved = self.queue.place(quest, priority, position)
        ahead = "first" if not position else f"behind {position} others"
        return {
            "quest": number,
            "priority": moved.state,
            "place": position,
            "text": f"{quest.name} waits in {moved.state}, {ahead}.",
        }

    def _waiting(self, number: int) -> Quest:
        quest = self.queue.find(number)
        if quest.state not in PRIORITIES:
            raise WrongState(f"quest {number} is in {quest.state}; only quests that wait have a place")
        return quest

    @staticmethod
    def _position(number: int, line: list[int], other: int | None, after: bool, to: str | None) -> int:
        """How many of the `line` will stand before it."""
        now = line.index(number) if number in line else None
        others = [each for each in line if each != number]
        if other is not None:
            if other not in others:
                raise WrongState(f"quest {other} does not wait in that priority beside quest {number}")
            return others.index(other) + after
        if to in ("up", "down") and now is not None:
            return max(0, now - 1) if to == "up" else min(len(others), now + 1)
        return 0 if to == "first" else len(others)

    # Retry

    def retry(self, number: int, force: bool = False) -> dict[str, Any]:
        """Train a failed quest again, have a rejected one judged anew; `force`: a duplicate, or one that was trained."""
        with self.queue.alone():
            quest = self.queue.find(number)
            if quest.state == "failed":
                self.ledger.change("quests", number, failures=0)
                text = f"{quest.name} waits again in {self.queue.put_back(quest).state}."
        if quest.state == "rejected":
            text = self._judge_again(quest, force)
        elif quest.state == "recently_completed":
            text = self._train_again(quest, force)
        elif quest.state != "failed":
            raise WrongState(f"quest {number} is in {quest.state} and needs no retry")
        self._tell("quest_retried", text, number)
        return {"quest": number, "text": text}

    def _judge_again(self, quest: Quest, force: bool) -> str:
        """Through the inbox once more; the rejected copy goes when the new one is safe."""
        if quest.report.get("reason") == "duplicate" and not force:
            raise WrongState(
                f"quest {quest.id} is a duplicate of quest {quest.report.get('duplicate_of')}; --force trains it"
            )
        with _only_reader(quest) as source:
            self._drop(quest, source, read_json(quest.companion(".quest.json"), {}), force)
            quest.path.unlink()
            for suffix in COMPANIONS:
                quest.companion(suffix).unlink(missing_ok=True)
        self.ledger.change("quests", quest.id, state="retried", updated=time.time())
        return f"{quest.stem} lies in the inbox again, to be judged anew."

    def _train_again(self, quest: Quest, force: bool) -> str:
        if not force:
            raise WrongState(f"quest {quest.id} was trained to its end; --force trains it again")
        card = quest.card
        settings = card["settings"]
        sidecar = {
            name: settings[name]
            for name in ("school", "schools", "epochs", "seed", "columns", "profile")
            if name in settings
        }
        with _only_reader(quest) as source:
            self._drop(
                quest, source, sidecar | {name: card[name] for name in ("skill", "origin") if card.get(name)}, force
            )
        return f"A copy of {quest.stem} lies in the inbox, to be trained again."

    def _drop(self, quest: Quest, source: BinaryIO, sidecar: dict[str, Any], force: bool) -> None:
        row = self.ledger.one("SELECT priority FROM quests WHERE id=?", (quest.id,))
        with drop(self.paths, quest.stem, row["priority"], sidecar | ({"force": True} if force else {})) as file:
            shutil.copyfileobj(source, file, 1 << 20)

    def _tell(self, code: str, text: str, quest: int) -> None:
        self.ledger.event(self.by, code, text, quest=quest)


@contextmanager
def _only_reader(quest: Quest) -> Iterator[BinaryIO]:
    """The quest's file for one at a time, so that asking twice brings it back once; never what a link leads to, nor a pipe."""
    with _open_regular(quest.path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WrongState(f"quest {quest.id} is being copied into the inbox just now") from None
        if not os.path.lexists(quest.path):
            raise WrongState(f"quest {quest.id} went back into the inbox just now")
        yield file


def _open_regular(path: Path) -> BinaryIO:
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise UserError(f"{path} is no regular file; drop the file itself into the inbox")
        return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except FileNotFoundError:
        raise WrongState(f"{path.name} went somewhere else just now; `quest list` shows where") from None
