"""The Tavern's API of one checkpoint; what its verbs do is vault_acts'."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.vault_acts import act

router = APIRouter()


@router.post("/api/vault/{checkpoint}/{verb}", status_code=202)
def act_on_checkpoint(request: Request, realm: TheRealm, checkpoint: str, verb: str) -> Response:
    """202, wished: `promote`, `rollback?again=true`, `export?cooldown=auto&dtype=bf16`; 200, done: the other verbs.

    Those are `pin`, `unpin`, `verify`, `delete`, `undelete`, `tag?name=NAME` and `untag?name=NAME`.
    """
    found, facts, status = act(realm, checkpoint, verb, request.query_params)
    return answer({"verb": verb, "checkpoint": found, **facts}, status)
