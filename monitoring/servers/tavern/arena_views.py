"""What the arena's page shows, as plain dictionaries: the arena's book and the battle that is fought. It knows no HTML."""

from typing import Any

from core.arena.energy import FULL
from core.arena.league import Arena
from core.errors import UserError
from monitoring.servers.tavern import charts
from monitoring.servers.tavern.arena_battles import BROKEN_OFF
from monitoring.servers.tavern.realm import Realm

SHOWN_BATTLES = 8
STEPS = 60  # that a visitor is offered


def keys(realm: Realm) -> dict[str, str]:
    """`ring` changes with the battle, `league` with what is remembered."""
    arena = Arena(realm.paths)
    now = [realm.paths.arena_now(kind) for kind in ("battle", "training")]
    battle, training, book = (
        path.stat().st_mtime_ns if path.exists() else 0 for path in (*now, realm.paths.arena_book)
    )
    word = f"{arena.holder} {realm.battles.word()}"
    return {"ring": f"{battle} {training} {word}", "league": f"{book} {word}"}


def league(realm: Realm) -> dict[str, Any]:
    """Agents by score for each energy, the player's energy, the battles of late; `broken`: why there is none of it."""
    arena = Arena(realm.paths)
    try:
        book, broken = arena.read(), ""
    except UserError as problem:
        return {
            "agents": [],
            "battles": [],
            "energy": 0.0,
            "full": FULL,
            "rests": 0,
            "busy": True,
            "broken": str(problem),
        }
    rows = [row | {"share": row["efficiency"]} for row in book.leaderboard()]
    best = max((row["efficiency"] for row in rows), default=0.0)
    for row in rows:
        row["share"] = row["efficiency"] / best if best else 0.0
    return {
        "agents": rows,
        "battles": [_battle(battle) for battle in reversed(book.battles[-SHOWN_BATTLES:])],
        "energy": book.energy,
        "full": FULL,
        "rests": book.rests,
        "busy": bool(arena.holder) or realm.battles.running,
        "broken": broken,
        "pair": _pair([row["name"] for row in rows], book.champion),
        "steps": STEPS,
    }


def _pair(names: list[str], champion: str | None) -> tuple[str, str]:
    """Whom to set against each other unless a visitor knows better: the champion, and the best of the others."""
    first = champion or next(iter(names), "")
    return first, next((name for name in names if name != first), "")


def _battle(battle: dict[str, Any]) -> dict[str, Any]:
    one, other = battle["agents"]
    return battle | {"one": one, "other": other, "scores": [side["score"] for side in battle["agents"].values()]}


def ring(realm: Realm) -> dict[str, Any]:
    """The battle that is fought, or the last one: curves, texts, and who won. `waits`: one begins, and has no step yet."""
    arena, running = Arena(realm.paths), realm.battles.running
    shown, training = arena.told("battle"), arena.told("training")
    waits = running and shown.get("pid") != realm.battles.pid  # once it has told anything, its winner is shown at once
    result = None if waits else shown.get("result")
    live = bool(shown.get("live"))
    broken = bool(shown) and not live and not waits and result is None
    return {
        "agents": shown.get("agents", []),
        "live": live,
        "waits": waits,
        "challenge": realm.battles.challenge,
        "mine": running,
        "trains": training if training.get("live") else None,
        "problem": realm.battles.problem or (BROKEN_OFF if broken else ""),
        "writing": shown.get("phase") == "writing",
        "step": shown.get("step", 0),
        "steps": shown.get("steps", 0),
        "loss": shown.get("loss", {}),
        "eta_seconds": shown.get("eta_seconds"),
        "names": shown.get("names", {}),
        "chart": None if waits or not shown else charts.rivals(shown["curves"]),
        "result": result,
    }
