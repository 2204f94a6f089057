"""The Scribe: supervised fine-tuning, the negative log-likelihood of what the assistant said."""

import torch

from core.forge.loss import loss_sum
from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute
from core.schools.base import School as Base


class School(Base):
    name = "scribe"

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum of -log p over the trained tokens, in nats."""
        if not self.weighs:
            return loss_sum(model, pack, compute)
        scores = self.scores(model, pack, compute)
        self.tell("surprise", -torch.expm1(scores.logps_N))
        return -(self.weights(scores) * scores.logps_N).sum()
