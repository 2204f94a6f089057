"""The three monsters: what each does to a turn while it lives, and how it is slain. They know neither models nor optimizers.

A success does 10 times its scale in damage, a critical one 20; hit points are 20 + 10 level, the level being the one that
experience has reached. Whoever slays one has the experience of that fight doubled.
"""

from typing import Any, ClassVar

from core.dice.dice import Chance, Outcome
from core.dice.turn import Turn

HIT_POINTS, BY_LEVEL = 20, 10
DAMAGE, CRITICAL_DAMAGE = 10, 20
SEEDS = 2**31 - 1


class Monster:
    """One that was met. `seed`: of what it does by chance; `earned`: experience since it appeared."""

    name: ClassVar[str]
    text: ClassVar[str]  # what it does, to the number
    haunts: ClassVar[bool] = False  # whether it touches the weights themselves

    def __init__(self, level: int, seed: int = 0):
        self.level, self.seed, self.earned = level, seed, 0
        self.hit_points = self.most_hit_points

    @property
    def most_hit_points(self) -> int:
        return HIT_POINTS + BY_LEVEL * self.level

    @property
    def slain(self) -> bool:
        return self.hit_points <= 0

    def act(self, turn: Turn) -> None:
        """Make the turn worse."""

    def suffer(self, turn: Turn) -> None:
        """What the roll does to it."""
        if turn.outcome is Outcome.CRITICAL_SUCCESS:
            self.hit_points -= CRITICAL_DAMAGE
        elif turn.outcome is Outcome.SUCCESS:
            self.hit_points -= max(1, round(DAMAGE * (turn.scale or 0.0)))

    def state_dict(self) -> dict[str, Any]:
        return {"name": self.name, **vars(self)}


class GradientOoze(Monster):
    name = "Gradient Ooze"
    text = "Slows updates: gradients are halved. (AdamW divides by what gradients usually are: it notices the change, and the end.)"

    def act(self, turn: Turn) -> None:
        turn.gradient_factor *= 0.5


class LossDragon(Monster):
    name = "Loss Dragon"
    text = "Raises the loss: it counts 1.5 times, and so do its gradients."

    def act(self, turn: Turn) -> None:
        turn.loss_factor *= 1.5


class WeightWraith(Monster):
    name = "Weight Wraith"
    text = (
        "Touches the weights while gradients are computed: each is changed by up to 5.5 % (1.9 % in the root mean square) of itself, "
        "anew in each step. Its touch is lifted before the optimizer steps, bit for bit, so nothing that is kept or saved was touched."
    )
    haunts = True


MONSTERS = {kind.name: kind for kind in (GradientOoze, LossDragon, WeightWraith)}


def appears(chance: Chance, level: int) -> Monster:
    """One of the three."""
    kind = tuple(MONSTERS.values())[chance.die(len(MONSTERS)) - 1]
    return kind(level, chance.die(SEEDS))


def monster_of(state: dict[str, Any]) -> Monster:
    """What `state_dict` gave."""
    monster = MONSTERS[state["name"]](state["level"], state["seed"])
    monster.hit_points, monster.earned = state["hit_points"], state["earned"]
    return monster
