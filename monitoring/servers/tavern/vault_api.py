"""The Tavern's API of one checkpoint; what its verbs do is vault_acts'."""

from typing import Annotated

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from monitoring.servers.tavern import vault_acts
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.openapi import refusals, shows, thing

router = APIRouter()
Verb = Annotated[str, Path(json_schema_extra={"enum": list(vault_acts.VERBS)})]
ACTED = thing("verb", "checkpoint")


@router.post(
    "/api/vault/{checkpoint}/{verb}",
    status_code=202,
    responses={200: shows(ACTED), 202: shows(ACTED, "Begun."), **refusals(404, 409)},
)
def act(request: Request, realm: TheRealm, checkpoint: str, verb: Verb) -> Response:
    """202, wished: `promote`, `rollback?again=true`, `export?cooldown=auto&dtype=bf16`; 200, done: the other verbs.

    Those are `pin`, `unpin`, `verify`, `delete`, `undelete`, `tag?name=NAME` and `untag?name=NAME`.
    """
    found, facts, status = vault_acts.act(realm, checkpoint, verb, request.query_params)
    return answer({"verb": verb, "checkpoint": found, **facts}, status)
