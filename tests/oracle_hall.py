"""Oracles for tests of the page: the real local one on a real micro hero, and a box that says what it was asked to say."""

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from processes import free_port
from tavern_realm import empty_realm
from tavern_server import TavernProcess, tavern

from core.checkpoints import Manifest, commit, read, set_current
from core.config import Config
from core.durable import read_json
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, CHECKOUT, RealmPaths


def two_heroes(paths: RealmPaths) -> tuple[str, str]:
    """Checkpoint 0 of a micro hero, and a later one with other weights, which is the hero of today."""
    from core.forge.hatch import hatch, micro_hero
    from core.forge.state import save_model

    first = hatch(paths, Config())
    later = Manifest("DIO", first.campaign, 100, first.id, None)
    second = commit(paths, later, lambda folder: save_model(micro_hero(8), folder, BUNDLED_TOKENIZER))
    set_current(paths, second.id)
    return first.id, read(paths.vault / second.id).id


@contextlib.contextmanager
def local_oracle(paths: RealmPaths):
    """The process that answers with the realm's checkpoints, as the supervisor would start it; a call waits until it is up."""
    command = [sys.executable, "-m", "training.oracle_process", "--root", str(paths.root), "--parent", str(os.getpid())]
    process = subprocess.Popen(command, cwd=CHECKOUT)

    def ready() -> None:
        deadline = time.monotonic() + 90
        while read_json(paths.oracle_place, {}).get("pid") != process.pid:
            assert process.poll() is None and time.monotonic() < deadline, f"no Oracle; exit {process.poll()}"
            time.sleep(0.05)

    try:
        yield ready
    finally:
        process.terminate()
        process.wait(20)


@contextlib.contextmanager
def answering(root: Path) -> Iterator[tuple[RealmPaths, TavernProcess, Callable[[], None]]]:
    """A realm without a hero, its Tavern and its local Oracle, for which one can wait when there is a hero."""
    paths = empty_realm(root)
    Ledger(paths.ledger).close()
    paths.config.write_text(json.dumps({"oracle": {"port": free_port()}}))
    with local_oracle(paths) as ready, tavern(paths.root) as server:
        yield paths, server, ready


class _Parrot(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._whole(
            200, {"object": "list", "data": [{"id": "parrot"}, {"id": "echo"}]} if "models" in self.path else {}
        )

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(asked)
        said = self.server.say.get(asked["model"]) or asked["messages"][-1]["content"]
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        pieces = [said[at : at + 7] for at in range(0, len(said), 7)]
        for delta, finish in [*(({"content": piece}, None) for piece in pieces), ({}, "stop")]:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            self.wfile.write(b"data: " + json.dumps({"model": asked["model"], "choices": [choice]}).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _whole(self, status: int, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def parrot():
    """A box that answers with the last question, or with `say[model]`. Its requests are in `asked`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Parrot)
    server.say, server.asked = {}, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
