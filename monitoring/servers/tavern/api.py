"""The Tavern's API: JSON in the shapes of `status --json` and its siblings, uploads, wishes, the stream of events."""

import os
import signal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from starlette.responses import Response

from core import control
from core.errors import nearest
from core.paths import PRIORITIES
from core.status import quest_in_battle, service_states
from core.steps import KEPT_OF_QUEST, KEPT_PREVIEWS, SERIES, read_previews
from core.training_queue import TrainingQueue
from monitoring.servers.tavern import boards, vault_views, work
from monitoring.servers.tavern.events import EventStream
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.openapi import many, refusals, shows, thing
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.uploads import receive_quests
from monitoring.servers.tavern.work import Kind, State

router = APIRouter()
CONTROLS = ("pause", "resume", "skip", "stop")
WHOLE = Query(ge=0, lt=1 << 62)
OBJECT, NUMBER, TEXT = {"type": "object"}, {"type": "integer"}, {"type": "string"}
HERO = thing("name", "model", "parameters", "xp", "title", global_step=NUMBER, level=NUMBER)
STATUS = thing("battle", "time", hero=HERO, queue=OBJECT, services=many(OBJECT), disk=OBJECT, gpus=many(OBJECT),
               alerts=many(thing("code", "text", "since")), state=TEXT)  # fmt: skip
QUEST = thing("stem", "state", "priority", "rows", "reason", id=NUMBER)
JOB = thing("kind", "quest", "state", "started", "finished", "seconds", id=TEXT)
CHECKPOINT = thing(
    "state", "parent", "quest", "verified", "champion", "pinned", "bytes", "created", id=TEXT, step=NUMBER
)
CURVES = thing("first", "last", "quests", "series", "validation_steps", "validation", width=NUMBER)
LOOK = thing("quest", "step", "time", "answers")
FILE_NAME = {"type": "string", "pattern": r"\.[jJ][sS][oO][nN][lL]$"}
UPLOAD = {
    "parameters": [
        {"name": "name", "in": "query", "schema": FILE_NAME, "description": "FILE.jsonl; for a raw body."},
        {"name": "priority", "in": "query", "schema": {"enum": list(PRIORITIES), "default": "normal"}},
    ],
    "requestBody": {
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "priority": {"enum": list(PRIORITIES)},
                        "file": {"type": "string", "format": "binary"},
                    },
                }
            },
        },
    },
}
STREAM = {
    "parameters": [
        {"name": "Last-Event-ID", "in": "header", "schema": TEXT, "description": "The newest event that was seen."}
    ]
}


def realm_of(request: Request) -> Realm:
    return request.app.state.realm


TheRealm = Annotated[Realm, Depends(realm_of)]


@router.get("/api/status", responses={200: shows(STATUS)})
def status(realm: TheRealm) -> Response:
    """The realm now, as `status --json` says it."""
    return answer(realm.status())


@router.get("/api/hero", responses={200: shows(HERO)})
def hero(realm: TheRealm) -> Response:
    """The hero, and the checkpoint that `models/current_model` leads to."""
    return answer(realm.status()["hero"] | {"current_model": realm.status()["current_model"]})


@router.get("/api/quests", responses={200: shows(many(QUEST), one_quest_quest="0/id", metrics_quest="0/id")})
def quests(
    realm: TheRealm,
    state: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[int | None, WHOLE] = None,
) -> Response:
    """Quests from the ledger, newest first. `before`: only those with a smaller id."""
    where, values = ("AND state=? ", [state]) if state else ("", [])
    return answer(
        realm.ledger.all(
            f"SELECT * FROM quests WHERE id < ? {where}ORDER BY id DESC LIMIT ?",
            [1 << 62 if before is None else before, *values, limit],
        )
    )


@router.get("/api/quests/{quest}", responses={200: shows(QUEST), **refusals(404)})
def one_quest(realm: TheRealm, quest: int) -> Response:
    """One quest with its report, if it still lies in a folder."""
    row = realm.ledger.one("SELECT * FROM quests WHERE id=?", (quest,)) if 0 <= quest < 1 << 62 else None
    if row is None:
        raise Refusal(404, "no_quest", f"There is no quest {quest}.")
    return answer(row | {"report": boards.report_of(realm.paths, row)})


