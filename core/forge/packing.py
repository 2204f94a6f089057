"""Several sequences in one forward pass, without a leak: which go together, and the tensors of the pass.

Legend: T tokens of a pack, N label positions in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of `lengths` in bins of at most `capacity` tokens: best-fit decreasing, deterministic.

    A sequence longer than `capacity` gets a bin of its own. (Johnson et al., "Worst-case performance bounds for simple
    one-dimensional packing algorithms", 1974: at most 11/9 of the optimal number of bins.)
    """
    bins: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        fitting = [number for number, free in enumerate(room) if free >= lengths[index]]
        if fitting:
            number = min(fitting, key=lambda number: (room[number], number))
        else:
            number = len(bins)
            bins.append([])
            room.append(capacity)
        bins[number].append(index)
        room[number] -= lengths[index]
    return bins


@dataclass(frozen=True)
class Pack:
    """One forward pass. Attention never crosses a sequence's end; only label positions are scored.

    tokens_T, positions_T: int64; lengths: tokens of each sequence, in order;
    at_N: int64, positions whose next token is learned; labels_N: int64, those next tokens.
    """

    tokens_T: torch.Tensor
    positions_T: torch.Tensor
    lengths: tuple[int, ...]
    at_N: torch.Tensor
    labels_N: torch.Tensor

    def to(self, device: torch.device) -> "Pack":
        if device.type == "cpu":
            return self
        moved = (  # from pinned memory nobody waits: the processor is a step ahead of the GPU
            tensor.pin_memory().to(device, non_blocking=True)
            for tensor in (self.tokens_T, self.positions_T, self.at_N, self.labels_N)
        )
        tokens_T, positions_T, at_N, labels_N = moved
        return Pack(tokens_T, positions_T, self.lengths, at_N, labels_N)


def pack(sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> Pack:
    """The (tokens, trained) pairs as one pass, in the order given."""
    lengths = tuple(len(tokens) for tokens, _ in sequences)
    tokens_T = np.concatenate([tokens for tokens, _ in sequences]).astype(np.int64)
    learned_T = np.concatenate([trained for _, trained in sequences])
    starts = np.cumsum((0, *lengths[:-1]))
    learned_T[starts] = False  # a first token has nothing before it that could predict it
    positions_T = np.arange(len(tokens_T)) - np.repeat(starts, lengths)
    targets_N = np.flatnonzero(learned_T)
    arrays = (tokens_T, positions_T, targets_N - 1, tokens_T[targets_N])
    tokens, positions, at, labels = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    return Pack(tokens, positions, lengths, at, labels)


def packs_of(sequences: Sequence[tuple[np.ndarray, np.ndarray]], capacity: int, packing: bool = True) -> list[Pack]:
    """All of `sequences` in as few passes as best-fit finds; one sequence a pass when `packing` is off."""
    bins = (
        best_fit([len(tokens) for tokens, _ in sequences], capacity)
        if packing
        else [[i] for i in range(len(sequences))]
    )
    return [pack([sequences[index] for index in sorted(members)]) for members in bins]
