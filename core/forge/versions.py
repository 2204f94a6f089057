"""What the last bits of a training depend on beside its data and settings; a checkpoint keeps it, as text.

Under another of these training goes on and is as good, but no longer the same bit for bit. It decides nothing.
"""

import platform
from typing import TYPE_CHECKING

import numpy
import tokenizers
import torch
import transformers

from core.forge.attention import ATTENTION

if TYPE_CHECKING:
    from core.train import HeroTrainer

BY_BATTLE = ("kernels",)  # chosen for each battle anew


def versions(trainer: "HeroTrainer") -> dict[str, str]:
    """Libraries, device and numbers that `trainer` trains with now."""
    device = trainer.args.device.type
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": numpy.__version__,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{device} {torch.backends.cpu.get_cpu_capability()}",
        "threads": str(torch.get_num_threads()),
        "weights": trainer.means.weights,
        "compute": trainer.means.compute,
        "attention": ATTENTION,
        "kernels": "compiled" if trainer.compute.compiled else "eager",
    }  # fmt: skip


def changes(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """What differs, in words; what `before` did not say is not compared."""
    common = (name for name in now if name in before and name not in BY_BATTLE)
    return [f"{name} {now[name]} instead of {before[name]}" for name in common if now[name] != before[name]]
