"""The Champion: reinforcement learning with rewards that can be checked, by comparing answers to the same prompt.

GRPO after Shao et al. 2024 ("DeepSeekMath", equation 3) with the clipped ratio of Schulman et al. 2017 and, by `beta`, the
estimate of KL(hero ‖ parent) of Schulman 2020, times the ratio, which makes its gradient unbiased (DeepSeek-V3.2, 2025). What
losses are divided by differs: DAPO (Yu et al. 2025, equation 8) counts labels, Dr. GRPO (Liu et al. 2025, section 3.2) a
constant.
"""

from collections.abc import Sequence

import torch

from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute
from core.schools.base import School as Base


class School(Base):
    """Beside a pack: "advantage" (S); "old" (N), the log-probabilities that answers were drawn or written with, without which
    the hero's own of this moment count; "reference" (N), the parent's, where `beta` is not 0."""

    name = "champion"

    @property
    def needs_reference(self) -> bool:
        return self.settings.beta > 0 or self.form == "reward"

    def units(self, packs: Sequence[Pack]) -> float:
        """Labels of the step, answers, or answers times `max_new_tokens`."""
        answers = sum(len(pack.lengths) for pack in packs)
        sizes = {"grpo": answers, "dr_grpo": answers * self.settings.max_new_tokens, "dapo": super().units(packs)}
        return sizes[self.settings.loss_type]

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum over the labels of the pack, or over answers of the means of theirs."""
        scores, settings = self.scores(model, pack, compute, entropy=True), self.settings
        logps_N, advantage_N = scores.logps_N, pack.beside["advantage"][pack.owner_N]
        ratio_N = torch.exp(logps_N - pack.beside.get("old", logps_N.detach()))
        high = settings.epsilon if settings.epsilon_high is None else settings.epsilon_high
        clipped_N = ratio_N.clamp(1 - settings.epsilon, 1 + high)
        losses_N = -torch.minimum(ratio_N * advantage_N, clipped_N * advantage_N)
        self.tell("entropy", scores.entropy_N)
        self.tell("clipped", ((ratio_N != clipped_N) & (losses_N != -ratio_N * advantage_N)).float())
        if settings.beta:
            apart_N = pack.beside["reference"] - logps_N
            kl_N = apart_N.exp() - apart_N - 1
            self.tell("kl", kl_N)
            losses_N = losses_N + settings.beta * ratio_N * kl_N
        losses_N = self.weights(scores) * losses_N
        if settings.loss_type != "grpo":
            return losses_N.sum()
        labels_S = pack.by_sequence(torch.ones_like(losses_N))
        return (pack.by_sequence(losses_N) / labels_S.clamp(min=1)).sum()
