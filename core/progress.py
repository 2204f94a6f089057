"""How far the hero has come in each skill, for people: mastered levels, the frontier's score, looks. It only reads.

What is mastered stands in the tip's manifest, what was asked in the ledger.
"""

from typing import Any

from core import checkpoints
from core.config import Config
from core.errors import CheckpointError
from core.exam_record import newest
from core.ledger import Ledger
from core.mastery import Score
from core.paths import RealmPaths
from core.skills import skill, skills
from core.standing import Standing, key_of, practised


def tip_of(paths: RealmPaths, hero: str) -> checkpoints.Manifest | None:
    """The manifest of the hero's newest weights, if it has any and they can be read."""
    tip = checkpoints.pointed(paths.tip)
    try:
        manifest = checkpoints.read(paths.vault / tip) if tip else None
    except CheckpointError:
        return None
    return manifest if manifest and manifest.hero == hero else None


def standing_of(paths: RealmPaths, hero: str) -> Standing:
    """How far the newest weights have come; a newborn hero's where they do not say."""
    tip = tip_of(paths, hero)
    return Standing.of(tip.standing if tip else {})


def mastered(paths: RealmPaths, hero: str) -> dict[str, list[int]]:
    """The mastered levels of the skills that have any."""
    return {name: list(levels) for name, levels in standing_of(paths, hero).mastered.items() if levels}


def progress(paths: RealmPaths, config: Config, ledger: Ledger) -> list[dict[str, Any]]:
    """Every skill: its weight, mastered levels, frontier with the newest score and looks, and what the first weights knew."""
    hero = config.hero.name
    tip = tip_of(paths, hero)
    standing = Standing.of(tip.standing if tip else {})
    weights = practised(config.skill_priorities)
    return [
        {
            "name": name,
            "weight": weights.get(name, 0.0),
            "mastered": list(standing.levels(name)),
            "frontier": (frontier := standing.frontier(name, config.idle_generation.level)),
            "looks": standing.looks.get(key_of(name, frontier), 0) if frontier else 0,
            "score": _score(newest(ledger, hero, name, frontier) if frontier else None),
            "baseline": _told(tip.baseline.get(key_of(name, skill(name).levels[0]))) if tip else None,
        }
        for name in skills()
    ]


def _score(row: dict[str, Any] | None) -> dict[str, Any] | None:
    return row and _told([row["right"], row["asked"]]) | {"kind": row["kind"], "step": row["step"]}


def _told(pair: list[int] | None) -> dict[str, Any] | None:
    if not pair:
        return None
    score = Score(*pair)
    low, high = score.interval()
    return {"right": score.right, "asked": score.asked, "accuracy": score.accuracy, "low": low, "high": high}
