"""The door of the Tavern: who may come in, from where, with how much. It knows nothing about what lies behind it.

Everything is refused that is not expressly allowed: a foreign Host (DNS rebinding), a request made by another site
(CSRF), a missing token where one is asked for, a body, head or range above its limit. Decisions use the raw request, never
a URL built from headers. Who takes too long over a request is guard.py's affair.
"""

import ipaddress
import logging
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from core.config import Tavern
from core.errors import UserError
from core.paths import RealmPaths
from monitoring.servers.tavern.html import problem_response

log = logging.getLogger(__name__)

OTHER_BODIES = 1 << 20
TARGET_BYTES = 8 << 10
HEADER_BYTES, HEADERS_AT_MOST = 32 << 10, 100
LENGTH_DIGITS = 18  # of Content-Length; Python refuses to read thousands of them
RANGES = 4  # of one request for a file; each would be read and sent by itself
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANY_ADDRESS = frozenset({"0.0.0.0", "::", ""})
STATIC = Path(__file__).parent / "static"
PUBLIC = frozenset({"/login", "/healthz", *(f"/static/{file.name}" for file in STATIC.iterdir())})
PROTECTION = {
    name.encode(): value.encode()
    for name, value in {
        "content-security-policy": "default-src 'self'; base-uri 'none'; object-src 'none'; form-action 'self'; "
        "frame-ancestors 'none'",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "cross-origin-opener-policy": "same-origin",
        "referrer-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "x-dns-prefetch-control": "off",
        "cache-control": "no-store",
    }.items()
}


def read_or_make_token(paths: RealmPaths) -> str:
    """The realm's token (256 bits), made at first use and readable by its owner only."""
    if not paths.token.exists():
        paths.token.parent.mkdir(parents=True, exist_ok=True)
        beside = paths.token.with_name(f".token.{secrets.token_hex(4)}")
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, paths.token)
        except FileExistsError:  # another process was first
            pass
        finally:
            beside.unlink()
    paths.token.chmod(0o600)
    token = paths.token.read_text().strip()
    if len(token) < 22:
        raise UserError(f"{paths.token}: holds no token of 128 bits or more; delete the file and a new one is made")
    return token


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Refusal(Exception):
    """A request that goes no further."""

    def __init__(self, status: int, code: str, text: str):
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


