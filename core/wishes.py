"""Wishes carried out while nothing is trained, and how a battle is left by one. It knows nothing about training."""

from dataclasses import dataclass
from typing import Any, Protocol

from core import control, turning_back
from core.errors import UserError
from core.quest import Quest
from core.turning_back import Turning


@dataclass(frozen=True)
class Ending:
    """How a battle was left before its end: `stop` (shut down), `skip`, `cancel` or `rollback` (somebody's wish)."""

    kind: str
    wish: int | None = None


class Resting(Turning, Protocol):
    """What is needed of the worker that has no battle."""

    def is_trained(self, quest: Quest) -> bool: ...
    def left_in_processing(self) -> Quest | None: ...
    def leave(self, quest: Quest, ending: Ending) -> None: ...


def hear_wishes(worker: Resting) -> bool:
    """Carry out what was wished; whether the realm is paused."""
    for wish in control.waiting(worker.ledger):
        if wish["verb"] == "cancel":
            cancel_waiting(worker, wish)
        elif wish["verb"] in control.POINTING:
            turning_back.carry_out(worker, wish)
        else:
            worker.end_writing()  # a pause or skip that is carried out has its checkpoint
            result = _skip_left(worker, wish) if wish["verb"] == "skip" else "done"
            control.carried_out(worker.ledger, wish["id"], result)
    return control.is_paused(worker.ledger)


def _skip_left(worker: Resting, wish: dict[str, Any]) -> str:
    """A skip of the battle that an earlier life left: it has not begun again yet."""
    quest = worker.left_in_processing()
    if quest is None or not control.concerns(wish, quest.id):
        return "its battle was over"
    worker.leave(quest, Ending("skip"))
    return "done"


def cancel_waiting(worker: Resting, wish: dict[str, Any]) -> None:
    """Cancel a quest that is not in battle; what came of it is the wish's result."""
    try:
        with worker.queue.alone():
            quest = worker.queue.find(int(wish["argument"]))
            if quest.state in ("recently_completed", "failed", "rejected"):
                raise UserError(f"quest {quest.id} is in {quest.state}, there is nothing to cancel")
            if worker.is_trained(quest):
                raise UserError(
                    f"quest {quest.id} is trained and its checkpoint is on its way, there is nothing to cancel"
                )
            worker.queue.give_up(quest, "cancelled")
        control.carried_out(worker.ledger, wish["id"], "done")
    except UserError as problem:
        control.carried_out(worker.ledger, wish["id"], str(problem))
