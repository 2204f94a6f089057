"""Who holds a connection open and sends nothing, or too slowly: uvicorn's protocol with deadlines and limits. It knows no page.

uvicorn's own time-outs count from the last byte, so one byte now and then keeps a connection for ever. Here the head of a
request has a deadline from its first byte on, a body must keep arriving, and where there are too many connections the one
whose head is awaited longest makes room: whoever asks in earnest sends the head at once.
"""

import asyncio
import logging
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

log = logging.getLogger(__name__)
TOLD_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """`waiting`: connections whose head is awaited. `accepted`: new ones taken between two readings of what those before
    have sent; a few times that must fit among those that wait. `body_bytes`: of a body in `body_seconds`, at least.
    """

    connections: int = 1000
    of_one_address: int = 500
    waiting: int = 256
    accepted: int = 64
    head_seconds: float = 10.0
    body_seconds: float = 20.0
    body_bytes: int = 20 << 10
    linger_seconds: float = 5.0


class Guests:
    """All connections of one Tavern: how many of each address, and whose heads are awaited, the longest first."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.of_address: Counter[str] = Counter()
        self.waiting: dict[GuardedProtocol, None] = {}
        self._told, self._turned_away = -TOLD_SECONDS, 0

    def enter(self, address: str) -> bool:
        """Whether one more is let in."""
        limits = self.limits
        self.of_address[address] += 1
        return self.of_address[address] <= limits.of_one_address and self.of_address.total() <= limits.connections

    def leave(self, address: str) -> None:
        self.of_address[address] -= 1
        if not self.of_address[address]:
            del self.of_address[address]

    def tell(self) -> None:
        """One more was turned away; the log says so once a minute."""
        self._turned_away += 1
        if time.monotonic() - self._told >= TOLD_SECONDS:
            log.warning("%d connections were closed: too many, or too slow", self._turned_away)
            self._told, self._turned_away = time.monotonic(), 0


class GuardedProtocol(H11Protocol):
    """One connection. `_timer` ends the phase it is in: a head or a body that is awaited, or what follows an answer."""

    def __init__(self, *arguments: Any, guests: Guests, **options: Any):
        super().__init__(*arguments, **options)
        self._guests, self._limits = guests, guests.limits
        self._timer: asyncio.TimerHandle | None = None
        self._phase: Any = None
        self._received = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        if self._guests.enter(self._address):
            self._enter(h11.IDLE)
        else:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter(None)
        self._guests.leave(self._address)
        super().connection_lost(exc)
        self._unset_keepalive_if_required()  # uvicorn forgets it after a reset, and the connection lives on in the timer

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._look()
        if self._phase is h11.SEND_BODY and not self.transport.is_closing():  # nobody will read the rest
            self._set_timer(self._limits.linger_seconds, self.close)

    def _look(self) -> None:
        """What the other side owes now: the rest of a head, of a body, or nothing; then uvicorn's keep-alive holds."""
        owed = self.conn.their_state
        begun = owed is h11.SEND_BODY or (owed is h11.IDLE and self.conn.trailing_data[0])
        if not begun or self.transport.is_closing():
            owed = None
        if owed is not self._phase:
            self._enter(owed)

    def _enter(self, phase: Any) -> None:
        self._phase = phase
        self._guests.waiting.pop(self, None)
        self._set_timer(0, None)
        if phase is h11.IDLE:
            self._guests.waiting[self] = None
            self._set_timer(self._limits.head_seconds, self.close)
            if len(self._guests.waiting) > self._limits.waiting:
                next(iter(self._guests.waiting)).close()
        elif phase is h11.SEND_BODY:
            self._await_body()

    def _await_body(self) -> None:
        """Closes where too little came since the last look, unless it is we who do not read."""
        before = self._received

        def look() -> None:
            if self._received - before < self._limits.body_bytes and not self.flow.read_paused:
                self.close()
            else:
                self._await_body()

        self._set_timer(self._limits.body_seconds, look)

    def _set_timer(self, seconds: float, action: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, action) if action else None

    def close(self) -> None:
        """At once, without an answer."""
        self._enter(None)
        self._guests.tell()
        self.transport.abort()
