"""Where alerts go: a webhook, an ntfy topic, anything that Apprise knows. It knows nothing about what is told, or when.

A target sends one message or raises Unsent, whose text names no address: it may hold a secret.
"""

import base64
import hashlib
import http.client
import importlib
import logging
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any
from urllib import error, request
from urllib.parse import unquote, urlsplit, urlunsplit

import orjson

from core.alert_config import Alerts

SECONDS = 10.0  # for each answer of the network
PRIORITIES = {"info": 3, "warning": 4, "alert": 5}
TAGS = {"done": "crossed_swords", "failed": "warning", "blocked": "no_entry", "level_up": "tada", "disk": "floppy_disk"}


@dataclass(frozen=True)
class Message:
    """`id`: the newest event that it tells of, by which a receiver knows one that came twice. `time`: seconds since the epoch."""

    id: int
    kind: str
    code: str
    title: str
    text: str
    level: str
    time: float
    hero: str


class Unsent(Exception):
    """A message did not arrive; why, without the address."""


@dataclass(frozen=True)
class Target:
    """`name` for people; `key` for the ledger, another one for another address."""

    name: str
    key: str
    send: Callable[[Message], None]


def targets(alerts: Alerts) -> list[Target]:
    found = []
    if alerts.webhook:
        found.append(_target(f"webhook at {_host(alerts.webhook)}", alerts.webhook, _webhook))
    if alerts.ntfy:
        found.append(_target(f"ntfy topic at {_host(alerts.ntfy)}", alerts.ntfy, _ntfy))
    return found + [_target(f"Apprise target {url.partition(':')[0]}://…", url, _apprise) for url in alerts.apprise]


def _target(name: str, url: str, send: Callable[[str, Message], None]) -> Target:
    return Target(name, f"alerts:{hashlib.sha256(url.encode()).hexdigest()[:16]}", lambda message: send(url, message))


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]


def _webhook(url: str, message: Message) -> None:
    _post(url, asdict(message))


def _ntfy(url: str, message: Message) -> None:
    """As JSON to the server's root: headers could not hold every letter."""
    root, _, topic = url.rpartition("/")
    facts = {
        "title": message.title,
        "message": message.text,
        "priority": PRIORITIES[message.level],
        "tags": [TAGS[message.kind]],
    }
    _post(f"{root}/", {"topic": topic, **facts})


def _post(url: str, value: dict[str, Any]) -> None:
    headers = {"content-type": "application/json", "user-agent": "realm-of-training"}
    try:
        parts = urlsplit(url)
        credentials, at, host = parts.netloc.rpartition("@")
        if at:
            headers["authorization"] = "Basic " + base64.b64encode(unquote(credentials).encode()).decode()
        asked = request.Request(urlunsplit(parts._replace(netloc=host)), orjson.dumps(value), headers, method="POST")
        with _opener().open(asked, timeout=SECONDS):
            return
    except error.HTTPError as problem:
        problem.close()
        way = ", a redirect, which is not followed" if 300 <= problem.code < 400 else ""
        raise Unsent(f"it answered HTTP {problem.code}{way}") from None
    except error.URLError as problem:
        raise Unsent(_why(problem.reason)) from None
    except (OSError, http.client.HTTPException, ValueError) as problem:
        raise Unsent(_why(problem)) from None


def _why(problem: Any) -> str:
    """What the system says of it; other texts may repeat the address."""
    if isinstance(problem, TimeoutError):
        return f"it did not answer within {SECONDS:.0f} s"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({problem.verify_message})"
    return getattr(problem, "strerror", None) or type(problem).__name__


class _NoRedirect(request.HTTPRedirectHandler):
    """Where a redirect leads is not where the user sends his alerts."""

    def redirect_request(self, *_: Any) -> None:
        return None


def _opener() -> request.OpenerDirector:
    return request.build_opener(_NoRedirect)


def _apprise(url: str, message: Message) -> None:
    try:
        apprise = importlib.import_module("apprise")
    except ModuleNotFoundError:
        raise Unsent("alerts.apprise needs `pip install -r requirements-alerts.txt`") from None
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)  # it names addresses
    kind = {"info": apprise.NotifyType.INFO, "warning": apprise.NotifyType.WARNING}
    asset = apprise.AppriseAsset(app_id="Realm of Training", async_mode=False, secure_logging=True)
    sender = apprise.Apprise(asset=asset)
    try:
        known = sender.add(url)
        failure = kind.get(message.level, apprise.NotifyType.FAILURE)
        sent = known and sender.notify(body=message.text, title=message.title, notify_type=failure)
    except (
        OSError,
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
    ) as problem:  # a plugin of it, which may name the address
        raise Unsent(f"Apprise failed ({type(problem).__name__})") from None
    if not sent:
        raise Unsent("Apprise could not deliver it" if known else "Apprise does not understand this URL")
