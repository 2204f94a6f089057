"""The three sets of rules: what becomes of an update by the outcome of its roll. They know neither models nor characters.

The descriptions of Roll-to-Train disagree on what a failure does, so each of them is a set by name; `gentle` is this
project's. t: the roll's total, n: the die's sides, DC: the difficulty class. The update's gradient is multiplied by

| outcome | gentle | methodology | readme |
|---|---|---|---|
| critical failure (natural 1) | discarded | discarded | -1 |
| failure (t < DC) | 0 | -(DC - t) / n | -(DC - t) / n |
| success (t >= DC) | t / n | t / n | t / n |
| critical success (natural n) | 1 | 1 | 1 |

all within -1 and 1. *Discarded* is not 0: after a discarded step weights, moments and counts of the optimizer are what
they were before it, as if its rows had not been there. A gradient of 0 is one: AdamW's moments fade, and what is left of
them moves the weights, as weight decay does.
"""

from dataclasses import dataclass

from core.dice.dice import Outcome, Roll, chances, judge
from core.errors import UserError, nearest

DISCARD = None


@dataclass(frozen=True)
class Rules:
    """`critical_failure`: the scale of one, None where the update is discarded; `inverts`: whether failures turn it round."""

    name: str
    critical_failure: float | None
    inverts: bool

    def scale(self, outcome: Outcome, roll: Roll, dc: int) -> float | None:
        """What the update's gradient is multiplied by, -1 to 1; None: it is discarded."""
        match outcome:
            case Outcome.CRITICAL_FAILURE:
                return self.critical_failure
            case Outcome.FAILURE:
                return max(-1.0, -(dc - roll.total) / roll.sides) if self.inverts else 0.0
            case Outcome.SUCCESS:
                return min(1.0, max(dc, roll.total) / roll.sides)  # a dodged failure just reaches the DC
        return 1.0

    def mean_scale(self, sides: int, dc: int, modifier: int = 0, edge: int = 0) -> float:
        """What an update keeps on average, discarded ones as 0."""
        rolls = {Roll(sides, natural, (natural,), modifier): chance for natural, chance in chances(sides, edge).items()}
        return sum(chance * (self.scale(judge(roll, dc), roll, dc) or 0.0) for roll, chance in rolls.items())


RULES = {
    rules.name: rules
    for rules in (Rules("gentle", DISCARD, False), Rules("methodology", DISCARD, True), Rules("readme", -1.0, True))
}


def rules_named(name: str) -> Rules:
    """Raises UserError."""
    if name not in RULES:
        raise UserError(f"rules = {name!r}: unknown{nearest(name, RULES) or '.'} Known: {', '.join(RULES)}")
    return RULES[name]
