"""The local Oracle as an ASGI application: health, models, chat. It knows no torch; what loads and answers is handed in.

One piece of work is done at a time, and who waits gets his turn after it: two answers grow side by side on one core, and
others wait for their end. Whoever leaves is not answered any further.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope, Send

from core import chat_reply
from core.answer_memory import AT_ONCE
from core.chat_reply import Part, Piece
from core.chat_request import ChatRequest, json_object, read_request
from core.errors import CheckpointError, NotFinite, RealmBusy, RealmError, UserError
from management.model_shelf import Shelf, UnknownModel
from monitoring.servers.tavern.html import answer, problem_response
from monitoring.servers.tavern.security import Door, Rules
from monitoring.servers.until_gone import UntilGone

MOST_WAITING = 16  # answers at a time; more are turned away
PROBLEMS = (  # the first kind that fits: status and code
    (UnknownModel, 404, "model_not_found"),
    (UserError, 400, "wrong_request"),
    (NotFinite, 409, "not_finite"),
    (CheckpointError, 409, "not_whole"),
    (RealmBusy, 503, "busy"),
    (RealmError, 500, "failed"),
)


class Answer(Protocol):
    """`core.forge.voice.Answer`"""

    prompt_tokens: int
    tokens: int
    most: int

    def step(self) -> int | None: ...


class Voices(Protocol):
    """`core.forge.voices.Voices`"""

    loaded: tuple[str, ...]

    def load(self, key: str, folder: Path, check: Callable[[str], None]) -> Any: ...

    def using(self, key: str) -> AbstractContextManager[None]: ...


class Oracle:
    """Answers requests, one step at a time. `busy`: how many are being answered; `last`: when the last one was, monotonic."""

    def __init__(self, shelf: Shelf, voices: Voices):
        self.shelf, self.voices = shelf, voices
        self.busy, self.last = 0, time.monotonic()
        self._places, self._turn = asyncio.Semaphore(AT_ONCE), asyncio.Lock()  # first come, first served

    async def parts(self, asked: ChatRequest, facts: dict[str, Any]) -> AsyncIterator[Part]:
        """The answer, part by part as they become certain; `facts` gets `finish` and `usage` at its end."""
        key, folder = await to_thread.run_sync(self.shelf.find, asked.model)
        async with self._places:
            with self.voices.using(key):
                async with self._turn:
                    voice = await to_thread.run_sync(self.voices.load, key, folder, self.shelf.check)
                reply = await to_thread.run_sync(voice.answer, asked)
                text = voice.text(asked)
                while reply.tokens < reply.most and not text.ended:
                    async with self._turn:
                        token = await to_thread.run_sync(reply.step)
                    for part in text.feed(token) if token is not None else ():
                        yield part
                for part in text.end():
                    yield part
        read, said = reply.prompt_tokens, reply.tokens
        usage = {"prompt_tokens": read, "completion_tokens": said, "total_tokens": read + said}
        facts.update(finish=text.finish, usage=usage)


def create_app(shelf: Shelf, voices: Voices, rules: Rules) -> Starlette:
    """The local Oracle, as an ASGI application behind the Tavern's door."""
    routes = [
        Route("/health", _health),
        Route("/v1/models", _models),
        Route("/v1/chat/completions", _chat, methods=["POST"]),
    ]
    app = Starlette(routes=routes)
    app.state.oracle = Oracle(shelf, voices)
    app.add_middleware(Door, rules=rules)
    return app


async def _health(request: Request) -> Response:
    oracle = request.app.state.oracle
    return answer({"ok": True, "busy": oracle.busy, "loaded": oracle.voices.loaded})


async def _models(request: Request) -> Response:
    models = await to_thread.run_sync(request.app.state.oracle.shelf.models)
    return answer({"object": "list", "data": [model.facts() for model in models]})


async def _chat(request: Request) -> Response:
    oracle: Oracle = request.app.state.oracle
    body = await request.body()
    try:
        asked = read_request(json_object(body))
    except UserError as problem:
        return problem_response(request.scope, 400, "wrong_request", str(problem))
    if oracle.busy >= MOST_WAITING:
        return problem_response(
            request.scope, 503, "busy", f"The Oracle is answering {MOST_WAITING} others; try again soon."
        )
    return UntilGone(partial(_reply, oracle, asked))


async def _reply(oracle: Oracle, asked: ChatRequest, scope: Scope, send: Send) -> None:
    oracle.busy += 1
    reply = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": asked.model}
    facts: dict[str, Any] = {}
    begun = False
    async with aclosing(oracle.parts(asked, facts)) as parts:
        try:
            first = await anext(parts, Piece(""))
            if asked.stream:
                begun = True
                await _begin(send, reply, first)
                async for part in parts:
                    await _write(send, chat_reply.chunk(reply, chat_reply.delta(part)))
                await _end(send, reply, facts, asked.usage)
            else:
                said = [first, *[part async for part in parts]]
                whole = chat_reply.completion(reply, said, facts["finish"], facts["usage"])
                await answer(whole)(scope, None, send)
        except RealmError as problem:
            status, code = next((status, code) for kind, status, code in PROBLEMS if isinstance(problem, kind))
            if begun:
                await _write(send, chat_reply.error_event(code, str(problem)), more=False)
            else:
                await problem_response(scope, status, code, str(problem))(scope, None, send)
        finally:
            oracle.busy -= 1
            oracle.last = time.monotonic()


async def _begin(send: Send, reply: dict[str, Any], first: Part) -> None:
    headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    opening = {"role": "assistant", **chat_reply.delta(first)}
    await _write(send, chat_reply.chunk(reply, opening))


async def _end(send: Send, reply: dict[str, Any], facts: dict[str, Any], with_usage: bool) -> None:
    last = chat_reply.chunk(reply, {}, facts["finish"])
    if with_usage:
        last += chat_reply.event(reply | {"object": "chat.completion.chunk", "choices": [], "usage": facts["usage"]})
    await _write(send, last + chat_reply.DONE, more=False)


async def _write(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
