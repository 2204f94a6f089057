"""Campaigns: named chapters of a hero's life, of which every checkpoint says to which it belongs. It moves no pointer.

The first chapter begins at birth. A later one begins from wherever the hero stands, or from a checkpoint that it is taken
back to; the global step goes on. What was done in a chapter is told by the checkpoints that carry its name.
"""

import re
import time
from typing import Any

from core.errors import UserError, nearest
from core.ledger import Ledger

FIRST = "first"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")


def active(ledger: Ledger, hero: str) -> str:
    """The campaign that the hero's next checkpoint belongs to."""
    row = ledger.one("SELECT name FROM campaigns WHERE hero=? ORDER BY id DESC LIMIT 1", (hero,))
    return row["name"] if row else FIRST


def begin(ledger: Ledger, hero: str, name: str, checkpoint: str | None) -> None:
    """From now on the hero's checkpoints belong to `name`; it begins from `checkpoint`. Raises UserError."""
    with ledger.together():
        if not _begun(ledger, hero):
            born = ledger.one("SELECT MIN(created) AS born FROM checkpoints WHERE hero=?", (hero,))["born"]
            ledger.add("campaigns", hero=hero, name=FIRST, created=born or time.time())
        ledger.add("campaigns", hero=hero, name=name, checkpoint=checkpoint, created=time.time())
    text = f"{hero} begins the campaign {name}" + (f" from {checkpoint}." if checkpoint else ".")
    ledger.event("realm", "campaign_began", text, campaign=name, checkpoint=checkpoint)


def check_new(ledger: Ledger, hero: str, name: str) -> str:
    """`name`, if a new campaign may have it. Raises UserError."""
    if not _NAME.fullmatch(name):
        raise UserError(f"a campaign cannot be called {name!r}: letters, digits and _, at most 32, a letter first")
    if name in ({row["name"] for row in _begun(ledger, hero)} or {FIRST}):
        raise UserError(f"{hero} has a campaign {name!r} already; choose another name")
    return name


def archive(ledger: Ledger, hero: str, name: str) -> None:
    """Leave `name` out of the lists. Raises UserError for one that does not exist or goes on."""
    known = find(ledger, hero, name)
    if known["active"]:
        raise UserError(f"{name} is the campaign that goes on; `campaign new NAME` begins another one first")
    ledger.change("campaigns", known["id"], archived=time.time())


def find(ledger: Ledger, hero: str, name: str) -> dict[str, Any]:
    """The campaign of this name. Raises UserError."""
    known = {campaign["name"]: campaign for campaign in campaigns(ledger, hero)}
    if name not in known:
        raise UserError(f"{hero} has no campaign {name!r}{nearest(name, known) or '.'} `campaign list` shows them")
    return known[name]


def campaigns(ledger: Ledger, hero: str) -> list[dict[str, Any]]:
    """All of a hero's campaigns, the newest first, each with what was done in it."""
    only = {"id": None, "name": FIRST, "checkpoint": None, "created": None, "archived": None}
    begun = _begun(ledger, hero) or [only]
    goes_on = active(ledger, hero)
    return [_told(ledger, hero, row) | {"active": row["name"] == goes_on} for row in begun]


def _begun(ledger: Ledger, hero: str) -> list[dict[str, Any]]:
    """The rows of a hero's campaigns, the newest first; none before a second one has begun."""
    return ledger.all("SELECT * FROM campaigns WHERE hero=? ORDER BY id DESC", (hero,))


def _told(ledger: Ledger, hero: str, row: dict[str, Any]) -> dict[str, Any]:
    done = ledger.one(
        "SELECT COUNT(*) AS checkpoints, MIN(step) AS first_step, MAX(step) AS last_step, MIN(created) AS began, "
        "MAX(created) AS latest FROM checkpoints WHERE hero=? AND campaign=?",
        (hero, row["name"]),
    )
    fought = ledger.one(
        "SELECT COUNT(DISTINCT quest) AS quests, COALESCE(SUM(tokens), 0) AS tokens, COALESCE(SUM(seconds), 0) AS seconds, "
        "COALESCE(SUM(xp), 0) AS xp FROM battles WHERE state='done' AND hero=? AND quest IN "
        "(SELECT quest FROM checkpoints WHERE hero=? AND campaign=?)",
        (hero, hero, row["name"]),
    )
    own = {"id": row["id"], "name": row["name"], "from": row["checkpoint"], "archived": row["archived"]}
    return own | {"created": row["created"] or done["began"]} | dict(done) | dict(fought)
