"""The stream of events (SSE): one poller reads the ledger for everybody, each client has a short queue of its own.

A client that cannot keep up is dropped and finds its place again by `Last-Event-ID`. Messages are encoded once. The
poller sleeps while nobody listens. `clock` tells the time at first and every quarter of a minute, so that a client notices
silence, as after a sleep, and knows how far its own clock is off; the first one also names the newest event.
"""

import asyncio
import logging
import time
from collections.abc import Callable

import anyio
import orjson
from anyio import to_thread
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from core.errors import RealmBusy
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.views import now

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
STATUS_TURNS = 2
PING_TURNS = 30
QUEUE_BATCHES = 64
RETRY_MILLISECONDS = 2000


def encode(kind: str, data, key: int | None = None) -> bytes:
    """One message of the stream; JSON never holds a raw line break."""
    head = f"id: {key}\nevent: {kind}\n" if key is not None else f"event: {kind}\n"
    return head.encode() + b"data: " + orjson.dumps(data) + b"\n\n"


def clock(**more: int) -> bytes:
    return encode("clock", {"time": time.time(), **more})


Batch = list[tuple[int | None, bytes]]  # messages with their event ids, if they have one


class Client:
    """One open stream: its messages, and the scope that ends it."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Batch] = asyncio.Queue(QUEUE_BATCHES)
        self.scope = anyio.CancelScope()


class Hub:
    """The shared poller. `run` lasts as long as the Tavern; `close` ends every stream at once."""

    def __init__(self, realm: Realm):
        self.realm = realm
        self.clients: set[Client] = set()
        self.closed = False
        self._wanted = asyncio.Event()
        self._last_event: int | None = None
        self._sent: dict[str, bytes] = {}

    async def run(self, sleep: Callable = asyncio.sleep) -> None:
        turn = 0
        while not self.closed:
            await self._wanted.wait()
            try:
                await self.loop(turn)
            except Exception:  # a locked or vanished ledger: the pages say so, the stream goes on when it is back
                log.exception("reading the realm for the event stream failed")
            turn += 1
            await sleep(POLL_SECONDS)

    async def loop(self, turn: int) -> None:
        """One turn: new events, and every second turn what changed in the realm."""
        batch: Batch = []
        for event in await to_thread.run_sync(self.realm.events_after, self._last_event):
            self._last_event = event["id"]
            batch.append((event["id"], encode("event", event, event["id"])))
        if turn % STATUS_TURNS == 0:
            for kind, message in (await to_thread.run_sync(self._state)).items():
                if self._sent.get(kind) != message:
                    self._sent[kind] = message
                    batch.append((None, message))
        if turn % PING_TURNS == PING_TURNS - 1:
            batch.append((None, clock()))
        if batch:
            self._publish(batch)

    def _state(self) -> dict[str, bytes]:
        status = self.realm.status()
        steady = {key: value for key, value in status.items() if key != "time"}
        steady["services"] = [
            {key: value for key, value in service.items() if key != "heartbeat_age_seconds"}
            for service in status["services"]
        ]
        return {"status": encode("status", steady), "now": encode("now", now(self.realm))}

    def _publish(self, batch: Batch) -> None:
        for client in tuple(self.clients):
            try:
                client.messages.put_nowait(batch)
            except asyncio.QueueFull:
                self.leave(client)
                client.scope.cancel()

    async def join(self, client: Client) -> None:
        """What happens from here on reaches the client's queue, so that its past can be read from the ledger now."""
        self.clients.add(client)
        client.messages.put_nowait([(None, message) for message in self._sent.values()])
        if self._last_event is None:
            newest = await to_thread.run_sync(self.realm.newest_event)
            self._last_event = newest if self._last_event is None else self._last_event
        self._wanted.set()

    def leave(self, client: Client) -> None:
        self.clients.discard(client)
        if not self.clients:
            self._wanted.clear()
            self._last_event, self._sent = None, {}

    def close(self) -> None:
        self.closed = True
        for client in tuple(self.clients):
            client.scope.cancel()


class EventStream(Response):
    """The response of `/api/events`: events after `after` from the ledger first, then everything as it happens."""

    def __init__(self, hub: Hub, after: int | None):
        super().__init__()
        self.hub, self.after = hub, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
        if self.hub.closed:
            raise RealmBusy("The Tavern is closing.")
        client = Client()
        try:
            await self.hub.join(client)
            with client.scope:
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._listen, client, receive)
                    await self._tell(client, send)
        finally:
            self.hub.leave(client)
        with anyio.move_on_after(0.1):  # a stalled client takes nothing any more; its socket is closed by the kernel
            await send({"type": "http.response.body", "body": b""})

    async def _listen(self, client: Client, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        client.scope.cancel()

    async def _tell(self, client: Client, send: Send) -> None:
        newest = await to_thread.run_sync(self.hub.realm.newest_event)
        await _write(send, f"retry: {RETRY_MILLISECONDS}\n".encode() + clock(newest=newest))
        told = None if self.after is None else min(self.after, newest)  # beyond it: of another past, before a restore
        while told is not None and (missed := await to_thread.run_sync(self.hub.realm.events_after, told)):
            await _write(send, b"".join(encode("event", event, event["id"]) for event in missed))
            told = missed[-1]["id"]
        while True:
            batch = await client.messages.get()
            if fresh := [message for key, message in batch if key is None or told is None or key > told]:
                await _write(send, b"".join(fresh))


async def _write(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
