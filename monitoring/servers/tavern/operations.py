"""What machines ask a Tavern: whether it lives, whether the realm behind it can be used, and its numbers for Prometheus."""

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4 as TEXT
from starlette.responses import Response

from monitoring.prometheus import exposition
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.openapi import refusals, shows, thing
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

router = APIRouter()


@router.get("/healthz", responses={200: shows(thing(ok={"const": True}))})
def healthz() -> Response:
    """Whether the Tavern itself is alive; it asks for nothing else."""
    return answer({"ok": True})


@router.get("/readyz", responses={200: shows(thing(ready={"const": True})), **refusals(503)})
def readyz(realm: TheRealm) -> Response:
    """Whether the realm behind the Tavern works: its ledger can be read and its daemon is alive. 503 says what is wrong."""
    if problem := _problem(realm):
        raise Refusal(503, "not_ready", problem)
    return answer({"ready": True})


def _problem(realm: Realm) -> str | None:
    try:
        services = {service["name"]: service for service in realm.status()["services"]}
    except Exception as problem:
        raise Refusal(503, "not_ready", f"The realm cannot be read: {type(problem).__name__}.") from problem
    daemon = services["daemon"]
    if daemon["state"] == "running":
        return None
    return f"The daemon is {daemon['state']}, so files in the inbox are not taken. `python -m training logs daemon` says why."


@router.get(
    "/metrics", responses={200: shows({"type": "string"}, "The numbers.", "text/plain")}, response_class=Response
)
def prometheus(realm: TheRealm) -> Response:
    """The realm's numbers in Prometheus' text format: training, queue, services, GPUs, disk, the Vault."""
    return Response(exposition(realm.status(), realm.machine(), realm.metrics.tokens(), realm.paths), media_type=TEXT)
