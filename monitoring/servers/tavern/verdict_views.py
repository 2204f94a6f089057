"""What the Temple and the schools show, as plain dictionaries from config and ledger. It knows no HTML and no HTTP."""

from typing import Any

from core.formats import FORMS
from core.schools import SCHOOLS, TO_COME
from monitoring.servers.tavern.realm import Realm

SHOWN = 30
RITUALS = (  # what a verdict will be made of: name, what is looked at
    ("Data", "The rows that were trained: how many were bad, copied, or taught nothing."),
    ("Weights", "Every number finite, and none drifted far from the parent's."),
    ("Held-out loss", "Rows that were never trained: their loss before the battle and after it."),
    ("Canaries", "A few fixed problems of every skill: what the hero could do before, it must still be able to do."),
)


def schools(realm: Realm) -> list[dict[str, Any]]:
    """The six, the open ones first. `told`: whether rows tell of it by their fields."""
    fought = {row["school"]: row for row in realm.ledger.all(
        "SELECT school, COUNT(*) AS battles, SUM(tokens) AS tokens FROM battles WHERE state='done' GROUP BY school"
    )}  # fmt: skip
    none = {"battles": 0, "tokens": 0}
    known = [(card, True) for card in SCHOOLS.values()] + [(card, False) for card in TO_COME.values()]
    told = {form.school for form in FORMS}
    return [
        {"card": card, "opened": opened, "told": card.name in told} | fought.get(card.name, none)
        for card, opened in known
    ]


def temple(realm: Realm) -> dict[str, Any]:
    """The mode, and the newest finished battles with what is known of their worth."""
    rows = realm.ledger.all(
        "SELECT battles.id, battles.quest, quests.stem, battles.validation_loss_before, battles.validation_loss, "
        "battles.effort, battles.xp, battles.finished, "
        "(SELECT state FROM checkpoints WHERE checkpoints.quest = battles.quest AND gone IS NULL "
        "ORDER BY step DESC LIMIT 1) AS verdict "
        "FROM battles LEFT JOIN quests ON quests.id = battles.quest WHERE battles.state='done' "
        "ORDER BY battles.id DESC LIMIT ?",
        (SHOWN,),
    )
    battles = [row | {"stem": row["stem"] or f"quest {row['quest']}"} for row in rows]
    return {"mode": realm.config.temple.mode, "rituals": RITUALS, "battles": battles}
