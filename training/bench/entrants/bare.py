"""A bare loop around the forge's own mathematics: the yardstick for what a trainer costs on top of it.

Rows are packed, passed forward and backward, clipped and stepped on; nothing else is done: no reports, no checks, no
checkpoints, no trainer. Its heap is kept as the trainer's is.
"""

import torch
from transformers import AutoModelForCausalLM

from core.forge.attention import ATTENTION
from core.forge.loss import loss_sum
from core.forge.means import keep_heap
from core.forge.packing import packs_of
from core.forge.qwen3 import autocast
from core.memory_needs import PACK_TOKENS
from training.bench.entrants.stopwatch import Stopwatch
from training.bench.entrants.task import Task
from training.bench.material import OPTIMIZER


def run(task: Task, stopwatch: Stopwatch) -> torch.nn.Module:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    keep_heap()
    model = AutoModelForCausalLM.from_pretrained(
        task.material.weights, dtype=torch.float32, attn_implementation=ATTENTION
    ).to(device)
    model.train()
    weights = list(model.parameters())
    optimizer = torch.optim.AdamW(
        weights,
        task.material.size.learning_rate,
        (OPTIMIZER["adam_beta1"], OPTIMIZER["adam_beta2"]),
        OPTIMIZER["adam_epsilon"],
        OPTIMIZER["weight_decay"],
        fused=True,
    )
    stopwatch.begin()
    for step in range(task.steps):
        packs = packs_of(task.sequences(step), PACK_TOKENS[device.type])
        labels = sum(len(pack.labels_N) for pack in packs)
        for pack in packs:
            with autocast(device.type, task.precision == "bf16"):
                loss = loss_sum(model, pack.to(device)) / labels
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, OPTIMIZER["max_grad_norm"], foreach=True)
        optimizer.step()
        optimizer.zero_grad()
        stopwatch.step(sum(len(pack.tokens_T) for pack in packs))
    return model
