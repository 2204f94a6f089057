"""What a character is: a level, and abilities with charges that rests refresh. The six classes are in characters.py.

A short rest comes every 25 turns, a long one every 100. It knows neither models nor optimizers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from core.dice.dice import Chance
from core.dice.turn import Turn

SHORT_REST, LONG_REST = 25, 100  # turns
HIGHEST = 20
Again = Callable[[int], None]  # throws the die once more, with a bonus
SECOND_ABILITY = 3  # level from which a class has its second ability


def tier_of(level: int) -> int:
    """1 at levels 1 to 4, 2 from level 5 on, 3 from 9, 4 from 13, 5 from 17: what abilities grow by."""
    return 1 + (level - 1) // 4


@dataclass(frozen=True)
class Ability:
    """`text`: what it does, to the number; `charges`: by tier, None for one that is always there; `rest`: what refreshes it."""

    name: str
    text: str
    rest: Literal["short", "long"] | None = None
    charges: Callable[[int], int] | None = None
    from_level: int = 1


@dataclass(frozen=True)
class Stance:
    """How the next die is thrown: `edge` above 0 with advantage, below with disadvantage; `bonus` to the roll; `dc` to what it
    must reach."""

    edge: int = 0
    bonus: int = 0
    dc: int = 0


class Character:
    """A class at some `level`. Its parts of a turn are `stance`, `answer` and `shape`, in this order.

    `own`: what it remembers from turn to turn, numbers by name.
    """

    name: ClassVar[str]
    abilities: ClassVar[tuple[Ability, ...]]
    needs_loss: ClassVar[bool] = False

    def __init__(self, level: int = 1):
        if not 1 <= level <= HIGHEST:
            raise ValueError(f"level = {level}: a {self.name} has level 1 to {HIGHEST}")
        self.level = level
        self.own: dict[str, float] = {}
        self.charges: dict[str, int] = {}
        self.rest("long")

    @property
    def tier(self) -> int:
        return tier_of(self.level)

    def rise(self) -> None:
        """One level up; what that adds to charges is there at once."""
        before = self._most()
        self.level = min(self.level + 1, HIGHEST)
        for name, most in self._most().items():
            self.charges[name] = self.charges.get(name, 0) + most - before.get(name, 0)

    def rest(self, kind: Literal["short", "long"]) -> None:
        """Charges are whole again; after a short rest only those that it refreshes."""
        refreshed = {ability.name for ability in self.abilities if kind == "long" or ability.rest == "short"}
        self.charges |= {name: most for name, most in self._most().items() if name in refreshed}

    def _most(self) -> dict[str, int]:
        return {
            ability.name: ability.charges(self.tier)
            for ability in self.abilities
            if ability.charges and self.knows(ability)
        }

    def knows(self, ability: Ability) -> bool:
        return self.level >= ability.from_level

    def spend(self, ability: Ability) -> bool:
        """Use a charge of `ability`, if there is one."""
        if not self.charges.get(ability.name):
            return False
        self.charges[ability.name] -= 1
        return True

    # A turn

    def stance(self) -> Stance:
        """Before the roll."""
        return Stance()

    def answer(self, turn: Turn, again: Again) -> None:
        """The die has fallen and was judged, nothing was scaled yet."""

    def shape(self, turn: Turn, chance: Chance, loss: float | None) -> None:
        """The rules have spoken. `loss` of the step, where `needs_loss`."""

    def saves(self) -> bool:
        """The loss is no number: whether the weights kept last are to be put back."""
        return False

    def forget(self) -> None:
        """Other rows are trained from here on: what was measured on those before says nothing, what was kept is gone."""

    def state_dict(self) -> dict[str, Any]:
        return {"name": self.name, "level": self.level, "charges": dict(self.charges), "own": dict(self.own)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ValueError for another class's."""
        if state["name"] != self.name:
            raise ValueError(f"this is the state of a {state['name']}, not of a {self.name}")
        self.level, self.charges, self.own = state["level"], dict(state["charges"]), dict(state["own"])
