"""Duels: two models answer one prompt side by side, and nobody sees who is who before the choice. It knows no HTTP.

Who stands left is drawn by lot and stays here, as do the answers: what becomes a row is what was said, not what a
browser says was said.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.errors import UserError
from monitoring.servers.tavern.answers import Answer
from monitoring.servers.tavern.kept import Kept

KEPT = 100
SIDES = ("left", "right")
CHOICES = {"left": "Left is better", "right": "Right is better", "tie": "Both alike", "bad": "Both bad"}


@dataclass
class Side:
    """One of the two: the model that was asked, and its answer once it is whole."""

    asked: str
    answer: Answer | None = None

    @property
    def model(self) -> str:
        """Whose weights answered: `hero` is another checkpoint tomorrow."""
        return (self.answer and self.answer.model) or self.asked


@dataclass
class Duel:
    """One duel. `choice`: None as long as it is blind; `outcome`: what came of it."""

    messages: list[dict[str, Any]]
    options: dict[str, Any]
    sides: dict[str, Side]
    id: str = ""
    choice: str | None = None
    outcome: dict[str, Any] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        return all(side.answer for side in self.sides.values())

    def choose(self, choice: str) -> tuple[Side, Side] | None:
        """Take the verdict: winner and loser, or None where nobody is better. Raises UserError."""
        if choice not in CHOICES:
            raise UserError(f"unknown choice {choice[:40]!r}. Known: {', '.join(CHOICES)}")
        if self.choice is not None:
            raise UserError("this duel is decided already; begin another one")
        if not self.answered:
            raise UserError("both must have answered before one can be chosen")
        self.choice = choice
        if choice not in SIDES:
            return None
        return self.sides[choice], self.sides[SIDES[choice == "left"]]

    def revealed(self) -> dict[str, str]:
        """Who is who; only after the choice."""
        assert self.choice is not None
        return {name: side.model for name, side in self.sides.items()}


class Duels:
    """The duels that are on, and the newest that were."""

    def __init__(self, draw: Callable[[int], int] = secrets.randbelow):
        self._draw = draw
        self._kept: Kept[Duel] = Kept(KEPT)

    def begin(self, messages: list[dict[str, Any]], models: tuple[str, str], options: dict[str, Any]) -> Duel:
        if models[0] == models[1]:
            raise UserError(f"a duel needs two different models, not {models[0][:80]!r} twice")
        left, right = models if self._draw(2) else models[::-1]
        duel = Duel(messages, options, {"left": Side(left), "right": Side(right)})
        duel.id = self._kept.put(duel)
        return duel

    def get(self, duel: str | None) -> Duel | None:
        return self._kept.get(duel)
