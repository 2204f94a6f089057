"""The Scribe: supervised fine-tuning, the loss of what the assistant said."""

import torch

from core.forge.loss import loss_sum
from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute


class School:
    """Negative log-likelihood of the trained tokens."""

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum over the pack's label positions, in nats."""
        return loss_sum(model, pack, compute)
