"""Duels: two models answer one prompt side by side, and nobody sees who is who before the choice. It knows no HTTP.

Who stands left is drawn by lot and stays here, as do the answers: what becomes a row is what was said, not what a
browser says was said. Duels are kept in memory, the newest `KEPT`.
"""

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from core.errors import UserError
from monitoring.servers.tavern.answers import Answer

KEPT = 100
SIDES = ("left", "right")
CHOICES = {"left": "The left one", "right": "The right one", "tie": "Both alike", "bad": "Both bad"}


@dataclass
class Side:
    """One of the two: the model that was asked, and its answer once it is whole."""

    asked: str
    answer: Answer | None = None

    @property
    def model(self) -> str:
        """The name it gave itself while it answered: `hero` is another checkpoint tomorrow."""
        return (self.answer and self.answer.model) or self.asked


@dataclass
class Duel:
    """One duel. `choice`: None as long as it is blind; `outcome`: what was told about it."""

    id: str
    messages: list[dict[str, Any]]
    options: dict[str, Any]
    sides: dict[str, Side]
    choice: str | None = None
    outcome: dict[str, Any] = field(default_factory=dict)

    @property
    def answered(self) -> bool:
        return all(side.answer for side in self.sides.values())

    def choose(self, choice: str) -> tuple[Side, Side] | None:
        """Take the verdict: winner and loser, or None where there is nothing to learn. Raises UserError."""
        if choice not in CHOICES:
            raise UserError(f"unknown choice {choice[:40]!r}. Known: {', '.join(CHOICES)}")
        if self.choice is not None:
            raise UserError("this duel is decided already; begin another one")
        if not self.answered:
            raise UserError("both must have answered before one can be chosen")
        self.choice = choice
        if choice not in SIDES:
            return None
        winner, loser = self.sides[choice], self.sides[SIDES[choice == "left"]]
        return winner, loser

    def revealed(self) -> dict[str, str]:
        """Who is who; only after the choice."""
        assert self.choice is not None
        return {name: side.model for name, side in self.sides.items()}


class Duels:
    """The duels that are on, oldest forgotten first."""

    def __init__(self, draw: Callable[[int], int] = secrets.randbelow):
        self._draw = draw
        self._kept: OrderedDict[str, Duel] = OrderedDict()
        self._lock = Lock()

    def begin(self, messages: list[dict[str, Any]], models: tuple[str, str], options: dict[str, Any]) -> Duel:
        if models[0] == models[1]:
            raise UserError(f"a duel needs two different models, not {models[0][:80]!r} twice")
        drawn = models if self._draw(2) else models[::-1]
        duel = Duel(
            secrets.token_urlsafe(12), messages, options, dict(zip(SIDES, (Side(name) for name in drawn), strict=True))
        )
        with self._lock:
            self._kept[duel.id] = duel
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return duel

    def get(self, duel: str) -> Duel | None:
        return self._kept.get(duel)
