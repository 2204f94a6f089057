"""A battle's plan: which rows make up each optimizer step. A pure function of quest, seed and settings; no torch.

Step s of a quest always holds the same rows, so a battle can be left after any step and taken up there. No order of
all rows is ever written down: where a row stands is computed, so a quest of any size is begun at once.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from core.prepare import Prepared
from core.quest import Settings
from core.shuffle import shuffled


class Beside(Protocol):
    """What is trained beside a quest's own rows."""

    @property
    def tokens_per_step(self) -> float: ...
    def sequences(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]: ...


class Known(Protocol):
    """What is known of the labels of each of a quest's sequences."""

    def of(self, number: int) -> np.ndarray: ...


class Words(Protocol):
    """What makes words of tokens."""

    stop_ids: Collection[int]

    def decode(self, ids: Iterable[int], specials: bool = True) -> str: ...


@dataclass(frozen=True)
class BattlePlan:
    """All optimizer steps of one quest, numbered from 0. `form`: of its rows; `references`: what the checkpoint before the
    battle makes of their labels, where the school wants to know; `words`: of the hero, where it answers in its steps; `teacher`: SHA-256 of
    its weights, where one is heard."""

    prepared: Prepared
    settings: Settings
    quest_sha256: str
    form: str = field(default="messages", kw_only=True)
    replay: Beside | None = field(default=None, kw_only=True)
    references: Known | None = field(default=None, kw_only=True)
    words: Words | None = field(default=None, kw_only=True)
    teacher: str | None = field(default=None, kw_only=True)

    @cached_property
    def held_out_rows(self) -> np.ndarray:
        """Rows that are never trained, ascending."""
        return self.prepared.held_out(self.settings.validation_fraction, self.settings.validation_rows)

    @property
    def training_rows(self) -> int:
        """How many rows are trained in an epoch: all the others."""
        return len(self.prepared) - len(self.held_out_rows)

    @property
    def held_out_lines(self) -> list[int]:
        """Line numbers in the quest file of the rows that are never trained."""
        return [self.prepared.line(int(row)) for row in self.held_out_rows]

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.training_rows // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.settings.epochs

    @property
    def tokens(self) -> float:
        """All tokens of the battle, nearly: held-out rows are taken to be like the others, answers as long as they may be."""
        rows = self.settings.epochs * self.training_rows
        own = rows * self.prepared.meta["tokens"] / max(1, len(self.prepared))
        if self.form == "problem":
            champion = self.settings.schools.champion
            own = champion.num_generations * (own + rows * champion.max_new_tokens)
        return own + (self.replay.tokens_per_step * self.total_steps if self.replay else 0.0)

    def rows_of(self, step: int) -> list[int]:
        """The rows of optimizer step `step`, in their order."""
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self.settings.batch_size
        places = np.arange(first, min(first + self.settings.batch_size, self.training_rows))
        chosen = shuffled(places, self.training_rows, (self.settings.seed, self.quest_sha256, epoch))
        skipped = self.held_out_rows - np.arange(len(self.held_out_rows))  # training rows before each held-out one
        return (chosen + np.searchsorted(skipped, chosen, side="right")).tolist()

    def sequences_at(self, step: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(tokens, trained) of all that is trained in `step`: the quest's rows, and what is replayed beside them."""
        return self.sequences_of(self.rows_of(step)) + (self.replay.sequences(step) if self.replay else [])

    def lengths_at(self, step: int) -> list[int]:
        """Tokens of each sequence that is trained in `step`; at most so many, where the hero answers itself."""
        lengths, schools = [len(tokens) for tokens, _ in self.sequences_at(step)], self.settings.schools
        if self.settings.school == "whisper" and schools.whisper.on_policy:
            return [length + schools.whisper.max_new_tokens for length in lengths]
        if self.form != "problem":
            return lengths
        champion = schools.champion
        return [length + champion.max_new_tokens for length in lengths for _ in range(champion.num_generations)]

    def sequences_of(self, rows: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        """(tokens, trained) of all sequences of `rows`."""
        return [sequence for row in rows for sequence in self.prepared.sequences(row)]
