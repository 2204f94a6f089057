"""What answering takes in memory, and what is free for it: arithmetic on a model's files. It loads nothing.

The local Oracle is a guest on a machine that trains: it gets a budget, and only what is free beyond a reserve.
"""

from dataclasses import dataclass
from pathlib import Path

import psutil

from core.machine import main_memory
from core.memory_needs import GIB, Shape

BUDGET_SHARE = 0.25  # of main memory, where config.json names no number
RESERVE_SHARE = 0.05  # of main memory, which stays free
LEAST_CONTEXT, MOST_CONTEXT = 1024, 32_768
AT_ONCE = 2  # answers that grow side by side: a duel; who comes third waits
PROCESS_BYTES = 320 << 20  # Python, torch, the server; measured without transformers: 280 MB after an answer
PIECE_BYTES = 64 << 20  # activations of a piece of prompt, logits and their sorting
_USED = (("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),)


@dataclass(frozen=True)
class Needs:
    """Bytes: `weights` of the model, `token` of one token in its cache."""

    weights: int
    token: int

    @classmethod
    def of(cls, folder: Path) -> "Needs":
        """Of the model in `folder`. Raises UserError where there is none."""
        shape = Shape.read(folder)
        weights = sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
        return cls(weights, 2 * 4 * shape.layers * shape.key)

    def context(self, room: int) -> int:
        """Tokens of an answer with its prompt that fit into `room` bytes; 0 where too few do."""
        tokens = (room - PIECE_BYTES) // self.token
        return min(tokens, MOST_CONTEXT) if tokens >= LEAST_CONTEXT else 0

    @property
    def least(self) -> int:
        """Bytes without which the model does not answer `AT_ONCE` people."""
        return self.weights + AT_ONCE * (PIECE_BYTES + LEAST_CONTEXT * self.token)


def budget(gib: float | None) -> int:
    """Bytes that the local Oracle may use in all."""
    return int(gib * GIB if gib else BUDGET_SHARE * main_memory())


def free() -> int:
    """Bytes that nobody needs at the moment, without the reserve."""
    return min(psutil.virtual_memory().available, *_left_in_group()) - int(RESERVE_SHARE * main_memory())


def shortage(needs: Needs, gib: float | None, held: int = 0) -> str | None:
    """Why a model does not fit, with the remedy; None where it does. `held`: bytes that this process has of its own."""
    wanted, allowed = PROCESS_BYTES + needs.least, budget(gib)
    if wanted > allowed:
        return (
            f"It needs {_gib(wanted)} of memory, and the local Oracle may use {_gib(allowed)}: raise oracle.memory_gib "
            "in config.json, or name a box of its own in oracle.url."
        )
    if wanted - held > free():
        return (
            f"It needs {_gib(wanted - held)} of memory, and {_gib(max(0, free()))} is free beside a reserve. Wait for the "
            "battle to end, or name a box of its own in oracle.url of config.json."
        )
    return None


def _gib(count: float) -> str:
    return f"{count / GIB:.1f} GiB"


def _left_in_group() -> list[int]:
    """What a container's limit leaves, where there is one that can be read."""
    left = []
    for limit, used in _USED:
        try:
            left.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):
            continue
    return left or [1 << 62]
