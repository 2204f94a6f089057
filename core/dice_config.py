"""What can be set of Roll-to-Train in config.json and beside a quest; a quest's card freezes it. It imports no torch."""

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from core.config_words import Section

RulesName = Literal["gentle", "methodology", "readme"]
ModeName = Literal["per_accumulation_step", "per_mini_batch"]
DieName = Literal["d4", "d6", "d8", "d10", "d12", "d20", "d100"]
EdgeName = Literal["none", "advantage", "disadvantage"]
ClassName = Literal["wizard", "rogue", "fighter", "cleric", "barbarian", "paladin"]


def sides_of(die: str) -> int:
    """d20 has 20."""
    return int(die.removeprefix("d"))


def usual_dc(die: str) -> int:
    """The difficulty class where none is named: three quarters of the sides, rounded up."""
    return -(-sides_of(die) * 3 // 4)


def modifier_of(intelligence: int) -> int:
    """(INT - 10) // 2, as for any ability score."""
    return (intelligence - 10) // 2


def reach_problem(die: str, dc: int | None, intelligence: int) -> str | None:
    """Why no roll but the natural maximum can succeed, if that is so."""
    sides, modifier = sides_of(die), modifier_of(intelligence)
    dc = usual_dc(die) if dc is None else dc
    if dc > sides + modifier:
        most = f"a {die} with intelligence {intelligence} reaches {sides + modifier} at most"
        return f"dc {dc} is out of reach: {most}; set dc to {sides + modifier} or lower"
    return None


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
        ge=2,
        le=120,
        validate_default=True,
        description="Difficulty class: what a roll must reach. Default: three quarters of the die's sides, 15 of a d20.",
    )
    advantage: EdgeName = Field("none", description="Whether of two dice the higher or the lower one counts.")
    character_class: ClassName | None = Field(None, description="Class whose abilities the hero has; none by default.")
    level: int = Field(1, ge=1, le=20, description="Level that the class begins with.")
    use_xp_system: bool = Field(True, description="Whether rolls bring experience, and levels a bonus.")
    encounter_chance: float = Field(0.05, ge=0, le=1, description="Chance of a monster at a roll, while there is none.")

    @field_validator("dc")
    @classmethod
    def within_reach(cls, value: int | None, info: ValidationInfo) -> int | None:
        known = info.data
        if not {"die", "intelligence"} <= known.keys():  # one of them is a mistake, told already
            return value
        if problem := reach_problem(known["die"], value, known["intelligence"]):
            raise ValueError(problem)
        return value
