"""The Whisper: distillation, the hero's next-token distributions drawn to those of a teacher of the same tokenizer.

The divergence is the generalised Jensen-Shannon one of core/forge/divergence.py.
"""

import torch

from core.forge.divergence import divergence_sum
from core.forge.loss import hidden_states, lowered
from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute
from core.schools.base import School as Base


class School(Base):
    """`teacher`: a model of the same vocabulary, which is never trained; to be set before the first loss."""

    name = "whisper"
    teacher: torch.nn.Module

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum of the divergence over the label positions, in nats."""
        with torch.no_grad():
            theirs_NE, teacher_VE = lowered(hidden_states(self.teacher, pack, compute), self.teacher.lm_head.weight)
            weights_N = None
            if self.weighs:
                scores = self.scores(model, pack, compute)
                weights_N = self.weights(scores)
        mine_ND, head_VD = lowered(hidden_states(model, pack, compute), model.lm_head.weight)
        beta, temperature = self.settings.beta, self.settings.temperature
        total, each_N = divergence_sum(mine_ND, head_VD, theirs_NE, teacher_VE, weights_N, beta, temperature)
        self.tell("divergence", each_N)
        return total
