"""Held-out loss of a model; it changes neither weights nor random streams."""

from collections.abc import Iterable

import torch

from core.forge.loss import loss_sum
from core.forge.packing import Pack


@torch.no_grad()
def held_out_loss(model: torch.nn.Module, packs: Iterable[Pack]) -> float | None:
    """Mean loss in nats over all label positions of `packs`, or None where there is none."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        total, labels = 0.0, 0
        for pack in packs:
            total += loss_sum(model, pack.to(device)).item()
            labels += len(pack.labels_N)
        return total / labels if labels else None
    finally:
        model.train(was_training)