@dataclass(frozen=True)
class Rules:
    """What the door asks for. `uploads`: paths whose POST bodies may have `upload_bytes`."""

    hosts: frozenset[str]
    any_address: bool
    token: str
    token_required: bool
    cookie: str
    upload_bytes: int
    uploads: frozenset[str] = frozenset()

    @classmethod
    def of(cls, tavern: Tavern, token: str, uploads: frozenset[str]) -> "Rules":
        hosts = LOOPBACK | {name.lower() for name in (*tavern.hosts, tavern.host)} - ANY_ADDRESS
        return cls(
            hosts,
            tavern.host in ANY_ADDRESS,
            token,
            tavern.require_token or not is_loopback(tavern.host),
            f"realm_{tavern.port}",
            tavern.upload_bytes,
            uploads,
        )

    def check_host(self, headers: dict[str, list[str]]) -> None:
        given = headers.get("host", [])
        name = _host_name(given[0]) if len(given) == 1 else None
        if name is None or not (name in self.hosts or (self.any_address and _is_address(name))):
            raise Refusal(400, "wrong_host", "This is no name of this Tavern; config.json can add one in tavern.hosts.")

    def check_token(self, scope: Scope, headers: dict[str, list[str]]) -> bool:
        """Whether the right bearer token is there; a wrong one is refused, and a missing one where it is needed.

        OpenAI's clients cannot do without a key and send any: where none is asked for, theirs counts as none.
        """
        bearer = self._bearer(headers)
        if bearer and not self.token_required and scope["path"].startswith("/v1/") and not self.is_token(bearer):
            bearer = None
        if bearer is not None and not self.is_token(bearer):
            raise Refusal(401, "wrong_token", "The token is wrong. It stands in the realm's state/token.")
        known = bearer is not None or self.is_token(self._from_cookie(headers))
        if self.token_required and not known and scope["path"] not in PUBLIC:
            raise Refusal(401, "token_needed", "This Tavern asks for the token; it stands in the realm's state/token.")
        return bearer is not None

    def is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())

    @staticmethod
    def _bearer(headers: dict[str, list[str]]) -> str | None:
        given = headers.get("authorization")
        if not given:
            return None
        kind, _, value = given[0].partition(" ")
        return value.strip() if kind.lower() == "bearer" and len(given) == 1 else ""

    def _from_cookie(self, headers: dict[str, list[str]]) -> str:
        """Its value if there is one; of two with the name, somebody else has set one. Other sites' cookies may be anything."""
        crumbs = (crumb.strip().partition("=") for crumb in ";".join(headers.get("cookie", [])).split(";"))
        given = [value for name, _, value in crumbs if name == self.cookie]
        return given[0] if len(given) == 1 else ""

    @staticmethod
    def check_site(scope: Scope, headers: dict[str, list[str]]) -> None:
        """What changes something must come from our own pages; what reads must not come from inside another site."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if scope["method"] in ("GET", "HEAD"):
            if site and site[0] not in ("same-origin", "none") and headers.get("sec-fetch-mode") != ["navigate"]:
                raise Refusal(403, "foreign_site", "Another site asked for this; it gets nothing.")
            return
        ours = origin is None or (len(origin) == 1 and _same_origin(origin[0], headers["host"][0]))
        # Neither header: no browser sent it (browsers name the origin of every such request), but a script of the user's.
        if (site and site != ["same-origin"]) or not ours:
            raise Refusal(
                403,
                "foreign_site",
                "Only the Tavern's own pages may change something, or a request with "
                "the header `Authorization: Bearer TOKEN`; the token stands in the realm's state/token.",
            )

    def body_limit(self, scope: Scope) -> int:
        return self.upload_bytes if scope["method"] == "POST" and scope["path"] in self.uploads else OTHER_BODIES


def _host_name(host: str) -> str | None:
    """The name in a Host header without its port, or None where it is no clean `name[:port]`."""
    try:
        parts = urlsplit(f"//{host}")
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        return None
    name = parts.hostname or ""
    spelled = f"[{name}]" if ":" in name else name
    clean = port_fits and host.lower() in (spelled, f"{spelled}:{parts.port}")
    return name if name and clean else None


def _is_address(name: str) -> bool:
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _same_origin(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


class Door:
    """ASGI middleware: checks every request by the rules, puts the protective headers on every answer, hides traces."""

    def __init__(self, app: ASGIApp, rules: Rules):
        self.app, self.rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._request(scope, receive, send)
        else:  # no websockets here
            await send({"type": "websocket.close", "code": 1008})

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def guarded_send(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message = {**message, "headers": _protected(message["headers"])}
            await send(message)

        try:
            limit = self._check(scope)
            await self.app(scope, _limited(receive, limit), guarded_send)
        except ClientDisconnect:
            return
        except Exception as problem:
            refusal = problem if isinstance(problem, Refusal) else None
            if refusal is None:
                log.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            refusal = refusal or Refusal(500, "internal", "Something broke in the Tavern; its log has the details.")
            await problem_response(scope, refusal.status, refusal.code, refusal.text)(scope, receive, guarded_send)

    def _check(self, scope: Scope) -> int:
        """All the rules; returns the bytes that the body may have."""
        _check_size(scope)
        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
        self.rules.check_host(headers)
        if not self.rules.check_token(scope, headers):
            self.rules.check_site(scope, headers)
        limit = self.rules.body_limit(scope)
        _check_ranges(headers.get("range", []))
        length = headers.get("content-length", ["0"])[0]
        if length.isascii() and length.isdigit() and (len(length) > LENGTH_DIGITS or int(length) > limit):
            raise _too_large(limit)
        return limit


def _protected(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    present = {name.lower() for name, _ in headers}
    return [*headers, *((name, value) for name, value in PROTECTION.items() if name not in present)]


def _check_size(scope: Scope) -> None:
    if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > TARGET_BYTES:
        raise Refusal(414, "too_long", f"The address has more than {TARGET_BYTES:,} bytes.")
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size > HEADER_BYTES or len(scope["headers"]) > HEADERS_AT_MOST:
        text = f"At most {HEADERS_AT_MOST} headers with {HEADER_BYTES:,} bytes are taken."
        raise Refusal(431, "too_many_headers", text)


def _check_ranges(given: list[str]) -> None:
    if len(given) > 1 or sum(value.count(",") for value in given) >= RANGES:
        raise Refusal(416, "too_many_ranges", f"At most {RANGES} ranges of a file are sent at once.")


def _limited(receive: Receive, limit: int) -> Receive:
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise _too_large(limit)
        return message

    return counted


def _too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"The body has more than the {limit:,} bytes that are taken here.")
