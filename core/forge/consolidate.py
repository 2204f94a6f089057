"""A model folder's weights in another kind of numbers, and in as few files as loaders like. It knows nothing of checkpoints."""

from pathlib import Path

import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file

from core.errors import UserError
from core.forge.state import MAX_SHARD

KINDS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def recast(folder: Path, kind: str) -> None:
    """Write the weights in `folder` anew. Raises UserError where a number does not fit."""
    files = sorted(folder.glob("model*.safetensors"))
    weights = {name: tensor.to(KINDS[kind]) for file in files for name, tensor in load_file(file).items()}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise UserError(f"{name} holds numbers beyond what {kind} can say; export it as bf16 or fp32")
    for file in (*files, *folder.glob("model*.safetensors.index.json")):
        file.unlink()
    save_torch_state_dict(weights, folder, max_shard_size=MAX_SHARD, metadata={"format": "pt"})
