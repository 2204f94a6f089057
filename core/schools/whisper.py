"""The Whisper: distillation, the hero's next-token distributions drawn to those of a teacher of the same tokenizer.

The divergence is the generalised Jensen-Shannon one of core/forge/divergence.py. A teacher on a server gives answers and no
distributions; they stand in the lessons already (core/teacher_answers.py) and are imitated as the Scribe does.
"""

from collections.abc import Sequence
from typing import Any

import torch

from core.battle import BattlePlan
from core.forge.divergence import compared, divergence_sum
from core.forge.evaluate import Evaluation, evaluating
from core.forge.lesson import FileLessons, Learner, Lessons
from core.forge.loss import hidden_states, lowered
from core.forge.own_words import OwnWords
from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute
from core.schools.scribe import School as Scribe


class School(Scribe):
    """`teacher`: a model of the same vocabulary, which is never trained; to be set before the first loss. None is wanted with a
    `url` in the settings."""

    name = "whisper"
    teacher: torch.nn.Module

    def __init__(self, settings: Any = None, surprise: Any = None, form: str = "messages"):
        super().__init__(settings, surprise, form)
        self.companion = None if self.settings.url else "teacher"
        self._softness = self.settings.temperature or 1.0

    def lessons(self, plan: BattlePlan, learner: Learner) -> Lessons:
        self.teacher = learner.companion
        if not self.settings.on_policy:
            return FileLessons(plan)
        return OwnWords(plan, learner, self.settings.on_policy, self.settings.max_new_tokens)

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum of the divergence over the label positions, in nats; of -log p where there are only the teacher's words."""
        if self.companion is None:
            return super().loss_sum(model, pack, compute)
        weights_N = None
        with torch.no_grad():
            if self.weighs:
                weights_N = self.weights(self.scores(model, pack, compute))
        beta, temperature = self.settings.beta, self._softness
        total, each_N = divergence_sum(*self._both(model, pack, compute), weights_N, beta, temperature)
        self.tell("divergence", each_N)
        return total

    def evaluate(self, model: torch.nn.Module, packs: Sequence[Pack]) -> Evaluation | None:
        """`loss`: the divergence a label; `accuracy`: share of labels at which both hold the same token likeliest."""
        if self.companion is None:
            return super().evaluate(model, packs)
        device, found = next(model.parameters()).device, []
        with evaluating(model):
            for pack in (pack.to(device) for pack in packs if len(pack.labels_N)):
                each_N, same_N = compared(*self._both(model, pack, EAGER), self.settings.beta, self._softness)
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
