"""A hero's first checkpoint: a micro Qwen3 from random weights, or a base model that the user brought."""

import json
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError
from transformers import Qwen3Config, Qwen3ForCausalLM

from core.campaign import FIRST
from core.checkpoints import Manifest, commit, set_champion, set_current, set_tip
from core.config import Config
from core.errors import UserError
from core.forge.state import save_model
from core.hero import base_model
from core.model_folder import config_values
from core.paths import BUNDLED_TOKENIZER, RealmPaths

MICRO = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "rope_theta": 10_000.0,
}
ZEROS_SHARE = 3  # one matrix in three may be zero: a model made deeper begins with some


def micro_hero(seed: int, tokenizer: Path = BUNDLED_TOKENIZER) -> Qwen3ForCausalLM:
    """A Qwen3 of about 2 M parameters with random weights; the same seed gives the same weights."""
    specials = {
        entry["content"]: entry["id"]
        for entry in json.loads((tokenizer / "tokenizer.json").read_bytes())["added_tokens"]
    }
    vocabulary = len(json.loads((tokenizer / "tokenizer.json").read_bytes())["model"]["vocab"])
    config = Qwen3Config(
        vocab_size=max(vocabulary, max(specials.values()) + 1),
        tie_word_embeddings=True,
        eos_token_id=specials["<|im_end|>"],
        pad_token_id=specials["<|endoftext|>"],
        bos_token_id=None,
        **MICRO,
    )
    state = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)
    finally:
        torch.set_rng_state(state)


def imported_hero(base: Path) -> Qwen3ForCausalLM:
    """The model in a folder that `core/model_folder.py` found no fault with. Raises UserError naming folder and tensor."""
    try:
        model = Qwen3ForCausalLM.from_pretrained(
            base, config=Qwen3Config(**config_values(base)), dtype=torch.float32, trust_remote_code=False,
            local_files_only=True, use_safetensors=True,
        )  # fmt: skip
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as problem:
        why = str(problem).strip().partition("\n")[0]
        raise UserError(
            f"models/{base.name}: transformers cannot load it: {why}; copy the model again, whole"
        ) from problem
    _refuse_ruins(model, base.name)
    return model


def _refuse_ruins(model: torch.nn.Module, name: str) -> None:
    """Weights that are no numbers, or are missing and read as zeros, load like any others; no training mends them."""
    matrices = {key: weight for key, weight in model.named_parameters() if weight.ndim > 1}
    for key, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise UserError(f"models/{name}: {key} holds NaN or infinity; copy the model again, or take another")
    empty = [key for key, weight in matrices.items() if not weight.any()]
    if "model.embed_tokens.weight" in empty or len(empty) * ZEROS_SHARE > len(matrices):
        raise UserError(
            f"models/{name}: {len(empty)} of {len(matrices)} matrices hold nothing but zeros, {empty[0]} first, as after "
            "a copy that failed; copy the model again"
        )


def hatch(paths: RealmPaths, config: Config) -> Manifest:
    """Checkpoint 0 of a new hero, promoted: every pointer leads to it."""
    base = base_model(paths, config)
    if base is None:
        model, tokenizer = micro_hero(config.seed), BUNDLED_TOKENIZER
    else:
        model, tokenizer = imported_hero(base), base
    manifest = Manifest(
        hero=config.hero.name,
        campaign=FIRST,
        step=0,
        settings={"base_model": base.name if base else "micro"},
        versions={"torch": torch.__version__, "transformers": transformers.__version__},
    )
    manifest = commit(paths, manifest, lambda folder: save_model(model, folder, tokenizer))
    for point in (set_tip, set_current, set_champion):
        point(paths, manifest.id)
    return manifest
