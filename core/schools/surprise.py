"""How surprised a model is by each label, as weights of 1 on average. It changes no gradient but by them.

Entropy after "Not all tokens are what you need" (Lin et al. 2024) in its idea that labels differ in worth; 1 - p(label) is
the focal weight of Lin et al. 2017, section 3.
"""

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


def weights(scores: LabelScores, settings: Surprise) -> torch.Tensor:
    """The labels' weights (N), with a mean of 1 in each pass. The likeliest ones' may be 0 where `strength` is large."""
    surprise_N = surprise(scores, settings.measure).clamp(min=settings.floor)
    raised_N = (surprise_N / surprise_N.amax(0, keepdim=True)) ** settings.strength if len(surprise_N) else surprise_N
    return raised_N / raised_N.mean()
