"""What becomes of a quest whose battle failed, or ended the trainer: another try, smaller passes, or failed/ and a dossier.

It knows nothing about how a death is told from another; a Crash says what is to follow.
"""

from typing import Any, Protocol

from core.dossier import OUT_OF_MEMORY, Action, Crash
from core.ledger import Ledger
from core.quest import Quest
from core.training_queue import TrainingQueue


class Report(Protocol):
    """Who knows what became of battles."""

    def was_saving(self, quest: int) -> bool: ...


def blame(
    queue: TrainingQueue,
    ledger: Ledger,
    quest: Quest,
    reason: str,
    attempt: dict[str, Any] | None = None,
    stay: bool = False,
    by: str = "trainer",
) -> Quest:
    """Count a failure of `quest`, and tell of it, as the service `by`."""
    return _told(ledger, queue.blame(quest, reason, attempt, stay), reason, by)


def answer(crash: Crash | None, queue: TrainingQueue, ledger: Ledger, report: Report) -> Quest | None:
    """Do what the end of the last life asks for. Returns a quest that goes on in smaller passes, if there is one.

    The quest that was trained is the first in processing/ that does not merely wait for its checkpoint.
    """
    if crash is None or not crash.blames_quest:
        return None
    suspects = (quest for quest in queue.processing() if not report.was_saving(quest.id))
    quest = next(suspects, None)
    if quest is None:
        return None
    if crash.action is Action.QUARANTINE:
        _told(ledger, queue.quarantine(quest, crash.reason, crash.attempt()), crash.reason)
        return None
    halve = crash.kind in OUT_OF_MEMORY
    left = blame(queue, ledger, quest, crash.reason, crash.attempt(), stay=halve)
    return left if halve and left.state == "processing" else None


def _told(ledger: Ledger, quest: Quest, reason: str, by: str = "trainer") -> Quest:
    failed = quest.state == "failed"
    text = f"{quest.stem} failed: {reason}" + ("" if failed else "; it will be tried again.")
    ledger.event(by, "quest_failed", text, "alert" if failed else "warning", quest=quest.id)
    return quest
