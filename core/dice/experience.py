"""Experience: what a roll is worth, which level that makes, and what a level adds to a roll. It knows no model.

Level n is reached at 50 n (n - 1) points: 0, 100, 300, 600, … up to level 20. Every second level adds 1 to each roll,
from level 3 on: (level - 1) // 2.
"""

from dataclasses import dataclass
from typing import Any

from core.dice.dice import Outcome

WORTH = {
    Outcome.CRITICAL_FAILURE: 0,
    Outcome.FAILURE: 2,  # one learns from it
    Outcome.SUCCESS: 10,
    Outcome.CRITICAL_SUCCESS: 40,
}
STEP = 100  # points from level 1 to 2; from n to n + 1 n times as many
HIGHEST = 20


@dataclass
class ExperienceSystem:
    """Points gathered so far, and what follows from them."""

    points: int = 0

    def __post_init__(self) -> None:
        if self.points < 0:
            raise ValueError(f"points = {self.points}: experience begins at 0")

    @staticmethod
    def needed(level: int) -> int:
        """Points at which `level` is reached."""
        return STEP * level * (level - 1) // 2

    @property
    def level(self) -> int:
        return max(level for level in range(1, HIGHEST + 1) if self.points >= self.needed(level))

    @property
    def bonus(self) -> int:
        """What is added to each roll."""
        return (self.level - 1) // 2

    @property
    def to_next(self) -> int | None:
        """Points that the next level still takes; None at the highest."""
        return self.needed(self.level + 1) - self.points if self.level < HIGHEST else None

    def gain(self, points: int) -> int:
        """Add `points`; how many levels that raises. Raises ValueError for fewer than none."""
        if points < 0:
            raise ValueError(f"experience is not lost: {points} points")
        before = self.level
        self.points += points
        return self.level - before

    def reward(self, outcome: Outcome) -> int:
        """`gain` what a roll with this outcome is worth."""
        return self.gain(WORTH[outcome])

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points = state["points"]
