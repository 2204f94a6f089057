"""The Tavern's side of the Oracle: OpenAI's chat interface, passed on, and what there is to know about who answers."""

from collections.abc import AsyncIterator
from functools import partial
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Depends, Request
from starlette.responses import FileResponse, Response
from starlette.types import Scope, Send

from core import chat_reply
from core.chat_request import json_object, model_of
from core.checkpoints import Manifest, read
from core.errors import CheckpointError, RealmError, UserError
from core.upstream import HOP, UpstreamProblem
from management.model_shelf import UnknownModel, VaultShelf
from management.weight_sync import offer
from monitoring.oracle import Oracle, Route
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import answer, problem_response
from monitoring.servers.tavern.openapi import TALK, refusals, shows, streamed
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.until_gone import UntilGone

router = APIRouter()
WEIGHTS, BYTES = "application/octet-stream", {"type": "string", "format": "binary"}
RETRY_SECONDS = (0.2, 0.6)  # before each new try, as long as nothing of an answer has been passed on


def oracle_of(request: Request) -> Oracle:
    return request.app.state.oracle


TheOracle = Annotated[Oracle, Depends(oracle_of)]


@router.get("/api/oracle")
async def state(oracle: TheOracle) -> Response:
    """Who answers, whether it is up, why not, and whether it speaks with the hero's weights."""
    return answer(await oracle.state())


@router.post("/api/oracle/wake", status_code=202, responses=refusals(502, 504))
async def wake(oracle: TheOracle) -> Response:
    """Have the local Oracle started, so that the first answer comes sooner; nothing to do where a box answers."""
    if oracle.remote is None:
        try:
            await oracle.local.wake()
        except UpstreamProblem as problem:
            raise Refusal(problem.status, problem.code, str(problem)) from None
    return answer(await oracle.state(), 202)


@router.get("/v1/models")
async def models(oracle: TheOracle) -> Response:
    """hero, champion, every checkpoint by its id; with a box of its own, that one's models, too."""
    return answer({"object": "list", "data": await oracle.models()})


@router.post("/v1/chat/completions", responses=streamed(), openapi_extra=TALK)
async def chat(request: Request, oracle: TheOracle) -> Response:
    """OpenAI's chat completions, whole or as a stream; whoever closes the connection ends the answer. Headers say who answers:
    x-oracle-by (local, remote), -model, -checkpoint, and -notice where these are not the weights that were asked for."""
    values = json_object(await request.body())
    model_of(values)
    if not isinstance(values.get("stream", False), bool | None):
        raise UserError("stream: must be true or false")
    if HOP in request.headers and oracle.remote is not None:
        raise Refusal(
            508, "loop", "A Tavern asks this one, which would ask a box again; name the box itself in oracle.url."
        )
    return UntilGone(partial(relay, oracle, values))


@router.get("/api/oracle/weights/{checkpoint}", responses=refusals(404, 409))
def weights(realm: TheRealm, checkpoint: str) -> Response:
    """The files of `champion`, `hero` or a checkpoint that another machine needs to answer with it, with their SHA-256."""
    return answer(offer(_manifest(realm, checkpoint)))


@router.get(
    "/api/oracle/weights/{checkpoint}/{name}",
    responses={
        200: shows(BYTES, "The file.", WEIGHTS),
        206: shows(BYTES, "A part of it.", WEIGHTS),
        **refusals(404, 409),
    },
    response_class=Response,
)
def weight_file(realm: TheRealm, checkpoint: str, name: str) -> Response:
    """One of those files, or the part of it that a Range asks for."""
    manifest = _manifest(realm, checkpoint)
    if name not in offer(manifest)["files"]:
        raise Refusal(404, "no_file", "The manifest of that checkpoint names no such file.")
    path = realm.paths.vault / manifest.id / name
    if path.is_symlink() or not path.is_file():
        raise Refusal(409, "not_whole", f"{name} of {manifest.id} is missing; `vault verify` says more.")
    return FileResponse(path, media_type=WEIGHTS)


def _manifest(realm: Realm, name: str) -> Manifest:
    try:
        return read(VaultShelf(realm.paths).find(name)[1])
    except UnknownModel as problem:
        raise Refusal(404, "no_checkpoint", str(problem)) from None
    except CheckpointError as problem:
        raise Refusal(409, "not_whole", str(problem)) from None


async def relay(oracle: Oracle, values: dict[str, Any], scope: Scope, send: Send) -> None:
    """The answer, or the reason why there is none: as JSON before it has begun, inside the stream afterwards."""
    told = _Told(send)
    try:
        with anyio.fail_after(oracle.seconds):
            await _try(oracle, values, told)
        return
    except TimeoutError:
        status, code, text = 504, "too_long", f"The answer took more than {oracle.seconds:.0f} s (oracle.seconds)."
    except UnknownModel as problem:
        status, code, text = 404, "model_not_found", str(problem)
    except UpstreamProblem as problem:
        status, code, text = problem.status, problem.code, str(problem)
    except RealmError as problem:
        status, code, text = 400, "wrong_request", str(problem)
    if told.begun:
        await told.end(chat_reply.error_event(code, text))
    else:
        await problem_response(scope, status, code, text)(scope, None, send)


class _Told:
    """What has been sent to the visitor."""

    def __init__(self, send: Send):
        self._send, self.begun = send, False

    async def begin(self, route: Route, kind: str) -> None:
        self.begun = True
        headers = [(b"content-type", kind.encode()), (b"x-accel-buffering", b"no"), *_about(route)]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})

    async def part(self, body: bytes) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": body})


async def _try(oracle: Oracle, values: dict[str, Any], told: _Told) -> None:
    for pause in (*RETRY_SECONDS, None):
        try:
            route = await oracle.route(model_of(values))
            request = values | {"model": route.model}
            if values.get("stream"):
                async with route.upstream.stream(request) as parts:
                    await _pass_on(route, parts, told)
            else:
                whole = await route.upstream.complete(request)
                await told.begin(route, "application/json")
                await told.end(answer(whole).body)
            return
        except UpstreamProblem as problem:
            if told.begun or not problem.again or pause is None:
                raise
            await anyio.sleep(pause)


async def _pass_on(route: Route, parts: AsyncIterator[bytes], told: _Told) -> None:
    async for part in parts:
        if not told.begun:
            await told.begin(route, "text/event-stream; charset=utf-8")
        await told.part(part)
    if not told.begun:
        raise UpstreamProblem("oracle_lost", f"{route.upstream.name} ended its answer before it began.", again=True)
    await told.end()


def _about(route: Route) -> list[tuple[bytes, bytes]]:
    """Headers that say who answers."""
    facts = {"by": route.kind, "model": route.model, "checkpoint": route.checkpoint, "notice": route.notice}
    return [
        (f"x-oracle-{name}".encode(), "".join(letter if " " <= letter <= "~" else "?" for letter in value).encode())
        for name, value in facts.items()
        if value
    ]
