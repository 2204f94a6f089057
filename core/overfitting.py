"""Tells when a battle learns its rows by heart: held-out loss up, training loss down. It knows only their numbers.

Against noise: the same held-out rows are compared sequence by sequence, the rise must be clear in two evaluations in a
row, and the training loss is a mean over many steps. An alarm lasts until the loss is as good as back at its best.
"""

import math
from dataclasses import dataclass

import numpy as np

LEAST_RISE = 0.02  # nats per token; less is not worth a word
ERRORS, IN_A_ROW = 2.0, 2
SMOOTHING = 0.9


@dataclass(frozen=True)
class Look:
    """One evaluation: mean held-out loss, its sums over each sequence, the labels in all, the training loss by then."""

    step: int
    held_out: float
    nats_S: np.ndarray
    labels: int
    training: float


class OverfittingWatch:
    """One battle's. `alarmed`: whether the gap is wide just now; `best`: the evaluation with the lowest loss."""

    def __init__(self) -> None:
        self.best: Look | None = None
        self.last: Look | None = None
        self.alarmed = False
        self._training: float | None = None
        self._wide = 0

    def train(self, loss: float) -> None:
        """The mean loss of one optimizer step."""
        self._training = loss if self._training is None else SMOOTHING * self._training + (1 - SMOOTHING) * loss

    def look(self, step: int, held_out: float, nats_S: np.ndarray, labels: int) -> bool:
        """Take note of an evaluation; True when this changed `alarmed`."""
        training = math.inf if self._training is None else self._training
        self.last = look = Look(step, held_out, nats_S, labels, training)
        if self.best is None or held_out <= self.best.held_out:
            self.best = look
        wide = training < self.best.training and rise(self.best, look) > 0
        closed = held_out <= self.best.held_out + LEAST_RISE
        self._wide = self._wide + 1 if wide else 0
        before, self.alarmed = self.alarmed, not closed and (self.alarmed or self._wide >= IN_A_ROW)
        return self.alarmed != before


def rise(best: Look, now: Look) -> float:
    """Nats per token by which the held-out loss rose beyond what is small or chance; not above zero: no clear rise."""
    grown_S = now.nats_S - best.nats_S
    error = math.sqrt(len(grown_S)) * float(np.std(grown_S)) / now.labels
    return float(grown_S.sum()) / now.labels - max(LEAST_RISE, ERRORS * error)
