"""A battle's plan: which rows make up each optimizer step. A pure function of quest, seed and settings; no torch.

Step s of a quest always holds the same rows, so a battle can be left after any step and taken up there.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from core.prepare import Prepared
from core.quest import Settings


@dataclass(frozen=True)
class BattlePlan:
    """All optimizer steps of one quest, numbered from 0."""

    prepared: Prepared
    settings: Settings
    quest_sha256: str

    @cached_property
    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        return self.prepared.split(self.settings.validation_fraction, self.settings.validation_rows)

    @property
    def training_rows(self) -> np.ndarray:
        return self._split[0]

    @property
    def held_out_rows(self) -> np.ndarray:
        return self._split[1]

    @property
    def held_out_lines(self) -> list[int]:
        """Line numbers in the quest file of the rows that are never trained."""
        return [self.prepared.line(int(row)) for row in self.held_out_rows]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.training_rows) // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    def rows_of(self, step: int) -> list[int]:
        """The rows of optimizer step `step`, in their order."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = _order(self.settings.seed, self.quest_sha256, epoch, len(self.training_rows))
        chosen = order[place * self.settings.batch_size : (place + 1) * self.settings.batch_size]
        return [int(row) for row in self.training_rows[chosen]]

    def sequences_of(self, rows: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(tokens, trained) of all sequences of `rows`."""
        return [sequence for row in rows for sequence in self.prepared.sequences(row)]


@lru_cache(maxsize=4)
def _order(seed: int, quest_sha256: str, epoch: int, count: int) -> np.ndarray:
    """A permutation of `count` rows that belongs to this seed, quest and epoch."""
    generator = np.random.Generator(np.random.PCG64([seed, int(quest_sha256[:15], 16), epoch]))
    return generator.permutation(count)
