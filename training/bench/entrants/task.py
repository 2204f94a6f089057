"""What one process is asked to do, as the JSON it is started with. Knows nothing about torch."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.paths import RealmPaths
from training.bench.contestants import SIZES
from training.bench.material import Material

IGNORED = -100


@dataclass(frozen=True)
class Task:
    """`started`: the monotonic clock when the process was asked for; `equal` and `options` are the contestant's.

    `turns`: the stopwatch's.
    """

    entrant: str
    root: str
    size: str
    steps: int
    precision: str
    threads: int
    started: float
    equal: bool = True
    options: dict[str, Any] = field(default_factory=dict)
    turns: tuple[int, int] | None = None

    @cached_property
    def material(self) -> Material:
        return Material(RealmPaths(Path(self.root)), SIZES[self.size], self.steps)

    def sequences(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(tokens, trained) of the rows of an optimizer step, in their order."""
        return self.material.plan.sequences_of(self.material.plan.rows_of(step))

    def examples(self) -> list[dict[str, list[int]]]:
        """All rows in the order of the plan, as Hugging Face's data sets hold them."""
        return [example(*sequence) for step in range(self.steps) for sequence in self.sequences(step)]

    def held_out(self) -> list[dict[str, list[int]]]:
        plan = self.material.plan
        return [example(*sequence) for sequence in plan.sequences_of([int(row) for row in plan.held_out_rows])]


def example(tokens: np.ndarray, trained: np.ndarray) -> dict[str, list[int]]:
    """`labels` are the tokens themselves where they are trained; the model shifts them."""
    return {"input_ids": tokens.tolist(), "labels": np.where(trained, tokens.astype(np.int64), IGNORED).tolist()}
