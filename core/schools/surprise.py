"""How surprised a model is by each label, as weights of 1 on average. It changes no gradient but by them.

Entropy after "Not all tokens are what you need" (Lin et al. 2024) in its idea that labels differ in worth; 1 - p(label) is
the focal weight of Lin et al. 2017, section 3.
"""

from collections.abc import Iterable

import torch

from core.forge.label_scores import LabelScores
from core.school_config import Surprise


def surprise(scores: LabelScores, measure: str) -> torch.Tensor:
    """Of each label (N): `entropy` in nats; `probability` 1 - p(label), 0 to 1; `margin` 1 - p(label) + p(likeliest other
    token), 0 to 2."""
    logps_N = scores.logps_N.detach()
    if measure == "entropy":
        return scores.entropy_N
    if measure == "margin":
        return 1 - logps_N.exp() + scores.runner_up_N.exp()
    return -torch.expm1(logps_N)


class Weighing:
    """The weights of the labels of one step, pass by pass.

    Their mean over the step is known only after its last pass. Until then they are measured by the first one's, in which their
    mean is 1; what all passes added up, being linear in them, is right once it is multiplied by `factor`.
    """

    def __init__(self, settings: Surprise):
        self._settings = settings
        self._most: torch.Tensor | None = None  # surprise in the first pass, so that no power overflows
        self._mean: torch.Tensor | None = None
        self._sum, self._count = 0.0, 0
        self.passes = 0

    def weights(self, scores: LabelScores) -> torch.Tensor:
        """Those of one more pass (N). The likeliest labels' may be 0 where `strength` is large."""
        surprise_N = surprise(scores, self._settings.measure).clamp(min=self._settings.floor)
        if not len(surprise_N):
            return surprise_N
        if self._most is None:
            self._most = surprise_N.amax(0, keepdim=True)
        raised_N = (surprise_N / self._most) ** self._settings.strength
        self._sum, self._count, self.passes = self._sum + raised_N.sum(), self._count + len(raised_N), self.passes + 1
        if self._mean is None:
            self._mean = raised_N.mean()
        return raised_N / self._mean

    def survey(self, scores: Iterable[LabelScores]) -> None:
        """All passes of the step before the first, for a loss that is not linear in the weights: they are right at once."""
        for each in scores:
            self.weights(each)
        if self._count:
            self._mean = self._sum / self._count
        self.passes = 0

    @property
    def factor(self) -> torch.Tensor:
        """What a sum over the step's labels lacks (a scalar)."""
        return self._mean * self._count / self._sum


def weights(scores: LabelScores, settings: Surprise) -> torch.Tensor:
    """The labels' weights (N) in a step of one pass, with a mean of 1."""
    return Weighing(settings).weights(scores)
