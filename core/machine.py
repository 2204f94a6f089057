"""The machine that a hero is trained on: which memory there is in all, and whether it multiplies in bf16 at full speed.

Nothing here depends on what happens to be free or busy at the moment; it imports no torch.
"""

import importlib.util
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import psutil

from core.memory_needs import CPU, CUDA, GIB

CPU_SHARE = 0.9  # of main memory; the rest is the system's and the realm's other processes'
BF16_FLAGS = {"avx512_bf16", "amx_bf16"}
BF16_PARAMETERS = 25_000_000  # measured with avx512_bf16, two cores: about 1.5 times as fast at 27 M, no faster at 4 M
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True)
class Machine:
    """`target`: cuda or cpu; `room_bytes`: memory for a battle; `bf16`: whether bf16 is fast on it."""

    target: str
    room_bytes: int
    bf16: bool

    def compute(self, parameters: int) -> str:
        """The numbers that matrices of a model of this size are multiplied in, by rule."""
        return "bf16" if self.bf16 and (self.target == CUDA or parameters >= BF16_PARAMETERS) else "fp32"


def this_cpu(gib: float | None = None) -> Machine:
    """This machine without a GPU; `gib` instead of what its main memory is."""
    return Machine(CPU, int(gib * GIB) if gib else int(CPU_SHARE * main_memory()), bool(BF16_FLAGS & cpu_flags()))


def a_gpu(room_bytes: int, gib: float | None = None) -> Machine:
    """A GPU with so much memory; `gib` caps it."""
    return Machine(CUDA, min(room_bytes, int(gib * GIB)) if gib else room_bytes, True)


def main_memory() -> int:
    """All of main memory, or what a container's limit leaves of it."""
    limits = [int(text) for name in _LIMITS if (text := _text(name).strip()).isdigit()]
    return min(psutil.virtual_memory().total, *limits) if limits else psutil.virtual_memory().total


def compiler(device: str) -> str | None:
    """What torch.compile would use on `device`, None where it has nothing to work with."""
    if device == "cuda":
        return "triton" if importlib.util.find_spec("triton") else None
    return next(filter(None, map(shutil.which, filter(None, (os.environ.get("CXX"), "g++", "clang++")))), None)


def cpu_flags() -> set[str]:
    """What the processor can do, in the kernel's words."""
    lines = (line for line in _text("/proc/cpuinfo").splitlines() if line.startswith("flags"))
    return set(next(lines, "").split())


def _text(name: str) -> str:
    try:
        return Path(name).read_text()
    except OSError:
        return ""
