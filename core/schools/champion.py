"""The Champion: reinforcement learning with rewards that can be checked, by comparing answers to the same prompt.

GRPO after Shao et al. 2024 ("DeepSeekMath", equation 3) with the clipped ratio of Schulman et al. 2017 and, by `beta`, the
estimate of KL(hero ‖ parent) of Schulman 2020, times the ratio, which makes its gradient unbiased (DeepSeek-V3.2, 2025). What
losses are divided by differs: DAPO (Yu et al. 2025, equation 8) counts labels, Dr. GRPO (Liu et al. 2025, section 3.2) a
constant.
"""

from collections.abc import Sequence
from typing import Any

import torch

from core.battle import BattlePlan
from core.forge.evaluate import Evaluation, evaluating
from core.forge.lesson import Learner, Lessons
from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute
from core.forge.rewarded import RewardedLessons
from core.forge.rollouts import Rollouts
from core.schools.base import School as Base


class School(Base):
    """Beside a pack: "advantage" (S); "old" (N), the log-probabilities that answers were drawn or written with, without which
    the hero's own of this moment count; "reference" (N), the parent's, where `beta` is not 0.

    Problems are answered by the hero itself, step by step; rewarded answers are taken to be the parent's.
    """

    name = "champion"
    leaps = False  # a loss that hovers around 0 leaps with every step

    def __init__(self, settings: Any = None, surprise: Any = None, form: str = "messages"):
        super().__init__(settings, surprise, form)
        self.needs_reference = form == "reward"
        if form == "problem":
            self.temperature = self.settings.temperature
            self.companion = "parent" if self.settings.beta else None

    def lessons(self, plan: BattlePlan, learner: Learner) -> Lessons:
        if self.form != "problem":
            return RewardedLessons(plan, self.settings.scale_rewards)
        self._rollouts = Rollouts(plan, self.settings, learner)
        return self._rollouts

    def units(self, packs: Sequence[Pack]) -> float:
        """Labels of the step, answers, or answers times `max_new_tokens`."""
        answers = sum(len(pack.lengths) for pack in packs)
        sizes = {"grpo": answers, "dr_grpo": answers * self.settings.max_new_tokens, "dapo": super().units(packs)}
        return sizes[self.settings.loss_type]

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum over the labels of the pack, or over answers of the means of theirs."""
        return self._answers(model, pack, compute)[0].sum()

    def evaluate(self, model: torch.nn.Module, packs: Sequence[Pack]) -> Evaluation | None:
        """Problems are answered. Of rewarded answers, `accuracy` is the share that became likelier than the parent finds
        them where they are better than their like, and less likely where they are worse."""
        if self.form == "problem":
            return self._rollouts.evaluate()
        device = next(model.parameters()).device
        with evaluating(model), self.unweighed():
            found = [self._answers(model, pack.to(device)) for pack in packs]
        self._told = {}
        if not found:
            return None
        losses_S, right_S = (torch.cat(parts).cpu().double() for parts in zip(*found, strict=True))
        units = self.units(packs)
        return Evaluation(losses_S.sum().item() / units, right_S.mean().item(), int(units), losses_S.numpy())

    def _answers(
        self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What each answer of the pack adds to the loss, and whether its probability went the right way."""
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
        went_S = pack.by_sequence((logps_N - pack.beside.get("old", logps_N)).detach())
        losses_S, right_S = pack.by_sequence(losses_N), went_S * pack.beside["advantage"] > 0
        if settings.loss_type == "grpo":
            losses_S = losses_S / pack.by_sequence(torch.ones_like(losses_N)).clamp(min=1)
        return losses_S, right_S
