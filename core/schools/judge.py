"""The Judge: preferences, by the ratio of a model's probabilities to those of the checkpoint that its battle began from.

Pairs after Rafailov et al. 2023 ("Direct Preference Optimization", equation 7), Azar et al. 2024 (IPO, equation 17, with
log-ratios per token as its authors advise) and Meng et al. 2024 for the length-normalised one. A single answer with a label
after D'Oosterlinck et al. 2024 ("Anchored Preference Optimization", the unpaired form of equation 7), which needs no
estimate of the divergence.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from core.forge.evaluate import Evaluation, evaluating
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

    def begin(self, step: int, model: torch.nn.Module | None = None, packs: Sequence[Pack] = ()) -> None:
        """Its loss is not linear in the labels' weights, so where there are several passes they are looked at beforehand."""
        super().begin(step)
        if self.weighs and len(packs) > 1:
            device = next(model.parameters()).device
            with torch.no_grad():
                self._weighing.survey(self.scores(model, pack.to(device), EAGER) for pack in packs)

    def factor(self) -> None:
        return None

    def units(self, packs: Sequence[Pack]) -> float:
        """Rows."""
        return sum(len(pack.lengths) for pack in packs) / self.together

    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """Sum over the rows of the pack."""
        losses_R, _ = self._rows(model, pack, compute)
        return losses_R.sum()

    def evaluate(self, model: torch.nn.Module, packs: Sequence[Pack]) -> Evaluation | None:
        """`loss`: mean of the rows; `accuracy`: share of rows judged right."""
        device = next(model.parameters()).device
        with evaluating(model), self.unweighed():
            found = [self._rows(model, pack.to(device)) for pack in packs]
        self._told = {}
        if not found:
            return None
        losses_R, right_R = (torch.cat(parts).cpu().float() for parts in zip(*found, strict=True))
        return Evaluation(losses_R.mean().item(), right_R.mean().item(), len(losses_R), losses_R.numpy().astype("f8"))

    def _rows(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of each row of the pack, and whether it is judged right."""
        scores = self.scores(model, pack, compute)
        ratios_N = self.weights(scores) * (scores.logps_N - pack.beside["reference"])
        ratios_S = pack.by_sequence(ratios_N)
        losses_R, right_R = self._pairs(pack, ratios_S) if self.together == 2 else self._labelled(pack, ratios_S)
        self.tell("reward_accuracy", right_R)
        return losses_R, right_R

    def _pairs(self, pack: Pack, ratios_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        beta, kind = self.settings.beta, self.settings.loss_type
        chosen_R, rejected_R = beta * ratios_S[0::2], beta * ratios_S[1::2]
        self.tell("reward_margin", chosen_R - rejected_R)
        self.tell("chosen_reward", chosen_R)
        self.tell("rejected_reward", rejected_R)
        right_R = chosen_R > rejected_R
        if kind == "sigmoid":
            return -F.logsigmoid(chosen_R - rejected_R), right_R
        labels_S = pack.by_sequence(torch.ones_like(pack.beside["reference"]))
        means_S = ratios_S / labels_S.clamp(min=1)
        apart_R = means_S[0::2] - means_S[1::2]
        if kind == "ipo":
            return (apart_R - 1 / (2 * beta)).square(), right_R
        return -F.logsigmoid(beta * apart_R), right_R

    def _labelled(self, pack: Pack, ratios_S: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        rewards_S, side_S = self.settings.beta * ratios_S, pack.beside["side"]
        self.tell("chosen_reward", rewards_S[side_S > 0])
        self.tell("rejected_reward", rewards_S[side_S < 0])
        return torch.sigmoid(-side_S * rewards_S), rewards_S * side_S > 0
