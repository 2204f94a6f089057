"""What a step and a written token cost: floating-point operations by formula, and energy, the player's budget. No torch, no clock.

One energy is a thousand million operations. Legend: B samples of T positions each, V tokens of the vocabulary.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from core.arena.shape import Shape
from core.flops import training_flops

if TYPE_CHECKING:
    import numpy as np

FLOPS_PER_ENERGY = 1e9
FULL = 1000.0  # what a new player has, and `rest` fills up to


def step_flops(shape: Shape, vocabulary: int, samples: int, positions: int) -> float:
    """Operations of one training step on a batch (B, T), padding included, forward and backward.

    Weights: 2 a token forward, 4 backward, of the layers' matrices and of the head; attention: causal, so half of the
    square (core/flops.py; Chowdhery et al., "PaLM", 2022, appendix B).
    """
    return training_flops(shape.config(vocabulary), [positions] * samples, samples * positions)


def token_flops(shape: Shape, vocabulary: int, seen: int) -> float:
    """Operations of writing one token behind `seen` others, whose keys and values are kept: a third of a step's."""
    matrices = shape.n_layer * shape.layer_matrices + shape.n_embd * vocabulary
    return 2 * matrices + 4 * shape.n_layer * shape.n_head * shape.head_dim * (seen + 1)


def step_energies(shape: Shape, vocabulary: int, samples: int, widths: "np.ndarray") -> "np.ndarray":
    """Energy of each of the steps on batches of so many samples, as wide as `widths` says."""
    import numpy as np

    distinct, which = np.unique(widths, return_inverse=True)
    costs = [step_flops(shape, vocabulary, samples, int(width)) / FLOPS_PER_ENERGY for width in distinct]
    return np.array(costs)[which]


def writing_energy(shape: Shape, vocabulary: int, lengths: Iterable[int]) -> float:
    """Energy of writing texts of so many tokens each, the end included."""
    longest = max(lengths := list(lengths), default=0)
    costs = [token_flops(shape, vocabulary, seen) for seen in range(longest)]
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    return sum(sums[length] for length in lengths) / FLOPS_PER_ENERGY
