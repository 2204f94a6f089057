"""What can be set of Roll-to-Train in config.json and beside a quest; a quest's card freezes it. It imports no torch."""

from typing import Literal

from pydantic import Field

from core.config_words import Section

RulesName = Literal["gentle", "methodology", "readme"]
ModeName = Literal["per_accumulation_step", "per_mini_batch"]
DieName = Literal["d4", "d6", "d8", "d10", "d12", "d20", "d100"]
EdgeName = Literal["none", "advantage", "disadvantage"]
ClassName = Literal["wizard", "rogue", "fighter", "cleric", "barbarian", "paladin"]

LOWEST_DC = 2


def sides_of(die: str) -> int:
    """d20 has 20."""
    return int(die.removeprefix("d"))


def modifier_of(intelligence: int) -> int:
    """(INT - 10) // 2, as for any ability score."""
    return (intelligence - 10) // 2


def usual_dc(die: str, intelligence: int = 10) -> int:
    """The difficulty class where none is named: three quarters of the sides, rounded up, or the most that is reached."""
    sides = sides_of(die)
    return max(LOWEST_DC, min(-(-sides * 3 // 4), sides + modifier_of(intelligence)))


class Dice(Section):
    """Roll-to-Train: each update is rolled for, and the roll decides what becomes of it."""

    enabled: bool = Field(False, description="Whether battles are rolled.")
    rules: RulesName = Field(
        "gentle",
        description="What a roll does to the update. `gentle`: a natural 1 discards it, a failure makes it zero, a success "
        "scales it; nothing is inverted. `methodology`: a failure inverts it, scaled; `readme`: a natural 1 does, too, and wholly.",
    )
    mode: ModeName = Field(
        "per_accumulation_step",
        description="What is rolled for: `per_accumulation_step`, the gradients of a step together; `per_mini_batch`, the "
        "loss of each pass.",
    )
    die: DieName = Field("d20", description="The die that is rolled.")
    intelligence: int = Field(10, ge=1, le=30, description="Its modifier, (INT - 10) // 2, is added to every roll.")
    dc: int | None = Field(
        None,
        ge=LOWEST_DC,
        le=120,
        description="Difficulty class: what a roll must reach. Default: three quarters of the die's sides, 15 of a d20, or the "
        "most that die and intelligence reach.",
    )
    advantage: EdgeName = Field("none", description="Whether of two dice the higher or the lower one counts.")
    character_class: ClassName | None = Field(None, description="Class whose abilities the hero has; none by default.")
    level: int = Field(1, ge=1, le=20, description="Level that the class begins with.")
    use_xp_system: bool = Field(True, description="Whether rolls bring experience, and levels a bonus.")
    encounter_chance: float = Field(0.05, ge=0, le=1, description="Chance of a monster at a roll, while there is none.")

    @property
    def difficulty(self) -> int:
        """What a roll must reach."""
        return usual_dc(self.die, self.intelligence) if self.dc is None else self.dc


def reach_problem(dice: Dice) -> str | None:
    """Why no roll but the natural maximum can succeed, if that is so. To be asked of the whole: a sidecar says but a part."""
    most = sides_of(dice.die) + modifier_of(dice.intelligence)
    if dice.difficulty <= most:
        return None
    lower = f"set dc to {most} or lower" if most >= LOWEST_DC else "set a higher intelligence or a larger die"
    return f"dc {dice.difficulty} is out of reach: a {dice.die} with intelligence {dice.intelligence} reaches {most} at most; {lower}"
