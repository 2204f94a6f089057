"""How far a hero has come in each skill: levels mastered, the frontier, looks taken. It holds no exam and knows no torch.

A standing belongs to weights and lies in their manifest, so a rollback takes it back with them. Levels of a skill are
climbed in order: the frontier is the lowest that is not mastered, and a level that is lost becomes it again.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from core.skills import skill, skills

CANARIES, EXAMS = "canaries", "exams"  # the purses that canaries and fresh problems are paid from
FIRST_CREDIT = 4096.0  # trained tokens' worth in each purse of a newborn hero, which has earned nothing yet


def key_of(name: str, level: int) -> str:
    """How a level is called in manifests and rows: BIN/3."""
    return f"{name}/{level}"


def level_of(key: str) -> tuple[str, int]:
    """The skill and the number of a level that `key_of` named."""
    name, _, level = key.partition("/")
    return name, int(level)


@dataclass(frozen=True)
class Standing:
    """`looks`: exams that could have raised each level, by its key; `credit`: tokens of training that exams may still cost;
    `owed`: levels whose canaries could not be paid the last time and come first, so that no skill goes unseen."""

    mastered: dict[str, tuple[int, ...]] = field(default_factory=dict)
    looks: dict[str, int] = field(default_factory=dict)
    credit: dict[str, float] = field(default_factory=lambda: {CANARIES: FIRST_CREDIT, EXAMS: FIRST_CREDIT})
    owed: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Standing":
        """What `as_json` made; without anything that of a newborn hero."""
        if not values:
            return cls()
        mastered = {name: tuple(levels) for name, levels in values["mastered"].items()}
        return cls(mastered, dict(values["looks"]), dict(values["credit"]), tuple(values["owed"]))

    def as_json(self) -> dict[str, Any]:
        lists = {"mastered": {name: list(levels) for name, levels in self.mastered.items()}, "owed": list(self.owed)}
        return asdict(self) | lists

    def levels(self, name: str) -> tuple[int, ...]:
        """The levels of a skill that are mastered, ascending."""
        return self.mastered.get(name, ())

    def frontier(self, name: str, first: int = 1) -> int | None:
        """The lowest level from `first` on that is not mastered; None where all are."""
        known, every = self.levels(name), skill(name).levels
        return next((level for level in every if level >= min(first, every[-1]) and level not in known), None)

    def risen(self, name: str, level: int) -> "Standing":
        return replace(self, mastered=self.mastered | {name: tuple(sorted({*self.levels(name), level}))})

    def fallen(self, name: str, level: int) -> "Standing":
        kept = tuple(known for known in self.levels(name) if known != level)
        return replace(self, mastered=self.mastered | {name: kept})

    def looked(self, name: str, level: int) -> "Standing":
        """One more exam was held that could have raised this level."""
        key = key_of(name, level)
        return replace(self, looks=self.looks | {key: self.looks.get(key, 0) + 1})

    def spent(self, purse: str, tokens: float) -> "Standing":
        return replace(self, credit=self.credit | {purse: self.credit[purse] - tokens})

    def earned(self, tokens: float) -> "Standing":
        """Half for each purse; what canaries have no use for goes to exams."""
        canaries = self.credit[CANARIES] + tokens / 2
        over = max(0.0, canaries - max(FIRST_CREDIT, tokens / 2))
        return replace(self, credit={CANARIES: canaries - over, EXAMS: self.credit[EXAMS] + tokens / 2 + over})


def practised(priorities: Mapping[str, float]) -> dict[str, float]:
    """The skills of `skill_priorities` that have a weight, by the names they call themselves."""
    return {name.upper(): weight for name, weight in sorted(priorities.items()) if weight and name.upper() in skills()}
