"""The Tavern's API of one checkpoint: promote, roll back, pin, verify, export. Pointers are the trainer's, so it only wishes."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from core import control
from core.errors import CheckpointError, UserError, nearest
from management.vault import find, pin, problem_of, unpin
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.exports import Exports
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.openapi import refusals, shows, thing
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

router = APIRouter()
VERBS = ("promote", "rollback", "pin", "unpin", "verify", "export")


Verb = Annotated[str, Path(json_schema_extra={"enum": list(VERBS)})]
ACTED = thing("verb", "checkpoint")


@router.post(
    "/api/vault/{checkpoint}/{verb}",
    status_code=202,
    responses={200: shows(ACTED), 202: shows(ACTED, "Begun."), **refusals(404, 409)},
)
def act(request: Request, realm: TheRealm, checkpoint: str, verb: Verb) -> Response:
    """`promote`, `rollback` (202: the trainer will), `pin`, `unpin`, `verify` (200: done), `export` (202: into `exports/`)."""
    if verb not in VERBS:
        known = f"{nearest(verb, VERBS) or '.'} Known: {', '.join(VERBS)}"
        raise Refusal(404, "unknown_verb", f"There is no {verb[:40]!r}{known}")
    try:
        found = find(realm.paths, realm.ledger, checkpoint[:200])
    except UserError as problem:
        raise Refusal(404, "no_checkpoint", str(problem)) from None
    facts, status = _act(realm, request.app.state.exports, found, verb)
    realm.stale()
    return answer({"verb": verb, "checkpoint": found, **facts}, status)


def _act(realm: Realm, exports: Exports, checkpoint: str, verb: str) -> tuple[dict[str, Any], int]:
    if verb in control.POINTING:
        return {"wish": control.wish(realm.ledger, verb, checkpoint)}, 202
    if verb == "pin":
        try:
            pin(realm.paths, realm.ledger, checkpoint)
        except CheckpointError as problem:
            raise Refusal(409, "not_whole", str(problem)) from None
        return {"pinned": True}, 200
    if verb == "unpin":
        return {"pinned": unpin(realm.ledger, checkpoint)}, 200
    if verb == "verify":
        problem = problem_of(realm.paths, checkpoint)
        return {"verified": problem is None, "problem": problem}, 200
    if (realm.paths.exports / checkpoint).exists():
        raise Refusal(409, "exported_already", f"exports/{checkpoint} exists already; remove it to export anew.")
    if (folder := exports.start(checkpoint)) is None:
        raise Refusal(409, "busy", "Another export is on its way; try again when it is done.")
    return {"folder": str(folder)}, 202
