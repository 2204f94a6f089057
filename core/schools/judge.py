"""The Judge: preferences, by the ratio of a model's probabilities to those of the checkpoint that its battle began from.

Pairs after Rafailov et al. 2023 ("Direct Preference Optimization", equation 7), Azar et al. 2024 (IPO, equation 17, with
log-ratios per token as its authors advise) and Meng et al. 2024 for the length-normalised one. A single answer with a label
after D'Oosterlinck et al. 2024 ("Anchored Preference Optimization", the unpaired form of equation 7), which needs no
estimate of the divergence.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute
from core.schools.base import School as Base


class School(Base):
    """Beside the labels of a pack: "reference" (N). Rows of the form `preference` come as pairs, the chosen answer first;
    others with "side" (S), 1 for a good answer and -1 for a bad one."""

    name = "judge"
    needs_reference = True

    @property
    def together(self) -> int:
        return 2 if self.form == "preference" else 1

    def units(self, packs: Sequence[Pack]) -> float:
        """Rows."""
        return sum(len(pack.lengths) for pack in packs) / self.together

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum over the rows of the pack."""
        scores = self.scores(model, pack, compute)
        ratios_N = self.weights(scores) * (scores.logps_N - pack.beside["reference"])
        ratios_S = pack.by_sequence(ratios_N)
        return self._of_pairs(pack, ratios_S) if self.together == 2 else self._of_labelled(pack, ratios_S)

    def _of_pairs(self, pack: Pack, ratios_S: torch.Tensor) -> torch.Tensor:
        beta, kind = self.settings.beta, self.settings.loss_type
        chosen_P, rejected_P = beta * ratios_S[0::2], beta * ratios_S[1::2]
        self.tell("reward_accuracy", (chosen_P > rejected_P).float())
        self.tell("reward_margin", chosen_P - rejected_P)
        self.tell("chosen_reward", chosen_P)
        self.tell("rejected_reward", rejected_P)
        if kind == "sigmoid":
            return -F.logsigmoid(chosen_P - rejected_P).sum()
        labels_S = pack.by_sequence(torch.ones_like(pack.beside["reference"]))
        means_S = ratios_S / labels_S.clamp(min=1)
        apart_P = means_S[0::2] - means_S[1::2]
        if kind == "ipo":
            return (apart_P - 1 / (2 * beta)).square().sum()
        return -F.logsigmoid(beta * apart_P).sum()

    def _of_labelled(self, pack: Pack, ratios_S: torch.Tensor) -> torch.Tensor:
        rewards_S, side_S = self.settings.beta * ratios_S, pack.beside["side"]
        self.tell("reward_accuracy", (rewards_S * side_S > 0).float())
        self.tell("chosen_reward", rewards_S[side_S > 0])
        self.tell("rejected_reward", rewards_S[side_S < 0])
        return torch.sigmoid(-side_S * rewards_S).sum()
