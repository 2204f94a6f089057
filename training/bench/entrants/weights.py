"""Random weights that all contestants start from, and the hero that hatches from them."""

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from core.config import load_config
from core.forge.hatch import hatch
from core.forge.state import save_model
from core.paths import BUNDLED_TOKENIZER
from core.rendering import Renderer
from training.bench.entrants.task import Task
from training.bench.material import MAX_LENGTH, SEED


def run(task: Task) -> dict:
    material = task.material
    torch.manual_seed(task.options.get("seed", SEED))
    words = Renderer.load(BUNDLED_TOKENIZER, MAX_LENGTH)
    names = {"bos_token_id": None, "eos_token_id": words.eos_id, "pad_token_id": words.pad_id}
    model = Qwen3ForCausalLM(Qwen3Config(**material.size.shape, **names))
    save_model(model, material.weights, BUNDLED_TOKENIZER)
    hatch(material.paths, load_config(material.paths.config))
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}
