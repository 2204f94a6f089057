"""Asks a Tavern's app by raw ASGI, as uvicorn hands requests on: no client tidies paths and headers up, and nothing is sent."""

import asyncio
import re
from dataclasses import dataclass
from urllib.parse import unquote

HOST = "127.0.0.1:8888"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


class Caller:
    """`caller("GET", "/path?query", {"accept": "text/html"})`; headers may be pairs, to give one twice."""

    def __init__(self, app):
        self.app = app

    def __enter__(self):
        self._runner = asyncio.Runner()
        return self

    def __exit__(self, *_):
        self._runner.close()

    def __call__(self, method, target, headers=(), body=b"", host=HOST) -> Answer:
        return self._runner.run(self._ask(method, target, headers, body, host))

    async def _ask(self, method, target, headers, body, host):
        raw_path, _, query = target.partition("?")
        pairs = list(headers.items() if isinstance(headers, dict) else headers)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(raw_path),
            "raw_path": raw_path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode("latin-1"))
                for name, value in [("host", host), *pairs, *([("content-length", str(len(body)))] if body else [])]
            ],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 8888),
            "state": {},
        }
        waiting, gone, said = [body], asyncio.Event(), []

        async def receive():
            if waiting:
                return {"type": "http.request", "body": waiting.pop(), "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            said.append(message)
            if endless(said[0]) and message["type"] == "http.response.body":
                gone.set()

        await asyncio.wait_for(self.app(scope, receive, send), 20)
        start = said[0]
        names = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return Answer(start["status"], names, b"".join(message.get("body", b"") for message in said[1:]))


def endless(start) -> bool:
    return any(value.startswith(b"text/event-stream") for name, value in start["headers"] if name == b"content-type")


def templates(app):
    """(method, path template) of every route of the app, those of the static files left out."""
    found = set()
    for route in app.routes:
        for one in getattr(getattr(route, "original_router", None), "routes", [route]):
            found |= {(method, one.path) for method in getattr(one, "methods", None) or ()}
    return sorted(found)


def filled(template, value):
    return re.sub(r"{\w+(:\w+)?}", lambda _: value, template)
