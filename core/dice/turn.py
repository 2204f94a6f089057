"""One turn of the game: a roll, and all that is to be done because of it. Who makes it and who carries it out is elsewhere."""

import math
from dataclasses import dataclass, field

from core.dice.dice import Outcome, Roll


@dataclass(frozen=True)
class Happening:
    """What a log tells of a turn. `code`: encounter, slain, level_up, or the ability that was used."""

    code: str
    text: str


@dataclass
class Turn:
    """Made step by step: rolled, answered by the character, scaled by the rules, shaped by character and monster.

    `scale`: by the rules, None where the update is discarded. `gradient_factor`, `loss_factor`: what multiplies it beside
    that; `least_factor`: below which their product does not fall; `rate_factor`: the learning rate of this one step;
    `steps`: how often the optimizer takes it; `keep`: the weights are copied before the step; `restore`: the copy is put
    back in its place.
    """

    number: int
    roll: Roll
    dc: int
    outcome: Outcome
    scale: float | None = None
    gradient_factor: float = 1.0
    loss_factor: float = 1.0
    least_factor: float = -math.inf
    rate_factor: float = 1.0
    steps: int = 1
    keep: bool = False
    restore: bool = False
    happenings: list[Happening] = field(default_factory=list)

    @property
    def discarded(self) -> bool:
        return self.restore or self.scale is None

    @property
    def factor(self) -> float:
        """What the gradient of the loss as it was computed is multiplied by; 0 where it is discarded."""
        if self.scale is None or self.restore:
            return 0.0
        return max(self.least_factor, self.scale * self.gradient_factor * self.loss_factor)

    def tell(self, code: str, text: str) -> None:
        self.happenings.append(Happening(code, text))
