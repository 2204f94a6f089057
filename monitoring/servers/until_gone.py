"""A response that is made while its reader is there: when the reader goes, the making of it is cancelled. It knows no content."""

from collections.abc import Awaitable, Callable

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class UntilGone(Response):
    """`make(scope, send)` writes the whole response, and is cancelled as soon as the other side closes."""

    def __init__(self, make: Callable[[Scope, Send], Awaitable[None]]):
        super().__init__()
        self._make = make

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_await_end, receive, tasks.cancel_scope)
                await self._make(scope, send)
                tasks.cancel_scope.cancel()
        except ExceptionGroup as group:  # of one: as it is, for the door to name it
            raise group.exceptions[0] from None


async def _await_end(receive: Receive, scope: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
