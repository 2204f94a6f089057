"""What the Temple shows, as plain dictionaries from config and ledger. It knows no HTML and no HTTP."""

from typing import Any

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


def temple(realm: Realm) -> dict[str, Any]:
    """The mode, and the newest finished battles with their verdicts and what each brought."""
    mode = realm.config.temple.mode
    battles = verdicts(realm.ledger, realm.config.hero.name, SHOWN)
    return {"mode": mode, "says": MODES[mode], "rituals": RITUALS, "battles": battles}
