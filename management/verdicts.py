"""Verdicts told to people: what the Temple said of each battle, and what each quest brought. It judges nothing.

A quest's credit is what its battle changed: the held-out loss and the canaries, each minute of training counted, so that
files can be compared with each other.
"""

from typing import Any

import orjson

from core.ledger import Ledger

JUDGED = ("done", "cursed")


def verdicts(ledger: Ledger, hero: str, most: int = 30, quest: int | None = None) -> list[dict[str, Any]]:
    """The newest finished battles, newest first, each with its verdict (None where nobody judged) and its credit."""
    of, values = ("", ()) if quest is None else ("AND battles.quest=? ", (quest,))
    rows = ledger.all(
        "SELECT battles.*, quests.stem, quests.skill, quests.origin, quests.reason AS told FROM battles "
        f"LEFT JOIN quests ON quests.id = battles.quest WHERE battles.state IN {JUDGED} AND battles.hero = ? "
        f"{of}ORDER BY battles.id DESC LIMIT ?",
        (hero, *values, most),
    )
    return [_told(row) for row in rows]


def _told(row: dict[str, Any]) -> dict[str, Any]:
    verdict = orjson.loads(row["verdict"]) if row["verdict"] else None
    names = (
        "quest",
        "skill",
        "origin",
        "state",
        "school",
        "total_steps",
        "tokens",
        "seconds",
        "effort",
        "xp",
        "finished",
    )
    return {
        **{name: row[name] for name in names},
        "stem": row["stem"] or f"quest {row['quest']}",
        "validation_loss_before": row["validation_loss_before"],
        "validation_loss": row["validation_loss"],
        "quality": row["quality"],
        "verdict": verdict["word"] if verdict else None,
        "rituals": verdict["rituals"] if verdict else [],
        "canaries": _canaries(verdict) if verdict else {},
        "credit": _credit(row, verdict),
    }


def _canaries(verdict: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Accuracy before and after, by skill and level; None before where a level was asked for the first time."""
    before, after = verdict["before"]["canaries"] or {}, verdict["after"]["canaries"] or {}
    return {
        key: {"before": _share(before.get(key)), "after": _share(score)}
        for key, score in sorted(after.items())
    }  # fmt: skip


def _share(score: list[int] | None) -> float | None:
    return score[0] / score[1] if score else None


def _credit(row: dict[str, Any], verdict: dict[str, Any] | None) -> dict[str, float | None]:
    """What the battle gained: nats per label of its held-out rows, canary accuracy, and each for a minute of training."""
    minutes = row["seconds"] / 60
    loss = None
    if row["validation_loss_before"] is not None and row["validation_loss"] is not None:
        loss = row["validation_loss_before"] - row["validation_loss"]
    scores = _canaries(verdict).values() if verdict else ()
    changes = [score["after"] - score["before"] for score in scores if score["before"] is not None]
    canaries = sum(changes) / len(changes) if changes else None
    return {
        "minutes": minutes,
        "loss": loss,
        "canaries": canaries,
        "loss_per_minute": loss / minutes if loss is not None and minutes else None,
        "canaries_per_minute": canaries / minutes if canaries is not None and minutes else None,
    }
