"""When a level of a skill counts as mastered, lost or undecided: intervals instead of lucky results. It knows no model.

A level is looked at again and again while a hero learns, so a fixed confidence would let a hero just under the bar rise in
the end by luck alone. Each further look at the same level therefore has to be surer than the one before: the k-th may be
wrong with probability 6 ERROR / (pi k)^2, and these add up to ERROR over any number of looks.
"""

from dataclasses import dataclass
from math import pi, sqrt
from statistics import NormalDist
from typing import Any

BAR = 0.9  # accuracy that a mastered level is above
ERROR = 0.025  # chance that a level below the bar is ever called mastered; one side of a 95 % interval


@dataclass(frozen=True)
class Score:
    """`right` of `asked` answers."""

    right: int
    asked: int

    @property
    def accuracy(self) -> float:
        return self.right / self.asked if self.asked else 0.0

    def interval(self, error: float = ERROR) -> tuple[float, float]:
        """Wilson's score interval (Wilson 1927, JASA 22, p. 209); each side is wrong with probability `error`."""
        if not self.asked:
            return 0.0, 1.0
        z = NormalDist().inv_cdf(1 - error)
        middle = (self.accuracy + z * z / (2 * self.asked)) / (1 + z * z / self.asked)
        spread = sqrt(self.accuracy * (1 - self.accuracy) / self.asked + z * z / (4 * self.asked**2))
        half = z * spread / (1 + z * z / self.asked)
        return max(0.0, middle - half), min(1.0, middle + half)

    def facts(self) -> dict[str, Any]:
        """For JSON: with its accuracy and the 95 % interval."""
        low, high = self.interval()
        return {"right": self.right, "asked": self.asked, "accuracy": self.accuracy, "low": low, "high": high}


def error_of_look(look: int) -> float:
    """The chance of a wrong rise that look number `look`, from 1, at the same level may take."""
    return 6 * ERROR / (pi * look) ** 2


def is_mastered(score: Score, look: int, bar: float = BAR) -> bool:
    """Whether look number `look` at a level shows that its accuracy is above the bar."""
    return score.interval(error_of_look(look))[0] > bar


def is_lost(score: Score, bar: float = BAR) -> bool:
    """Whether a level that was mastered is shown to be below the bar now."""
    return score.interval()[1] < bar
