"""A crowd before a Tavern: clients that poll, clients that listen, clients that listen and take nothing. It judges nothing.

Plain sockets in one event loop, so that two hundred clients cost the machine little beside what is measured.
"""

import asyncio
import re
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from core.errors import RealmError

ASKED = (  # by each client in turn, as a page, a script and a dashboard would
    "/api/status",
    "/api/status",
    "/api/metrics?recent=2000&series=loss",
    "/api/status",
    "/api/jobs?limit=20",
    "/api/status",
    "/api/quests?limit=50",
    "/",
)
EVERY_SECONDS = 1.0
PATIENCE = 30.0
SMALL_BUFFER = 4096
_EVENT = re.compile(rb"^id: (\d+)$", re.MULTILINE)


@dataclass
class Crowd:
    """`took`: seconds of each answer by its path; `told`: messages that reached listeners; `torn`: events missed or doubled."""

    port: int
    pollers: int
    listeners: int
    stalled: int
    took: dict[str, list[float]] = field(default_factory=dict)
    told: int = 0
    events: int = 0
    torn: int = 0
    lost: int = 0  # connections that ended before they were to

    async def stay(self, seconds: float) -> None:
        """Come, stay, and leave all at once."""
        until = time.monotonic() + seconds
        sleepers = [await self._stall() for _ in range(self.stalled)]
        clients = [self._poll(number, until) for number in range(self.pollers)]
        clients += [self._listen(until) for _ in range(self.listeners)]
        try:
            await asyncio.gather(*clients)
        finally:
            for sleeper in sleepers:
                sleeper.close()

    async def once(self, path: str) -> bytes:
        """One answer's body, over a connection of its own."""
        reader, writer = await self._connect()
        self._ask(writer, path)
        body = await _answer(reader, path)
        await _leave(writer)
        return body

    async def _poll(self, number: int, until: float) -> None:
        await asyncio.sleep(EVERY_SECONDS * number / self.pollers)
        reader, writer = await self._connect()
        turn = number
        while time.monotonic() < until:
            path, began = ASKED[turn % len(ASKED)], time.monotonic()
            self._ask(writer, path)
            async with asyncio.timeout(PATIENCE):
                await _answer(reader, path)
            self.took.setdefault(path, []).append(time.monotonic() - began)
            turn += 1
            await asyncio.sleep(max(0.0, began + EVERY_SECONDS - time.monotonic()))
        await _leave(writer)

    async def _listen(self, until: float) -> None:
        reader, writer = await self._connect()
        self._ask(writer, "/api/events")
        last = None
        try:
            while (left := until - time.monotonic()) > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        message = await reader.readuntil(b"\n\n")
                        last = self._heard(message, last)
        except asyncio.IncompleteReadError:
            self.lost += 1
        await _leave(writer)

    def _heard(self, message: bytes, last: int | None) -> int | None:
        self.told += 1
        if not (found := _EVENT.search(message)):
            return last
        self.events += 1
        self.torn += last is not None and int(found[1]) != last + 1
        return int(found[1])

    async def _stall(self) -> socket.socket:
        """Asks for the stream and never reads what comes."""
        sleeper = socket.socket()
        sleeper.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
        sleeper.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sleeper, ("127.0.0.1", self.port))
        await asyncio.get_running_loop().sock_sendall(sleeper, self._request("/api/events"))
        return sleeper

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 22)

    def _ask(self, writer: asyncio.StreamWriter, path: str) -> None:
        writer.write(self._request(path))

    def _request(self, path: str) -> bytes:
        accept = "text/html" if path == "/" else "*/*"
        return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAccept: {accept}\r\n\r\n".encode()


async def _answer(reader: asyncio.StreamReader, path: str) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = head.split(None, 2)[1]
    if status != b"200":
        raise RealmError(f"{path} was answered with status {status.decode()}")
    return await reader.readexactly(int(re.search(rb"content-length: (\d+)", head)[1]))


async def _leave(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


def share(values: Iterable[float], part: float) -> float:
    """The value below which `part` of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
