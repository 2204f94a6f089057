"""The hero of a checkpoint, brought into memory: model, optimizer, random streams, what watched its steps."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from core.errors import CheckpointError, NotFinite
from core.forge.attention import ATTENTION
from core.forge.means import dtype
from core.forge.optimizers import OptimizerKind
from core.forge.state import has_state, load_state, take_state
from core.forge.tensor_file import not_finite
from core.memory_needs import Means
from core.model_folder import config_values
from core.pack_limits import PackLimits
from core.train import HeroTrainer


def load_model(folder: Path, kind: torch.dtype | str = "auto") -> torch.nn.Module:
    """The model of a checkpoint alone, in numbers of this `kind`; as they are in its files, if none is named."""
    config_values(folder)  # refuses what would have code run
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=kind,
        attn_implementation=ATTENTION,
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
    )


def load_hero(
    folder: Path,
    scratch: Path,
    step: int,
    means: Means,
    kind: OptimizerKind,
    limits: PackLimits | None = None,
    seed: int = 0,
) -> HeroTrainer:
    """The hero of a checkpoint, its optimizer and random streams as they were; at step 0 there are none yet.

    Raises CheckpointError, NotFinite where a number in it is not finite.
    """
    model = load_model(folder, dtype(means))
    trainer = HeroTrainer(model, scratch, step, means, kind, limits, seed)
    if has_state(folder):
        load_state(folder, trainer.optimizer, trainer.guard, trainer.rolled)
    elif step > 0:
        raise CheckpointError(f"{folder.name} has no optimizer state")
    if name := not_finite({**model.state_dict(), **take_state(trainer.optimizer)[0]}):
        raise NotFinite(f"{folder.name}: {name} holds a number that is not finite")
    return trainer