@router.get(
    "/api/jobs",
    responses={200: shows(many(JOB), one_job_job="0/id", jobs_before="0/id"), **refusals(404)},
)
def jobs(
    realm: TheRealm,
    kind: Kind | None = None,
    state: State | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    before: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """Every piece of work, newest first; evaluations only where they are asked for. `before`: only those older than this id."""
    return answer(work.pieces(realm, kind, state, limit, before))


@router.get("/api/jobs/{job}", responses={200: shows(JOB), **refusals(404)})
def one_job(realm: TheRealm, job: str) -> Response:
    """One piece of work, and the events of its time."""
    piece = work.piece(realm, job)
    return answer(piece | {"events": work.log(realm, piece)})


@router.get("/api/vault", responses={200: shows(many(CHECKPOINT), act_checkpoint="0/id")})
def vault(realm: TheRealm) -> Response:
    """Checkpoints, as `vault list --json` says it."""
    return answer(vault_views.vault(realm))


@router.get("/api/metrics", responses={200: shows(CURVES)})
def metrics(
    realm: TheRealm,
    first: Annotated[int | None, WHOLE] = None,
    last: Annotated[int | None, WHOLE] = None,
    recent: Annotated[int | None, Query(ge=1, lt=1 << 62)] = None,
    quest: Annotated[int | None, WHOLE] = None,
    buckets: Annotated[int, Query(ge=10, le=2000)] = 240,
    series: str | None = None,
) -> Response:
    """Curves over steps in at most `buckets` buckets, each with minimum, maximum, mean and a smoothed value.

    `series`: only these, with commas between; the held-out losses always come along. Values have six digits.
    """
    wanted = tuple(SERIES) if series is None else tuple(series.split(","))
    if unknown := [name for name in wanted if name not in SERIES]:
        known = f"{nearest(unknown[0], SERIES) or '.'} Known: {', '.join(SERIES)}"
        raise Refusal(422, "unknown_series", f"There is no series {unknown[0][:40]!r}{known}")
    return answer(realm.metrics.curves(first, last, recent, quest, buckets, wanted).rounded())


@router.get("/api/machine")
def machine(realm: TheRealm) -> Response:
    """How busy this machine was: a sample every five seconds for an hour, kept in the Tavern's memory."""
    return answer(realm.history.told())


@router.get("/api/previews", responses={200: shows(many(LOOK))})
def previews(
    realm: TheRealm,
    quest: Annotated[int | None, WHOLE] = None,
    limit: Annotated[int, Query(ge=1, le=KEPT_PREVIEWS)] = KEPT_OF_QUEST,
) -> Response:
    """The hero's answers to a few held-out prompts beside the expected ones, newest first: of one quest or of all."""
    return answer(read_previews(realm.paths.metrics, quest, limit))


@router.get(
    "/api/events",
    responses={200: shows(TEXT, "The stream.", "text/event-stream")},
    openapi_extra=STREAM,
    response_class=Response,
)
async def events(request: Request, after: Annotated[int | None, WHOLE] = None) -> Response:
    """Server-sent events: `event` (its id honours Last-Event-ID), `status`, `now`, the words of the pages, and `clock`."""
    given = request.headers.get("last-event-id", "")
    seen = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else after
    return EventStream(request.app.state.hub, seen)


@router.post(
    "/api/quests",
    status_code=201,
    responses={201: shows(thing(accepted=many(thing("name", "priority", "bytes")))), **refusals(415)},
    openapi_extra=UPLOAD,
)
async def upload(request: Request, realm: TheRealm) -> Response:
    """A .jsonl for the inbox: the raw body with `?name=FILE.jsonl&priority=high|normal|low`, or a multipart form."""
    return answer({"accepted": await receive_quests(request, realm)}, 201)


@router.post("/api/control/{verb}", status_code=202, responses={202: shows(thing(verb=TEXT)), **refusals(404, 409)})
def command(realm: TheRealm, verb: Annotated[str, Path(json_schema_extra={"enum": list(CONTROLS)})]) -> Response:
    """Pause, resume or skip (a wish that the trainer carries out between two steps), or stop the realm."""
    return answer(carry_out(realm, verb), 202)


def carry_out(realm: Realm, verb: str) -> dict[str, Any]:
    if verb not in CONTROLS:
        known = f"{nearest(verb, CONTROLS) or '.'} Known: {', '.join(CONTROLS)}"
        raise Refusal(404, "unknown_verb", f"There is no {verb[:40]!r}{known}")
    if verb == "stop":
        return {"verb": verb, "pid": _stop(realm)}
    quest = quest_in_battle(realm.paths, TrainingQueue(realm.paths, realm.ledger)) if verb == "skip" else None
    wish = control.wish(realm.ledger, verb, None if quest is None else str(quest))
    realm.stale()
    return {"verb": verb, "wish": wish}


def _stop(realm: Realm) -> int:
    """Ask the supervisor to stop everything; `service_states` names a pid only where that very process lives."""
    watchdog = next(service for service in service_states(realm.paths) if service["name"] == "watchdog")
    if watchdog["pid"] is None:
        raise Refusal(409, "no_supervisor", "No supervisor is running here, so there is nothing to stop.")
    os.kill(watchdog["pid"], signal.SIGTERM)
    return watchdog["pid"]
