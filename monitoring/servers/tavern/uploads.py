"""Uploads: a request's body streams into the inbox as it comes, raw or as a form; nothing is kept in memory or /tmp.

File names come from anybody: only a stem of plain letters is used, and only .jsonl is taken.
"""

import contextlib
import re
import sys
from collections.abc import AsyncIterator
from typing import Any

import anyio
from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from core.disk import Level, about, level, need
from core.inbox import drop
from core.paths import RealmPaths
from core.quest import priority_of
from core.room import Room
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

CHUNK = 1 << 20
WRITERS = anyio.CapacityLimiter(4)
FIELD_BYTES = 1024
_PLAIN = re.compile(r"[^A-Za-z0-9._-]+")


def plain_stem(name: str) -> str:
    """A safe stem for an uploaded `name`, which must be that of a .jsonl file. Raises Refusal."""
    base = re.split(r"[/\\]", name)[-1]
    stem, dot, ending = base.rpartition(".")
    if ending.lower() == "json":
        raise Refusal(
            415,
            "json_array",
            "A .json file is no quest: one JSON object a line is wanted. "
            "`python -m training quest add FILE.json` takes a JSON array.",
        )
    if not dot or ending.lower() != "jsonl":
        raise Refusal(415, "not_jsonl", f"Only .jsonl files are taken, not {base[:80]!r}.")
    stem = _PLAIN.sub("_", stem).strip("._-")[:100]
    return re.sub(r"\.bad$", "_bad", stem, flags=re.IGNORECASE) or "quest"


async def receive_quests(request: Request, realm: Realm) -> list[dict[str, Any]]:
    """Every file in the request, written into the inbox: [{name, priority, bytes}]."""
    _check_room(request, realm)
    kind, options = parse_options_header(request.headers.get("content-type"))
    try:
        if kind == b"multipart/form-data":
            return await _Form(request, realm, options.get(b"boundary", b"")).read()
        return [await _raw(request, realm)]
    except OSError as problem:
        raise Refusal(507, "no_room", f"The inbox could not take it: {problem.strerror}.") from problem


def _check_room(request: Request, realm: Realm) -> None:
    """Nothing is taken while no quest would be begun, and nothing that leaves no room for the next checkpoint."""
    length, needed = request.headers.get("content-length", "0"), need(realm.paths)
    if level(realm.paths, needed) >= Level.NOT_CLAIMING:
        raise Refusal(507, "no_room", about(realm.paths)["text"])
    if length.isascii() and length.isdigit() and not Room.of(realm.paths.root).holds(int(length) + needed):
        raise Refusal(507, "no_room", "The realm's disk has no room for this file beside the next checkpoint.")


async def _raw(request: Request, realm: Realm) -> dict[str, Any]:
    name = request.query_params.get("name", "")
    if not name:
        raise Refusal(400, "no_name", "Name the file: POST /api/quests?name=FILE.jsonl, or send a form with a file.")
    stem, priority = plain_stem(name), priority_of(request.query_params.get("priority", "normal"))
    async with dropping(realm.paths, stem, priority) as file:
        async for chunk in request.stream():
            await file.write(chunk)
        return await file.done()


class _Incoming:
    """A file on its way into the inbox. `facts`: its name there, which is known for sure at the end, priority and bytes."""

    def __init__(self, file, facts: dict[str, Any]):
        self._file, self._waiting, self.facts = file, bytearray(), facts

    async def write(self, data: bytes) -> None:
        self._waiting += data
        self.facts["bytes"] += len(data)
        if len(self._waiting) >= CHUNK:
            await self._flush()

    async def _flush(self) -> None:
        full, self._waiting = self._waiting, bytearray()
        await to_thread.run_sync(self._file.write, full, limiter=WRITERS)

    async def done(self) -> dict[str, Any]:
        await self._flush()
        if not self.facts["bytes"]:
            raise Refusal(400, "empty", f"{self.facts['name']} is empty.")
        return self.facts


