"""Ways to a Tavern: a client in this process, all its routes, the real process on a free port, its event stream."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from processes import free_port
from starlette.testclient import TestClient
from tavern_realm import empty_realm

from core.config import Config, Tavern
from core.paths import CHECKOUT
from monitoring.servers.tavern.app import create_app

OURS = {"origin": "http://127.0.0.1:8888", "sec-fetch-site": "same-origin"}
PAGE = {"accept": "text/html"}


def client_of(paths, **tavern_settings):
    app = create_app(paths, Config(tavern=Tavern(**tavern_settings)))
    return TestClient(app, base_url="http://127.0.0.1:8888", follow_redirects=False)


def routes_of(app):
    """(method, path) of every route, with examples for its parameters."""
    examples = {"verb": "pause", "quest": "2", "name": "queue", "checkpoint": "none", "skill": "BIN", "job": "battle-1"}
    examples |= {"which": "none", "duel": "none", "side": "left"}
    found = set()
    for route in app.routes:
        inner = getattr(getattr(route, "original_router", None), "routes", [route])
        for one in inner:
            path = re.sub(r"{(\w+)}", lambda part: examples[part[1]], one.path)
            found |= {(method, path) for method in getattr(one, "methods", None) or ("GET",)}
    return sorted(found)


def all_routes():
    with tempfile.TemporaryDirectory() as folder:
        return routes_of(create_app(empty_realm(Path(folder)), Config()))


ROUTES = all_routes()


class TavernProcess:
    """`training.tavern_process` of one realm; `stop` sends SIGTERM and says how many seconds it took."""

    def __init__(self, root: Path, port: int | None = None):
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "training.tavern_process",
                "--root",
                str(root),
                "--port",
                str(self.port),
                "--parent",
                str(os.getpid()),
            ],
            cwd=CHECKOUT,
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError), contextlib.closing(self.connect()) as connection:
                connection.request("GET", "/healthz")
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"the Tavern did not answer; exit {self.process.poll()}")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)

    def stop(self) -> float:
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
        return time.monotonic() - began


@contextlib.contextmanager
def tavern(root: Path, port: int | None = None):
    server = TavernProcess(root, port)
    try:
        server.wait()
        yield server
    finally:
        server.stop()


class Stream:
    """An open `/api/events`."""

    def __init__(self, server: TavernProcess, query: str = "", **headers: str):
        self.connection = server.connect()
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("GET", f"/api/events{query}", headers=spelled)
        self.response = self.connection.getresponse()
        assert self.response.status == 200, self.response.read()

    def next(self, kind: str) -> dict:
        """The next message of this kind: {id, data}."""
        message: dict = {}
        while True:
            line = self.response.readline().decode().rstrip("\n")
            if not line and message.get("event") == kind:
                return {"id": message.get("id"), "data": json.loads(message["data"])}
            if not line:
                message = {}
            name, _, value = line.partition(": ")
            message[name] = value

    def close(self) -> None:
        self.response.close()
        self.connection.close()
