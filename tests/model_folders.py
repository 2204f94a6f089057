"""Makes small Qwen3 folders as a user might bring them, and spoils them; numbers come from numpy, no torch."""

import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from core.model_folder import _expected
from core.paths import BUNDLED_TOKENIZER

TINY = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 4096,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "transformers_version": "4.51.0",
}


def weights() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    shapes = _expected(TINY)
    return {f"model.{name}": random.normal(0, 0.02, shape).astype(np.float32) for name, shape in shapes}


def write_model(folder: Path, tensors: dict[str, np.ndarray] | None = None, **changes) -> Path:
    """A model that can be a hero, but for the `changes` to its config.json."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(TINY | changes))
    save_file(weights() if tensors is None else tensors, folder / "model.safetensors", metadata={"format": "pt"})
    for file in BUNDLED_TOKENIZER.iterdir():
        shutil.copyfile(file, folder / file.name)
    return folder
