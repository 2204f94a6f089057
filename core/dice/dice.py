"""Dice as they fall: what is thrown, what counts of it, what it comes to. It knows neither models nor characters.

As at any table of the fifth edition of the game: of two dice the higher one counts with advantage and the lower one with
disadvantage; a natural 1 and a natural maximum are judged before the modifier, all else by the total.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

EDGES = {"none": 0, "advantage": 1, "disadvantage": -1}


class Outcome(StrEnum):
    CRITICAL_FAILURE = "critical failure"
    FAILURE = "failure"
    SUCCESS = "success"
    CRITICAL_SUCCESS = "critical success"

    @property
    def succeeds(self) -> bool:
        return self in (Outcome.SUCCESS, Outcome.CRITICAL_SUCCESS)


class Chance(Protocol):
    """Where numbers come from."""

    def die(self, sides: int) -> int:
        """1 to `sides`, each as likely."""

    def share(self) -> float:
        """At least 0, less than 1."""


@dataclass(frozen=True)
class Roll:
    """`natural`: the die that counts, of those `thrown`; `edge`: above 0 with advantage, below with disadvantage."""

    sides: int
    natural: int
    thrown: Sequence[int]
    modifier: int = 0
    edge: int = 0

    @property
    def total(self) -> int:
        return self.natural + self.modifier


def throw(chance: Chance, sides: int, edge: int = 0, modifier: int = 0) -> Roll:
    """`edge`: above 0 advantage, below disadvantage."""
    thrown = tuple(chance.die(sides) for _ in range(2 if edge else 1))
    return Roll(sides, min(thrown) if edge < 0 else max(thrown), thrown, modifier, edge)


def judge(roll: Roll, dc: int) -> Outcome:
    """Criticals by the natural die; otherwise the total must reach the difficulty class."""
    if roll.natural == 1:
        return Outcome.CRITICAL_FAILURE
    if roll.natural == roll.sides:
        return Outcome.CRITICAL_SUCCESS
    return Outcome.SUCCESS if roll.total >= dc else Outcome.FAILURE


def chances(sides: int, edge: int = 0) -> dict[int, float]:
    """How likely each natural die is: 1 / n; with advantage (2k - 1) / n², with disadvantage (2(n - k) + 1) / n²."""
    if edge == 0:
        return dict.fromkeys(range(1, sides + 1), 1 / sides)
    rising = [(2 * natural - 1) / sides**2 for natural in range(1, sides + 1)]
    return dict(enumerate(rising if edge > 0 else rising[::-1], 1))
