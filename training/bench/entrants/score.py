"""Held-out loss of what a contestant trained, by stock transformers in float32, one row at a time: the same for all."""

import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from training.bench.entrants.task import IGNORED, Task


@torch.no_grad()
def held_out_loss(task: Task, model: torch.nn.Module) -> float:
    """Mean nats per label. The weights move into a fresh stock model, since some trainers alter the one they train."""
    device = next(model.parameters()).device
    stock = AutoModelForCausalLM.from_pretrained(task.material.weights, dtype=torch.float32).to(device).eval()
    stock.load_state_dict(model.state_dict())
    total, count = 0.0, 0
    for row in task.held_out():
        tokens_1T = torch.tensor([row["input_ids"]], device=device)
        labels_N = torch.tensor(row["labels"][1:], device=device)
        logits_NV = stock(input_ids=tokens_1T, use_cache=False).logits[0, :-1]
        total += F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED, reduction="sum").item()
        count += int((labels_N != IGNORED).sum())
    return total / count
