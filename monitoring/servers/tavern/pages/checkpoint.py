"""The pages of one checkpoint below /vault: all about it, two compared, the question before an act, and the buttons' forms."""

import time
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from core import turning_back
from core.checkpoints import pointed
from core.errors import CheckpointError
from management.export import LONG_NAMES
from management.trash import KEPT_SECONDS
from monitoring.servers.tavern import vault_keeping, vault_views
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import page
from monitoring.servers.tavern.pages import vault
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.vault_acts import act
from monitoring.servers.tavern.vault_compare import compare, flat

router = APIRouter(include_in_schema=False)
ASKED = ("rollback", "delete")
FIELDS = 20


def _below(request: Request, realm: Realm, template: str, context: dict[str, Any]) -> Response:
    return page(template, request.app.state.frame(realm, request, vault.PAGE) | context)


@router.get("/vault/compare")
def compared(request: Request, realm: TheRealm, a: str = "current", b: str = "tip") -> Response:
    """Two checkpoints beside each other."""
    context = {"compared": compare(realm, a, b), "choices": vault_views.choices(realm), "a": a, "b": b}
    return _below(request, realm, "compare.html", context)


@router.get("/vault/{checkpoint}")
def checkpoint_page(request: Request, realm: TheRealm, checkpoint: str) -> Response:
    """All about one checkpoint."""
    found = vault_views.resolve(realm, checkpoint)
    shown = vault_views.one(realm, found)
    manifest = shown["manifest"]
    context = {
        "checkpoint": shown,
        "settings": flat(manifest.settings) if manifest else {},
        "roles": vault_keeping.roles_of(realm, found),
        "meaning": vault_views.MEANING,
        "folder": str(realm.paths.exports / found),
        "dtypes": LONG_NAMES,
        "done": vault.done(realm, request),
    }
    return _below(request, realm, "checkpoint.html", context | vault.pending(realm, request))


@router.get("/vault/{checkpoint}/{verb}")
def ask(request: Request, realm: TheRealm, checkpoint: str, verb: str) -> Response:
    """The question before what is not easily undone."""
    if verb not in ASKED:
        raise Refusal(404, "not_found", "There is nothing at this address.")
    found = vault_views.resolve(realm, checkpoint)
    context = {"checkpoint": vault_views.brief(realm, found), "verb": verb, "battle": realm.status()["battle"]}
    context |= _rollback(realm, found) if verb == "rollback" else {"until": time.time() + KEPT_SECONDS}
    return _below(request, realm, "ask.html", context)


def _rollback(realm: Realm, checkpoint: str) -> dict[str, Any]:
    """What a rollback would take back."""
    try:
        lacking = turning_back.lacking(realm.paths, realm.ledger, realm.config.hero.name, checkpoint)
    except CheckpointError as problem:
        raise Refusal(409, "not_whole", str(problem)) from None
    stems = {row["id"]: row["stem"] for row in realm.ledger.all("SELECT id, stem FROM quests")}
    tip = pointed(realm.paths.tip)
    return {
        "tip": tip,
        "steps": (vault_views.brief(realm, tip)["step"] or 0) if tip else 0,
        "lacking": [stems.get(quest, f"quest {quest}") for quest in lacking[: vault_keeping.SHOWN]],
        "more": max(0, len(lacking) - vault_keeping.SHOWN),
    }


@router.post("/vault/{checkpoint}/{verb}")
async def act_by_form(request: Request, realm: TheRealm, checkpoint: str, verb: str) -> Response:
    """A button of the pages; the note above the page that follows says what was done."""
    body = (await request.body()).decode(errors="replace")
    return await run_in_threadpool(_act, realm, checkpoint, verb, body)


def _act(realm: Realm, checkpoint: str, verb: str, body: str) -> Response:
    try:
        fields = dict(parse_qsl(body, max_num_fields=FIELDS))
    except ValueError:
        raise Refusal(400, "wrong_form", f"A form has at most {FIELDS} fields.") from None
    found, facts, _ = act(realm, checkpoint, verb, fields)
    if verb == "verify" and not facts["verified"]:
        raise Refusal(409, "not_whole", facts["problem"])
    stays = fields.get("from") == "checkpoint" and verb != "delete"
    query = urlencode({"done": verb, "of": found})
    return RedirectResponse(f"/vault/{quote(found)}?{query}" if stays else f"/vault?{query}", 303)
