"""The means that a hero is trained by: chosen when it is loaded, carried out on its model, kept with its checkpoints.

It knows which memory there is and what was chosen before; what fits is core/memory_plan.py's to say.
"""

import ctypes
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import torch

from core.config import Config
from core.durable import read_json
from core.errors import UserError
from core.forge.optimizers import OptimizerKind
from core.forge.state import has_state
from core.machine import Machine, a_gpu, this_cpu
from core.memory_needs import ALONE, GIB, HEAP_BLOCK, MAPPED_BLOCK, Beside, Means, Shape
from core.memory_plan import KINDS, RECORD, SHORTEST, choose, frozen

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def machine(config: Config) -> Machine:
    """The machine as torch sees it, all of its memory or what `memory.gib` leaves of it."""
    if not torch.cuda.is_available():
        return this_cpu(config.memory.gib)
    return a_gpu(torch.cuda.get_device_properties(0).total_memory, config.memory.gib)


def settle(
    folder: Path, config: Config, tell: Callable[[str, str], None], beside: Beside = ALONE
) -> tuple[Means, OptimizerKind]:
    """The means and the optimizer of the hero in `folder`, carried out on this process. Raises UserError where none fit.

    `tell(code, text)` hears of means that are no longer those the hero had, and of rows that would be too long. `beside`: what its
    battles hold beside it.
    """
    here, shape, (before, kind) = machine(config), Shape.read(folder), read(folder)
    found = choose(config, shape, here, before, beside)
    if not found.fits:
        needed, advice = f"{found.total_bytes / GIB:.1f} GiB of {here.room_bytes / GIB:.1f}", "; ".join(found.advice)
        found = choose(config.model_copy(update={"max_length": SHORTEST}), shape, here, before, beside)
        if not found.fits:
            raise UserError(
                f"the hero does not fit into memory: {needed}. {advice}. If you know better, set memory.gib."
            )
        tell("memory_tight", f"Rows as long as max_length may not fit into memory: {needed}. {advice}.")
    means = found.means
    if before and (changed := [name for name in KINDS if getattr(before, name) != getattr(means, name)]):
        text = ", ".join(f"{name} {getattr(means, name)} instead of {getattr(before, name)}" for name in changed)
        tell("means_changed", f"The hero goes on with other means: {text}.")
    if means.mapped:
        _tell_malloc(M_MMAP_THRESHOLD, MAPPED_BLOCK)  # each large block by itself, so that a pass leaves no holes
    else:
        keep_heap()
    if here.target == "cuda" and config.memory.gib:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, here.room_bytes / total))
    return means, kind or (OptimizerKind() if has_state(folder) else OptimizerKind.of(config.trainer))


def keep_heap() -> None:
    """From now on the C library keeps what is freed: a pass needs again what the one before gave back, and touching
    fresh pages costs up to a tenth of a step on a CPU."""
    _tell_malloc(M_MMAP_THRESHOLD, HEAP_BLOCK)
    _tell_malloc(M_TRIM_THRESHOLD, (1 << 31) - 1)


def _tell_malloc(parameter: int, value: int) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; others do without
    if mallopt:
        mallopt(parameter, value)


def dtype(means: Means) -> torch.dtype:
    return torch.bfloat16 if means.weights == "bf16" else torch.float32


def record(means: Means, kind: OptimizerKind) -> bytes:
    """What a checkpoint's file `RECORD` says: the means that its weights were trained by."""
    return orjson.dumps({"means": asdict(means), "optimizer": asdict(kind)}, option=orjson.OPT_INDENT_2)


def read(folder: Path) -> tuple[Means | None, OptimizerKind | None]:
    """What `record` said there; None for a hero that was not trained yet."""
    means = frozen(folder)
    if means is None:
        return None, None
    kind: dict[str, Any] = read_json(folder / RECORD)["optimizer"]
    return means, OptimizerKind.of(kind)
