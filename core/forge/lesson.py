"""What is trained in a step of a battle, where all of it lies in the quest's file. It knows no model and no loss."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from core.battle import BattlePlan
from core.forge.packing import Beside, Pack, packs_of


@dataclass(frozen=True)
class Lesson:
    """(tokens, trained) of sequences, and what a school has to know beside each; each `together` of them are not parted."""

    sequences: list[tuple[np.ndarray, np.ndarray]]
    beside: list[Beside] = field(default_factory=list)
    together: int = 1

    def packs(self, room: int, packing: bool) -> list[Pack]:
        """In as few passes as have room for `room` tokens each."""
        return packs_of(self.sequences, room, packing, self.beside, self.together) if self.sequences else []


class Lessons(Protocol):
    """A battle's lessons, step by step from 0."""

    def at(self, step: int) -> Lesson: ...
    def held_out(self) -> Lesson: ...


class FileLessons:
    """The rows of a plan as they are, each row's sequences `together`."""

    def __init__(self, plan: BattlePlan, together: int = 1):
        self._plan, self._together = plan, together

    def at(self, step: int) -> Lesson:
        plan = self._plan
        if plan.references is None:
            return Lesson(plan.sequences_at(step))
        return self._of(plan.rows_of(step))

    def held_out(self) -> Lesson:
        return self._of(self._plan.held_out_rows.tolist())

    def _of(self, rows: list[int]) -> Lesson:
        plan, references = self._plan, self._plan.references
        if references is None:
            return Lesson(plan.sequences_of(rows))
        values = plan.prepared.values
        beside = [
            {"reference": references.of(number)} | ({"side": float(values[row])} if len(values) else {})
            for row in rows
            for number in plan.prepared.numbers(row)
        ]
        return Lesson(plan.sequences_of(rows), beside, self._together)
