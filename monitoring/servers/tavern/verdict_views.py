"""What the Temple and the schools show, as plain dictionaries from config and ledger. It knows no HTML and no HTTP."""

from typing import Any

from core.formats import FORMS
from core.schools import SCHOOLS, TO_COME
from management.verdicts import verdicts
from monitoring.servers.tavern.realm import Realm

SHOWN = 30
RITUALS = (  # what a verdict is made of: name, what is looked at
    ("Weights", "Every number finite, and none grown beyond measure."),
    ("Held-out loss", "Rows that were never trained: their loss before the battle and after it."),
    ("Canaries", "Fixed problems of every skill level: what the hero could do before, it must still be able to do."),
)
MODES = {
    "strict": "A cursed battle is taken back: the hero is again what it was before, the checkpoint stays in the Vault.",
    "advise": "A cursed battle is told and not promoted, and training goes on from it.",
    "off": "Nobody judges: every finished battle is promoted, and none earns experience.",
}


def schools(realm: Realm) -> list[dict[str, Any]]:
    """The six, the open ones first. `told`: whether rows tell of it by their fields."""
    fought = {row["school"]: row for row in realm.ledger.all(
        "SELECT school, COUNT(*) AS battles, SUM(tokens) AS tokens FROM battles WHERE hero=? AND state='done' GROUP BY school",
        (realm.config.hero.name,),
    )}  # fmt: skip
    none = {"battles": 0, "tokens": 0}
    known = [(card, True) for card in SCHOOLS.values()] + [(card, False) for card in TO_COME.values()]
    told = {form.school for form in FORMS}
    return [
        {"card": card, "opened": opened, "told": card.name in told} | fought.get(card.name, none)
        for card, opened in known
    ]


def temple(realm: Realm) -> dict[str, Any]:
    """The mode, and the newest finished battles with their verdicts and what each brought."""
    mode = realm.config.temple.mode
    battles = verdicts(realm.ledger, realm.config.hero.name, SHOWN)
    return {"mode": mode, "says": MODES[mode], "rituals": RITUALS, "battles": battles}
