"""Whether a battle's kernels are compiled, and compiling them ahead: always from the same example.

What torch.compile makes of a function depends on the shapes it sees first. A trainer that was killed sees others than
one that was not, so both see one example of primes before their first step, and get the same machine code. It knows
nothing about rows or optimizers.
"""

import torch

from core.forge.loss import loss_sum
from core.forge.packing import Pack
from core.forge.qwen3 import Compute, autocast, understands
from core.machine import compiler

LENGTHS, LABELS = (509, 500), 601  # 1009 tokens; primes, lest a model's own dimension be taken for a number of tokens
PAYS_BACK = {"cpu": 4e13, "cuda": 2e16}  # operations of a battle in which the gain is a cold compilation's cost


def worth_compiling(model: torch.nn.Module, operations: float) -> bool:
    """Whether a battle of so many floating-point operations is compiled; the same battle always is, or never."""
    device = model.device.type
    return understands(model) and operations >= PAYS_BACK[device] and compiler(device) is not None


def warm_up(model: torch.nn.Module, in_bf16: bool) -> None:
    """Compile the kernels as `model` will need them; its gradients and all random streams stay untouched.

    Takes a minute at most the first time, seconds where the compiler's cache has them.
    """
    with autocast(model.device.type, in_bf16):
        loss = loss_sum(model, _example().to(model.device), Compute(compiled=True))
    torch.autograd.grad(loss, [model.model.layers[0].input_layernorm.weight])  # needs all backward passes there are


def _example() -> Pack:
    tokens_T = torch.zeros(sum(LENGTHS), dtype=torch.int64)
    positions_T = torch.cat([torch.arange(length) for length in LENGTHS])
    owner_N = torch.zeros(LABELS, dtype=torch.int64)
    return Pack(tokens_T, positions_T, LENGTHS, torch.arange(LABELS), tokens_T[:LABELS], owner_N)