@contextlib.asynccontextmanager
async def dropping(paths: RealmPaths, stem: str, priority: str) -> AsyncIterator[_Incoming]:
    """`core.inbox.drop` for a request: waits for the disk in a thread, leaves nothing behind when it is broken off."""
    facts = {"name": f"{stem}.jsonl", "priority": priority, "bytes": 0}
    manager = drop(paths, facts["name"], priority, appeared=lambda path: facts.update(name=path.name))
    file = await to_thread.run_sync(manager.__enter__, limiter=WRITERS)
    try:
        yield _Incoming(file, facts)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(manager.__exit__, *sys.exc_info(), limiter=WRITERS)
        raise
    await to_thread.run_sync(manager.__exit__, None, None, None, limiter=WRITERS)


class _Form:
    """A multipart form: small fields first, then files, each written as it streams by."""

    def __init__(self, request: Request, realm: Realm, boundary: bytes):
        self.request, self.realm, self.boundary = request, realm, boundary
        self.fields = {"priority": request.query_params.get("priority", "normal")}
        self.taken: list[dict[str, Any]] = []
        self._events: list[tuple[str, bytes]] = []
        self._header, self._headers = [b"", b""], {}
        self._field: tuple[str, bytearray] | None = None
        self._file: _Incoming | None = None

    async def read(self) -> list[dict[str, Any]]:
        try:
            parser = MultipartParser(self.boundary, self._callbacks())
            async with contextlib.AsyncExitStack() as stack:
                async for chunk in self.request.stream():
                    parser.write(chunk)
                    for event, data in self._take_events():
                        await self._on(event, data, stack)
                if self._file or self._field:
                    raise Refusal(400, "broken_form", "The form ended in the middle of a part.")
        except FormParserError as problem:
            raise Refusal(400, "broken_form", f"This is no whole multipart form: {problem}.") from None
        if not self.taken:
            raise Refusal(400, "no_file", "The form holds no file.")
        return self.taken

    def _callbacks(self) -> dict:
        def note(event: str):
            return lambda data=b"", start=0, end=0: self._events.append((event, bytes(data[start:end])))

        events = "part_begin header_field header_value header_end headers_finished part_data part_end"
        return {f"on_{event}": note(event) for event in events.split()}

    def _take_events(self) -> list[tuple[str, bytes]]:
        events, self._events = self._events, []
        return events

    async def _on(self, event: str, data: bytes, stack: contextlib.AsyncExitStack) -> None:
        if event == "part_begin":
            self._headers = {}
        elif event in ("header_field", "header_value"):
            self._header[event == "header_value"] += data
        elif event == "header_end":
            self._headers[self._header[0].lower()] = self._header[1]
            self._header = [b"", b""]
        elif event == "headers_finished":
            await self._begin(stack)
        elif event == "part_data" and self._file:
            await self._file.write(data)
        elif event == "part_data" and self._field:
            self._field[1].extend(data)
            if len(self._field[1]) > FIELD_BYTES:
                raise Refusal(413, "too_large", "A field of the form is too long.")
        elif event == "part_end":
            await self._end(stack)

    async def _begin(self, stack: contextlib.AsyncExitStack) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name, filename = options.get(b"name", b""), options.get(b"filename")
        if filename:
            stem, priority = plain_stem(filename.decode(errors="replace")), priority_of(self.fields["priority"])
            self._file = await stack.enter_async_context(dropping(self.realm.paths, stem, priority))
        elif filename is None:
            self._field = (name.decode(errors="replace"), bytearray())

    async def _end(self, stack: contextlib.AsyncExitStack) -> None:
        if self._file:
            self.taken.append(await self._file.done())
            await stack.aclose()
        elif self._field:
            name, value = self._field
            if name == "priority" and self.taken:
                raise Refusal(400, "late_priority", "The field `priority` must come before the files.")
            self.fields[name] = value.decode(errors="replace")
        self._file = self._field = None
