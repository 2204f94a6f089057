"""What is trained in a step of a battle, and who learns it; where all of it lies in the quest's file, how it gets there.

It knows no loss.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from core.battle import BattlePlan
from core.forge.packing import Beside, Pack, packs_of
from core.forge.step_facts import Mean


@dataclass(frozen=True)
class Lesson:
    """(tokens, trained) of sequences, and what a school has to know beside each; each `together` of them are not parted.

    `told`: what is reported of it, however it is learned; `loss`: what the step's loss is told as, where that is not what is
    made smaller. `said`: tokens that the hero says at most when it is asked instead of taught.
    """

    sequences: list[tuple[np.ndarray, np.ndarray]]
    beside: list[Beside] = field(default_factory=list)
    together: int = 1
    told: Mapping[str, Mean] = field(default_factory=dict)
    loss: float | None = None
    said: int = 0

    def packs(self, room: int, packing: bool) -> list[Pack]:
        """In as few passes as have room for `room` tokens each."""
        return packs_of(self.sequences, room, packing, self.beside, self.together) if self.sequences else []


@dataclass(frozen=True)
class Learner:
    """The hero as it is taught. `context`: in which its passes are computed; `alive` is called while it speaks; `companion`:
    the other model of the battle, where its school wants one."""

    model: torch.nn.Module
    context: Callable[[], AbstractContextManager] = nullcontext
    alive: Callable[[], None] = lambda: None
    companion: torch.nn.Module | None = None


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
        plan = self._plan
        if plan.references is None:
            return Lesson(plan.sequences_of(rows))
        beside = [self._beside(row, number) for row in rows for number in plan.prepared.numbers(row)]
        return Lesson(plan.sequences_of(rows), beside, self._together)

    def _beside(self, row: int, number: int) -> Beside:
        """What is known of sequence `number`, which is of `row`."""
        values = self._plan.prepared.values
        return {"reference": self._plan.references.of(number)} | ({"side": float(values[row])} if len(values) else {})
