"""The Vault's page: pointers, lineage, every checkpoint, room on the disk, and what is kept beside."""

from typing import Any

from fastapi import Request

from management.lineage import lineage
from monitoring.servers.tavern import lineage_view, vault_keeping, vault_views
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm

SHOWN = 16
DONE = {  # what was done to a checkpoint, for the visitor who pressed the button
    "promote": "is to be promoted",
    "rollback": "is where training is to go on from",
    "pin": "is pinned; it stays whatever retention says",
    "unpin": "is not pinned by hand any more",
    "verify": "is whole: every file has its SHA-256",
    "export": "is being exported",
    "delete": "is in the trash",
    "undelete": "is back in the Vault",
    "tag": "has a name, which pins it",
    "untag": "has lost that name",
}


def done(realm: Realm, request: Request) -> dict[str, Any] | None:
    """The note above the page after a button was pressed; `undo`: the verb that takes it back."""
    verb, checkpoint = request.query_params.get("done", ""), request.query_params.get("of", "")
    if verb not in DONE:
        return None
    undo = {"delete": "undelete", "pin": "unpin"}.get(verb)
    return {"verb": verb, "text": DONE[verb], "checkpoint": checkpoint, "undo": undo}


def pending(realm: Realm, _: Request) -> dict[str, Any]:
    """What was asked for and is not done yet; the page of one checkpoint shows it, too."""
    return {"wishes": vault_keeping.wishes(realm), "exporting": vault_keeping.exporting(realm)}


def _crown(realm: Realm, _: Request) -> dict[str, Any]:
    return {"crown": vault_views.crown(realm)}


def _lineage(realm: Realm, _: Request) -> dict[str, Any]:
    nodes = lineage(realm.paths, realm.ledger, known=vault_views.known(realm))
    return {"lines": lineage_view.lines(nodes), "nodes": len(nodes)}


def _checkpoints(realm: Realm, request: Request) -> dict[str, Any]:
    given = request.query_params.get("page", "")
    place = int(given) if given.isascii() and given.isdigit() and len(given) < 6 else 0
    count = vault_views.count(realm)
    return {
        "checkpoints": vault_views.vault(realm, SHOWN, place * SHOWN),
        "count": count,
        "place": place,
        "newer": place - 1 if place else None,
        "older": place + 1 if (place + 1) * SHOWN < count else None,
        "meaning": vault_views.MEANING,
    }


def _room(realm: Realm, _: Request) -> dict[str, Any]:
    return {"room": vault_keeping.room(realm), "going": vault_keeping.going(realm)}


def _keeping(realm: Realm, _: Request) -> dict[str, Any]:
    return {"keeping": vault_keeping.keeping(realm)}


PAGE = Page(
    "/vault",
    "Vault",
    "vault.html",
    {
        "pending": Part("pending.html", "pending", pending),
        "crown": Part("crown.html", "vault", _crown),
        "lineage": Part("lineage.html", "vault", _lineage),
        "versus": Part("versus.html", "vault", lambda realm, _: {"choices": vault_views.choices(realm)}),
        "vault": Part("vault.html", "vault", _checkpoints),
        "room": Part("room.html", "vault", _room),
        "keeping": Part("keeping.html", "vault", _keeping),
    },
    lambda realm, request: {"done": done(realm, request)},
)
