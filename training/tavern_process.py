"""The Tavern's process: parses its arguments, binds the port, serves until told to stop, shows that it lives."""

import argparse
import asyncio
import contextlib
import resource
import socket
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from core.config import load_config
from core.errors import UserError
from core.full_disk import Reserve
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from monitoring.servers.tavern.app import create_app
from monitoring.servers.tavern.guard import GuardedProtocol, Guests, Limits
from monitoring.servers.tavern.security import HEADER_BYTES
from safety.lifeline import Lifeline
from training.patience import when_right

STALLED_MILLISECONDS = 20_000
LIMITS = Limits()
QUEUED = 1024
FILES = 4096  # open ones, of which every connection is one


class Server(uvicorn.Server):
    """Ends when the lifeline says so, open event streams included; its signals are the lifeline's."""

    def __init__(self, app: FastAPI, lifeline: Lifeline):
        super().__init__(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=partial(GuardedProtocol, guests=Guests(LIMITS)),  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=2,
                backlog=LIMITS.accepted,
                limit_concurrency=LIMITS.connections,
                h11_max_incomplete_event_size=HEADER_BYTES,
            )
        )
        self._hub, self._lifeline = app.state.hub, lifeline

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in (
            sockets or ()
        ):  # asyncio takes as many at once as may queue; many may queue, few are taken at once
            listener.listen(QUEUED)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second by the event loop that answers requests."""
        if counter % 10 == 0:
            self._lifeline.beat()
        if self._lifeline.should_exit.is_set():
            self._hub.close()  # before uvicorn waits for open responses
            self.should_exit = True
        return await super().on_tick(counter)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; the kernel ends connections whose other side takes nothing. Raises UserError."""
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=QUEUED)
    except OSError as problem:
        raise UserError(
            f"The Tavern cannot listen on {host}:{port}: {problem.strerror}. "
            "Another port: --port, or tavern.port in config.json."
        ) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MILLISECONDS)
    return listener


def _allow_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.tavern_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    options = parser.parse_args(argv)
    paths = RealmPaths(options.root)
    lifeline = Lifeline(paths, "tavern", options.parent)
    start_logging(paths, "tavern")
    ledger = Ledger(paths.ledger, Reserve(paths).release)
    config = when_right(lambda: load_config(paths.config), "config_wrong", "tavern", ledger, lifeline)
    if config is None:
        return 0
    try:
        given = {name: value for name, value in (("host", options.host), ("port", options.port)) if value is not None}
        config = config.model_copy(update={"tavern": config.tavern.model_copy(update=given)})
        listener = listen(config.tavern.host, config.tavern.port)
    except UserError as problem:
        print(problem, file=sys.stderr)
        return 1
    paths.make()
    _allow_files()
    asyncio.run(Server(create_app(paths, config), lifeline).serve([listener]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
