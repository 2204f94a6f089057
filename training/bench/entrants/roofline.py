"""The machine's own limit: the fastest that torch multiplies matrices here, by precision."""

import time

import torch

from training.bench.contestants import PRECISIONS
from training.bench.entrants.task import Task

SIZES = (1024, 2048)
SECONDS = 0.5


def run(task: Task) -> dict:
    """Floating-point operations a second, the best of two squares."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    types = dict(zip(PRECISIONS, (torch.float32, torch.bfloat16), strict=True))
    sizes = SIZES if device.type == "cpu" else (4096, 8192)
    return {name: max(_rate(size, dtype, device) for size in sizes) for name, dtype in types.items()}


def _rate(size: int, dtype: torch.dtype, device: torch.device) -> float:
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.mm(left, right)
    count, began = 0, _now(device)
    while (passed := _now(device) - began) < SECONDS:
        torch.mm(left, right, out=out)
        count += 1
    return 2 * size**3 * count / passed


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()
