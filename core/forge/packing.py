"""Several sequences in one forward pass, without a leak: which go together, and the tensors of the pass.

Legend: T tokens of a pack, N label positions in it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

Beside = Mapping[str, np.ndarray | float]  # of one sequence: a number, or one for each of its labels


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
    owner_N: int64, the sequence each label is of. beside: what a school knows of its labels (N) or sequences (S), float32.
    """

    tokens_T: torch.Tensor
    positions_T: torch.Tensor
    lengths: tuple[int, ...]
    at_N: torch.Tensor
    labels_N: torch.Tensor
    owner_N: torch.Tensor
    beside: Mapping[str, torch.Tensor] = field(default_factory=dict)

    def to(self, device: torch.device) -> "Pack":
        if device.type == "cpu":
            return self

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            """From pinned memory nobody waits: the processor is a step ahead of the GPU."""
            return tensor.pin_memory().to(device, non_blocking=True)

        names = ("tokens_T", "positions_T", "at_N", "labels_N", "owner_N")
        beside = {name: moved(values) for name, values in self.beside.items()}
        return replace(self, **{name: moved(getattr(self, name)) for name in names}, beside=beside)

    def by_sequence(self, values_N: torch.Tensor) -> torch.Tensor:
        """Sums over the labels of each sequence, (S)."""
        return values_N.new_zeros(len(self.lengths)).index_add(0, self.owner_N, values_N)


def pack(sequences: Sequence[tuple[np.ndarray, np.ndarray]], beside: Sequence[Beside] = ()) -> Pack:
    """The (tokens, trained) pairs as one pass, in the order given, with what is known `beside` each."""
    lengths = tuple(len(tokens) for tokens, _ in sequences)
    tokens_T = np.concatenate([tokens for tokens, _ in sequences]).astype(np.int64)
    learned_T = np.concatenate([trained for _, trained in sequences])
    starts = np.cumsum((0, *lengths[:-1]))
    learned_T[starts] = False  # a first token has nothing before it that could predict it
    positions_T = np.arange(len(tokens_T)) - np.repeat(starts, lengths)
    targets_N = np.flatnonzero(learned_T)
    owner_N = np.repeat(np.arange(len(lengths)), lengths)[targets_N]
    arrays = (tokens_T, positions_T, targets_N - 1, tokens_T[targets_N], owner_N)
    tokens, positions, at, labels, owner = (torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
    names = beside[0] if beside else ()
    known = {name: np.concatenate([np.atleast_1d(values[name]) for values in beside]) for name in names}
    floats = {name: torch.from_numpy(values.astype(np.float32)) for name, values in known.items()}
    return Pack(tokens, positions, lengths, at, labels, owner, floats)


def tokens_together(lengths: Sequence[int], together: int) -> list[int]:
    """How long each `together` of the sequences are, one after the other."""
    return [sum(lengths[first : first + together]) for first in range(0, len(lengths), together)]


def packs_of(
    sequences: Sequence[tuple[np.ndarray, np.ndarray]],
    capacity: int,
    packing: bool = True,
    beside: Sequence[Beside] = (),
    together: int = 1,
) -> list[Pack]:
    """All of `sequences` in as few passes as best-fit finds; one a pass when `packing` is off.

    Each `together` of them, one after the other in the list, are never parted.
    """
    groups = [range(first, first + together) for first in range(0, len(sequences), together)]
    sizes = tokens_together([len(tokens) for tokens, _ in sequences], together)
    bins = best_fit(sizes, capacity) if packing else [[number] for number in range(len(groups))]
    members = ([index for number in sorted(each) for index in groups[number]] for each in bins)
    return [pack([sequences[i] for i in each], [beside[i] for i in each] if beside else ()) for each in members]
