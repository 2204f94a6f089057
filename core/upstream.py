"""One server that speaks OpenAI's chat interface, reached with care: it may be anybody's, and may answer anything.

It is the only place that connects to where a setting says. What reaches the server is written here from nothing: three
fixed paths, our own headers, and no cookie, token or header of a visitor. No redirect is followed, no proxy of the
environment used, nothing decompressed. The name is looked up once for each connection, and the address that was checked is
the one that is connected to.
"""

import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import httpcore2
import orjson

from core.errors import RealmError

CONNECT_SECONDS = 3.0
PROBE_SECONDS = 4.0  # for all of a short answer, however it trickles
SILENT_SECONDS = 120.0  # before the first part of an answer, or between two: a long prompt takes a slow box its time
WRITE_SECONDS = 30.0
CHAT, MODELS, HEALTH = "/v1/chat/completions", "/v1/models", "/health"
STREAM_BYTES, WHOLE_BYTES, LIST_BYTES, PROBLEM_BYTES = 16 << 20, 16 << 20, 1 << 20, 64 << 10
CONNECTIONS = 64
HOP = "x-realm-hop"  # on what one Tavern asks of a box, which may be another Tavern, but must not ask a third
METADATA = frozenset(map(ipaddress.ip_address, ("100.100.100.200", "fd00:ec2::254", "168.63.129.16")))
_EMBEDDED = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "2002::/16")))  # IPv6 that leads to IPv4
_LOST = (
    httpcore2.NetworkError,
    httpcore2.TimeoutException,
    httpcore2.ProtocolError,
    httpcore2.ProxyError,
    httpcore2.UnsupportedProtocol,
    OSError,
    ssl.SSLError,
)


class UpstreamProblem(RealmError):
    """The server did not answer as it should. `code` is for programs; `again`: whether trying once more may help."""

    def __init__(self, code: str, text: str, status: int = 502, again: bool = False):
        super().__init__(text)
        self.code, self.status, self.again = code, status, again


def refusal(address: str) -> str | None:
    """Why `address` must not be connected to, None where it may: a box in the same house or machine is what is meant."""
    found: Any = ipaddress.ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if any(found in network for network in _EMBEDDED if network.version == found.version):
        return "it hides another address"
    if found in METADATA or found.is_link_local:
        return "it is link-local, where clouds keep their secrets"
    if found.is_multicast or found.is_unspecified or (found.is_reserved and not found.is_loopback):
        return "it is no address of a server"
    return None


