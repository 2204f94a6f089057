"""What the schools show, as plain dictionaries from config, ledger and record of steps. It knows no HTML and no HTTP."""

from typing import Any

from core.schools import SCHOOLS
from core.steps import last_told
from monitoring.servers.tavern import charts
from monitoring.servers.tavern.realm import Realm

LOOKS = 400  # of a curve


def schools(realm: Realm) -> list[dict[str, Any]]:
    """The six in the order of the book, with what the hero did in each. `curve`: None before a battle was measured."""
    hero, ledger = realm.config.hero.name, realm.ledger
    fought = {row["school"]: row for row in ledger.all(
        "SELECT school, COUNT(*) AS battles, SUM(tokens) AS tokens, MAX(quest) AS quest FROM battles "
        "WHERE hero=? AND state='done' GROUP BY school",
        (hero,),
    )}  # fmt: skip
    none = {"battles": 0, "tokens": 0, "quest": None}
    return [
        {
            "card": card,
            "settings": settings(realm, card.name),
            "curve": curve(realm, card.name) if card.name in fought else None,
            "told": told(realm, fought.get(card.name, none)["quest"]),
            **fought.get(card.name, none),
        }
        for card in SCHOOLS.values()
    ]


def settings(realm: Realm, school: str) -> list[dict[str, Any]]:
    """What can be set of a school, as it is now: key of `config set`, value, what it does."""
    section = realm.config.schools.settings(school)
    return [
        {"key": f"schools.{school}.{name}", "name": name, "value": getattr(section, name), "does": field.description}
        for name, field in type(section).model_fields.items()
    ]


def curve(realm: Realm, school: str) -> dict[str, Any]:
    """The hero's held-out losses in a school, by step."""
    rows = realm.ledger.all(
        "SELECT step, value FROM evaluations WHERE kind='validation' AND school=? AND hero=? ORDER BY id DESC LIMIT ?",
        (school, realm.config.hero.name, LOOKS),
    )
    return charts.held_out(sorted((row["step"], row["value"]) for row in rows))


def told(realm: Realm, quest: int | None) -> list[dict[str, Any]]:
    """What the school reported of the last step of `quest` beside its loss: name and value."""
    values = last_told(realm.paths.metrics, realm.config.hero.name, quest) if quest is not None else {}
    return [{"name": name.replace("_", " "), "value": value} for name, value in values.items()]
