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

WAY = 500  # checkpoints that the hero's way is followed back


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
    return mastered_in(tip_of(paths, hero))


def mastered_in(manifest: checkpoints.Manifest | None) -> dict[str, list[int]]:
    """The same of the weights of a checkpoint."""
    known = Standing.of(manifest.standing).mastered if manifest else {}
    return {name: list(levels) for name, levels in known.items() if levels}


def progress(paths: RealmPaths, config: Config, ledger: Ledger) -> list[dict[str, Any]]:
    """Every skill: its weight, mastered levels, frontier with the newest score and looks, and what the first weights knew."""
    hero = config.hero.name
    tip = tip_of(paths, hero)
    standing = Standing.of(tip.standing if tip else {})
    weights = practised(config.skill_priorities)
    way = _way_to(ledger, tip)
    return [
        {
            "name": name,
            "weight": weights.get(name, 0.0),
            "mastered": list(standing.levels(name)),
            "frontier": (frontier := standing.frontier(name, config.idle_generation.level)),
            "looks": standing.looks.get(key_of(name, frontier), 0) if frontier else 0,
            "score": _score(newest(ledger, hero, name, frontier) if frontier else [], way),
            "baseline": _baseline(tip, key_of(name, skill(name).levels[0])),
        }
        for name in skills()
    ]


def _baseline(tip: checkpoints.Manifest | None, key: str) -> dict[str, Any] | None:
    known = tip.baseline.get(key) if tip else None
    return Score(*known).facts() if known else None


def _way_to(ledger: Ledger, tip: checkpoints.Manifest | None) -> set[str]:
    """The ids of the last checkpoints that the hero has come by."""
    query = """WITH RECURSIVE way(id, parent) AS (SELECT id, parent FROM checkpoints WHERE id=? UNION
        SELECT before.id, before.parent FROM checkpoints AS before JOIN way ON before.id=way.parent LIMIT ?)
        SELECT id FROM way"""
    return {row["id"] for row in ledger.all(query, (tip.id, WAY))} if tip else set()


def _score(rows: list[dict[str, Any]], way: set[str]) -> dict[str, Any] | None:
    """The first of `rows` that is from the hero's way to where it stands; where none is, the first of all."""
    row = next((row for row in rows if row["checkpoint"] in way), rows[0] if rows else None)
    return row and Score(row["right"], row["asked"]).facts() | {key: row[key] for key in ("kind", "step")}
