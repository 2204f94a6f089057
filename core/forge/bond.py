"""Whether answers belong to their prompts: how much likelier a model finds them after their own prompt than after another's.

Rows whose answers were shuffled teach a tone and a vocabulary, and their held-out loss falls like that of good ones. What
they cannot teach is which answer follows which prompt; that is looked for here. It changes neither weights nor random streams.
"""

from collections.abc import Sequence
from math import sqrt

import numpy as np
import torch

from core.forge.evaluate import nats_of

LEAST_ROWS = 16
TURNS = 8  # other prompts that each answer is tried after: one would leave much to chance
Row = tuple[np.ndarray, np.ndarray]


def bond(model: torch.nn.Module, rows: Sequence[Row]) -> float | None:
    """The z-score of the mean gain, in nats per label, of each row's own prompt over those of the next rows; None where fewer than
    `LEAST_ROWS` have a prompt, or all have the same.

    A row is (tokens, trained); its prompt is what stands before the first trained token.
    """
    parts = [
        (tokens[:first], tokens[first:], trained[first:])
        for tokens, trained in rows
        if (first := int(trained.argmax()))
    ]
    if len(parts) < LEAST_ROWS:
        return None
    own, *others = (_losses(model, parts, turn) for turn in range(TURNS + 1))
    gains = np.mean(others, axis=0) - own
    spread = float(gains.std(ddof=1))
    return float(gains.mean()) / (spread / sqrt(len(gains))) if spread else None


def _losses(
    model: torch.nn.Module, parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], turn: int
) -> np.ndarray:
    """Mean nats per label of each answer after the prompt that stands `turn` rows further."""
    sequences = []
    for place, (_, answer, trained) in enumerate(parts):
        prompt = parts[(place + turn) % len(parts)][0]
        mask = np.concatenate([np.zeros(len(prompt), np.bool_), trained])
        sequences.append((np.concatenate([prompt, answer]), mask))
    return nats_of(model, sequences) / [int(mask.sum()) for _, mask in sequences]
