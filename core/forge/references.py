"""The log-probabilities that the checkpoint before a battle gives the labels of its quest: computed once, kept as a file.

So no second model stays in memory, and a battle that is killed goes on with the same numbers. The file lies in the quest's
prepared folder and belongs to the battle that last began with that quest.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from core.durable import sync_file, sync_folder
from core.forge.evaluate import PASS_TOKENS, evaluating
from core.forge.label_scores import label_scores
from core.forge.packing import best_fit, pack
from core.prepare import Prepared

AT_ONCE = 512  # sequences that are sorted into passes together


class References:
    """float32, in nats; `of(number)` is of the labels of one sequence."""

    def __init__(self, prepared: Prepared, path: Path):
        self._ends = np.cumsum(prepared.labels)
        self._logps = np.memmap(path, np.float32, "r") if self._ends[-1] else np.empty(0, np.float32)

    def of(self, number: int) -> np.ndarray:
        return self._logps[self._ends[number - 1] if number else 0 : self._ends[number]]


def path_of(prepared: Prepared, quest: int) -> Path:
    """Where those of the battle of `quest` lie."""
    return prepared.folder / f"reference-q{quest}.bin"


def write_references(
    model: torch.nn.Module, prepared: Prepared, path: Path, progress: Callable[[float], None] = lambda share: None
) -> None:
    """Ask `model` for all labels of a quest. `progress` is told what share is done, and may end the work by raising."""
    building, count = path.with_suffix(".tmp"), len(prepared.labels)
    with open(building, "wb") as file:
        for first in range(0, count, AT_ONCE):
            sequences = [prepared.sequence(number) for number in range(first, min(first + AT_ONCE, count))]
            file.write(np.concatenate(logps_of(model, sequences)).astype(np.float32).tobytes())
            progress(min(1.0, (first + AT_ONCE) / count))
    sync_file(building)
    os.replace(building, path)
    sync_folder(path.parent)


def logps_of(
    model: torch.nn.Module, sequences: Sequence[tuple[np.ndarray, np.ndarray]], temperature: float = 1.0
) -> list[np.ndarray]:
    """What `model` gives the labels of each sequence (tokens, trained), float32, logits divided by `temperature`."""
    device = next(model.parameters()).device
    found: list[np.ndarray] = [np.empty(0, np.float32)] * len(sequences)
    with evaluating(model):
        for members in best_fit([len(tokens) for tokens, _ in sequences], PASS_TOKENS):
            one = pack([sequences[index] for index in members])
            logps_N = label_scores(model, one.to(device), temperature=temperature).logps_N.cpu().numpy()
            labels_S = np.bincount(one.owner_N.numpy(), minlength=len(members))
            for index, part in zip(members, np.split(logps_N, np.cumsum(labels_S)[:-1]), strict=True):
                found[index] = part
    return found
