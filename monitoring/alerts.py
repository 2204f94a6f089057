"""Which events people want to be told of when they are not looking, and in which words. It sends nothing.

Quests that the idle hero writes itself are nobody's news; what goes wrong with them is.
"""

import time
from collections.abc import Sequence
from typing import Any

import orjson

from core import lore
from core.alert_config import Kind
from core.ledger import Ledger
from monitoring.alert_targets import Message

KIND_OF: dict[str, Kind] = {
    "quest_done": "done",
    "quest_failed": "failed",
    "battle_cursed": "failed",
    "quest_rejected": "failed",
    "service_failed": "blocked",
    "config_wrong": "blocked",
    "hero_unclear": "blocked",
    "disk_low": "disk",
    "disk_ok": "disk",
}
OF_ANY_LEVEL = ("quest_done", "quest_rejected", "disk_ok")  # others are told when they are alerts
OF_THE_USER = ("quest_done", "quest_rejected")
TITLES: dict[Kind, str] = {
    "done": "Quest done",
    "failed": "Something failed",
    "blocked": "The realm stands still",
    "level_up": "Level up",
    "disk": "The disk",
}
SHOWN, TEXT = 10, 1500  # lines of a message that tells of many; letters of one
READ = 500


def news(ledger: Ledger, after: int, wanted: Sequence[Kind], hero: str) -> tuple[list[Message], int]:
    """Messages of the next events behind `after`, and the newest event that was looked at."""
    rows = ledger.all("SELECT * FROM events WHERE id>? ORDER BY id LIMIT ?", (after, READ))
    told = [_message(row, kind, hero) for row in rows if (kind := _kind(ledger, row)) in wanted]
    return told, rows[-1]["id"] if rows else after


def _kind(ledger: Ledger, row: dict[str, Any]) -> Kind | None:
    code = row["code"]
    if row["level"] != "alert" and code not in OF_ANY_LEVEL:
        return None
    if code in OF_THE_USER and not _is_users(ledger, orjson.loads(row["data"]).get("quest")):
        return None
    return KIND_OF.get(code, "failed")


def _is_users(ledger: Ledger, quest: Any) -> bool:
    row = ledger.one("SELECT origin FROM quests WHERE id=?", (quest,))
    return row is None or row["origin"] == "user"


def _message(row: dict[str, Any], kind: Kind, hero: str) -> Message:
    title = f"{hero}: {TITLES[kind]}"
    return Message(row["id"], kind, row["code"], title, row["text"][:TEXT], row["level"], row["time"], hero)


def level_up(level: int, step: int, event: int, hero: str) -> Message:
    text = f"{hero} has reached level {level}, {lore.title(step)}, at step {step:,}."
    return Message(event, "level_up", "level_up", f"{hero}: {TITLES['level_up']}", text, "info", time.time(), hero)


def trial(hero: str) -> Message:
    """What `doctor --alert` sends."""
    text = "This is a test: alerts of this realm arrive here."
    return Message(0, "done", "test", f"{hero}: Test", text, "info", time.time(), hero)


def together(messages: Sequence[Message]) -> Message:
    """Many as one: how many of each kind, and the newest of them."""
    newest = messages[-1]
    counts = ", ".join(f"{sum(one.kind == kind for one in messages)} × {title}" for kind, title in TITLES.items()
                       if any(one.kind == kind for one in messages))  # fmt: skip
    lines = [one.text.split("\n")[0][:140] for one in messages[-SHOWN:]]
    more = [f"… and {len(messages) - SHOWN} before these"] if len(messages) > SHOWN else []
    worst = max(messages, key=lambda one: ("info", "warning", "alert").index(one.level))
    title = f"{newest.hero}: {len(messages)} alerts"
    return Message(
        newest.id, worst.kind, "many", title, "\n".join([counts, *lines, *more]), worst.level, newest.time, newest.hero
    )
