"""The Whisper: distillation, the hero's next-token distributions drawn to those of a teacher of the same tokenizer.

The divergence is the generalised Jensen-Shannon one of core/forge/divergence.py.
"""

from collections.abc import Sequence

import torch

from core.battle import BattlePlan
from core.forge.divergence import compared, divergence_sum
from core.forge.evaluate import Evaluation, evaluating
from core.forge.lesson import FileLessons, Learner, Lessons
from core.forge.loss import hidden_states, lowered
from core.forge.own_words import OwnWords
from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute
from core.schools.base import School as Base


class School(Base):
    """`teacher`: a model of the same vocabulary, which is never trained; to be set before the first loss."""

    name = "whisper"
    companion = "teacher"
    teacher: torch.nn.Module

    def lessons(self, plan: BattlePlan, learner: Learner) -> Lessons:
        self.teacher = learner.companion
        if not self.settings.on_policy:
            return FileLessons(plan)
        return OwnWords(plan, learner, self.settings.on_policy, self.settings.max_new_tokens)

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum of the divergence over the label positions, in nats."""
        weights_N = None
        with torch.no_grad():
            if self.weighs:
                weights_N = self.weights(self.scores(model, pack, compute))
        beta, temperature = self.settings.beta, self.settings.temperature
        total, each_N = divergence_sum(*self._both(model, pack, compute), weights_N, beta, temperature)
        self.tell("divergence", each_N)
        return total

    def evaluate(self, model: torch.nn.Module, packs: Sequence[Pack]) -> Evaluation | None:
        """`loss`: the divergence a label; `accuracy`: share of labels at which both hold the same token likeliest."""
        device, found = next(model.parameters()).device, []
        with evaluating(model):
            for pack in (pack.to(device) for pack in packs if len(pack.labels_N)):
                each_N, same_N = compared(
                    *self._both(model, pack, EAGER), self.settings.beta, self.settings.temperature
                )
                found.append((pack.by_sequence(each_N), same_N))
        if not found:
            return None
        nats_S, same_N = (torch.cat(parts).cpu().double() for parts in zip(*found, strict=True))
        return Evaluation(nats_S.sum().item() / len(same_N), same_N.mean().item(), len(same_N), nats_S.numpy())

    def _both(self, model: torch.nn.Module, pack: Pack, compute: Compute) -> tuple[torch.Tensor, ...]:
        """Hidden states and head of the hero, then the teacher's; a head may have more rows than there are tokens."""
        with torch.no_grad():
            theirs_NE, teacher_VE = lowered(hidden_states(self.teacher, pack, compute), self.teacher.lm_head.weight)
        mine_ND, head_VD = lowered(hidden_states(model, pack, compute), model.lm_head.weight)
        tokens = min(len(head_VD), len(teacher_VE))
        return mine_ND, head_VD[:tokens], theirs_NE, teacher_VE[:tokens]
