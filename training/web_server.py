"""A web server as a service of the realm: a listening socket, and uvicorn that ends when its lifeline says so. It knows no page."""

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from core.errors import UserError
from monitoring.servers.tavern.guard import GuardedProtocol, Guests, Limits
from monitoring.servers.tavern.security import HEADER_BYTES
from safety.lifeline import Lifeline

STALLED_MILLISECONDS = 20_000
LIMITS = Limits()
QUEUED = 1024
FILES = 4096  # open ones, of which every connection is one


def settings(app: ASGIApp) -> uvicorn.Config:
    """How every server of the realm serves."""
    return uvicorn.Config(
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


class Server(uvicorn.Server):
    """Ends when the lifeline says so; its signals are the lifeline's. `turn` is called once a second, `close` at the end,
    before uvicorn waits for open responses."""

    def __init__(
        self,
        app: ASGIApp,
        lifeline: Lifeline,
        close: Callable[[], None] = lambda: None,
        turn: Callable[[], None] = lambda: None,
    ):
        super().__init__(settings(app))
        self._lifeline, self._close, self._turn = lifeline, close, turn

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
            self._turn()
        if self._lifeline.should_exit.is_set():
            self._close()
            self.should_exit = True
        return await super().on_tick(counter)


def listen(host: str, port: int, who: str = "The Tavern", field: str = "tavern.port") -> socket.socket:
    """A listening socket; the kernel ends connections whose other side takes nothing. Raises UserError."""
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=QUEUED)
    except OSError as problem:
        raise UserError(
            f"{who} cannot listen on {host}:{port}: {problem.strerror}. Another port: --port, or {field} in config.json."
        ) from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_MILLISECONDS)
    return listener


def allow_files() -> None:
    """As many open files as the guests may need, where the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def serve_until_interrupted(app: ASGIApp, listener: socket.socket) -> None:
    """In the foreground, until Ctrl-C or SIGTERM."""
    uvicorn.Server(settings(app)).run(sockets=[listener])