class CheckedBackend(httpcore2.AnyIOBackend):
    """Connects to an address that was looked at, and to no other."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            with anyio.fail_after(timeout):
                found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError, TimeoutError) as problem:
            raise httpcore2.ConnectError(f"{host} has no address") from problem
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            if why := refusal(address):
                raise UpstreamProblem("address_refused", f"{host} leads to {address}, which is refused: {why}.", 503)
        for address in addresses[:-1]:  # a box that listens on 127.0.0.1 only is `localhost`, too
            with suppress(httpcore2.ConnectError, httpcore2.ConnectTimeout):
                return await super().connect_tcp(address, port, timeout, local_address, socket_options)
        return await super().connect_tcp(addresses[-1], port, timeout, local_address, socket_options)


class Upstream:
    """The server at `url` (checked by core/oracle_config.py), called `name` in messages; `key` is sent as its bearer token.

    `setting`, `key_file`: where its URL and its key are written down; `silent`: seconds before the first part of an answer,
    or between two; `hop`: whether it is asked for somebody else.
    """

    def __init__(
        self,
        url: str,
        name: str,
        key: str | None = None,
        setting: str = "oracle.url",
        key_file: str = "state/oracle.key",
        silent: float = SILENT_SECONDS,
        hop: bool = True,
    ):
        self.url, self.name = url, name
        self._setting, self._key_file, self._silent = setting, key_file, silent
        self._own = {"user-agent": "realm"} | ({HOP: "1"} if hop else {}) | _bearer(key)
        self._pool = httpcore2.AsyncConnectionPool(
            max_connections=CONNECTIONS, keepalive_expiry=15.0, network_backend=CheckedBackend()
        )

    async def close(self) -> None:
        await self._pool.aclose()

    async def healthy(self) -> bool:
        """Whether `/health` says yes; a server without one (Ollama) is asked for its models by `models`."""
        async with self._asked("GET", HEALTH, most=PROBE_SECONDS) as response:
            return response.status in (200, 204, 404, 405)

    async def models(self) -> list[dict[str, Any]]:
        """What it lists at /v1/models, as far as that has names. Raises UpstreamProblem."""
        async with self._asked("GET", MODELS, most=PROBE_SECONDS) as response:
            values = self._object(await self._read(response, LIST_BYTES), response)
        listed = values.get("data") if isinstance(values.get("data"), list) else []
        return [one for one in listed if isinstance(one, dict) and isinstance(one.get("id"), str) and one["id"]]

    async def complete(
        self, request: dict[str, Any], most: int = WHOLE_BYTES, seconds: float | None = None
    ) -> dict[str, Any]:
        """The whole answer to a request, of `most` bytes, in so many `seconds`. Raises UpstreamProblem."""
        async with self._asked("POST", CHAT, request, seconds) as response:
            return self._object(await self._read(response, most), response)

    @asynccontextmanager
    async def stream(self, request: dict[str, Any]) -> AsyncIterator[AsyncIterator[bytes]]:
        """The parts of an answer as they come, unchanged. Raises UpstreamProblem, also from within the parts."""
        async with self._asked("POST", CHAT, request) as response:
            await self._expect_good(response)
            kind = _header(response, b"content-type").partition(";")[0].strip().lower()
            if kind != "text/event-stream":
                raise UpstreamProblem(
                    "no_stream", f"{self.name} answered with {kind[:40] or 'no type'!r}, not a stream."
                )
            yield self._parts(response, STREAM_BYTES)

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, request: dict[str, Any] | None = None, most: float | None = None
    ) -> AsyncIterator[httpcore2.Response]:
        """`most`: seconds that all of it may take."""
        headers = {"accept": "application/json, text/event-stream", "accept-encoding": "identity"}
        headers |= self._own
        body = None
        if request is not None:
            headers["content-type"], body = "application/json", orjson.dumps(request)
        limits = {"connect": CONNECT_SECONDS, "read": self._silent, "write": WRITE_SECONDS, "pool": CONNECT_SECONDS}
        try:
            with anyio.fail_after(most):
                async with self._pool.stream(
                    method, self.url + path, headers=headers, content=body, extensions={"timeout": limits}
                ) as response:
                    yield response
        except _LOST as problem:
            raise self._lost(problem) from problem

    def _lost(self, problem: Exception) -> UpstreamProblem:
        if isinstance(problem, httpcore2.ConnectError | httpcore2.ConnectTimeout):
            return UpstreamProblem("oracle_down", f"{self.name} at {self.url} cannot be reached.", 503, again=True)
        if isinstance(problem, httpcore2.PoolTimeout):
            return UpstreamProblem(
                "oracle_busy", f"{CONNECTIONS} answers of {self.name} are on their way already.", 503
            )
        if isinstance(problem, httpcore2.TimeoutException | TimeoutError):
            return UpstreamProblem("oracle_silent", f"{self.name} at {self.url} has fallen silent.", 504)
        return UpstreamProblem("oracle_lost", f"The connection to {self.name} at {self.url} broke.", 502, again=True)

    async def _parts(self, response: httpcore2.Response, most: int) -> AsyncIterator[bytes]:
        if _header(response, b"content-encoding") not in ("", "identity"):
            raise UpstreamProblem("compressed", f"{self.name} compressed its answer, which it was not asked to do.")
        count = 0
        async for part in response.aiter_stream():
            count += len(part)
            if count > most:
                raise UpstreamProblem(
                    "too_large", f"The answer of {self.name} has more than {most:,} bytes and is cut off."
                )
            yield part

    async def _read(self, response: httpcore2.Response, most: int) -> bytes:
        await self._expect_good(response)
        return b"".join([part async for part in self._parts(response, most)])

    def _object(self, body: bytes, response: httpcore2.Response) -> dict[str, Any]:
        try:
            values = orjson.loads(body)
        except orjson.JSONDecodeError:
            values = None
        if not isinstance(values, dict):
            raise UpstreamProblem(
                "no_json", f"What {self.name} answered is no JSON object; is {self.url} the right address?"
            )
        return values

    async def _expect_good(self, response: httpcore2.Response) -> None:
        """Raise UpstreamProblem for any status but 200, with the server's own reason where it gives a short one."""
        status = response.status
        if status == 200:
            return
        if 300 <= status < 400:
            raise UpstreamProblem(
                "redirect", f"{self.name} wants to lead elsewhere, which is not followed; mend {self._setting}."
            )
        if status in (401, 403):
            raise UpstreamProblem("key_needed", f"{self.name} asks for its key: put it into {self._key_file}.")
        reason = _reason(b"".join([part async for part in self._parts(response, PROBLEM_BYTES)]))
        said = f"{self.name} answered {status}{f': {reason}' if reason else ''}"
        if status in (502, 503, 504):
            raise UpstreamProblem("oracle_down", said, 503, again=True)
        if 400 <= status < 500:
            raise UpstreamProblem("upstream_refused", said, 404 if status == 404 else 429 if status == 429 else 400)
        raise UpstreamProblem("upstream_failed", said)


def _bearer(key: str | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"} if key else {}


def _header(response: httpcore2.Response, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in response.headers if key.lower() == name), "")


def _reason(body: bytes) -> str:
    """What OpenAI's or FastAPI's form of an error says, at most a line of it."""
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError:
        return ""
    told = values.get("error", values.get("detail", values.get("message", ""))) if isinstance(values, dict) else ""
    told = told.get("message", "") if isinstance(told, dict) else told
    return " ".join(str(told).split())[:300]
