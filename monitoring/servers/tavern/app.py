"""Puts the Tavern together: realm, door, stream, API and pages. Everything that it needs is handed in."""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from anyio import to_thread
from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from core.config import Config
from core.full_disk import is_no_space
from core.paths import RealmPaths
from monitoring.machine_history import EVERY_SECONDS, MachineHistory
from monitoring.oracle import Oracle
from monitoring.servers.tavern import (
    api,
    duel_api,
    libraries,
    operations,
    oracle_api,
    pages,
    quest_api,
    skills_api,
    vault_api,
)
from monitoring.servers.tavern.duels import Duels
from monitoring.servers.tavern.events import Hub
from monitoring.servers.tavern.html import problem_response
from monitoring.servers.tavern.kept import Kept
from monitoring.servers.tavern.manner import Mannered
from monitoring.servers.tavern.openapi import document
from monitoring.servers.tavern.previewer import Previewer
from monitoring.servers.tavern.problems import answer_problems
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import STATIC, Door, Rules, read_or_make_token

READERS = 4  # threads that read the ledger, each with a connection; uploads have threads of their own
TALKS = 100  # of browsers without JavaScript that are kept
UPLOADS = frozenset({"/api/quests", "/quests"})
APIS = (api, quest_api, vault_api, skills_api, oracle_api, duel_api, operations)
ROUTERS = (*pages.ROUTERS, *(each.router for each in APIS), skills_api.drill)


class _Static(StaticFiles):
    """Our own files and, by fixed names, those of libraries. Browsers ask each time whether a file has changed (304)."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC)
        self._libraries = libraries.found()

    def lookup_path(self, path: str) -> tuple[str, os.stat_result | None]:
        library = self._libraries.get(path)
        return (str(library), library.stat()) if library else super().lookup_path(path)

    def file_response(self, *args, **kwargs) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = "no-cache"
        return response


def create_app(paths: RealmPaths, config: Config) -> FastAPI:
    """The Tavern of one realm, as an ASGI application. `app.state.hub.close()` ends all open streams."""
    app = FastAPI(
        title="The Realm of Training", openapi_url="/api/openapi.json", docs_url=None, redoc_url=None, lifespan=_life
    )
    app.state.realm = Realm(paths, config)
    app.state.previewer = Previewer()
    app.state.frame = pages.frame
    app.state.hub = Hub(app.state.realm)
    token = read_or_make_token(paths)
    app.state.oracle = Oracle(paths, config, token)
    app.state.duels, app.state.talks = Duels(), Kept(TALKS)
    app.state.rules = Rules.of(config.tavern, token, UPLOADS)
    app.add_middleware(Door, rules=app.state.rules)
    app.add_middleware(Mannered)
    for router in ROUTERS:
        app.include_router(router)
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    app.mount("/static", _Static(), name="static")
    answer_problems(app)
    app.add_exception_handler(sqlite3.OperationalError, _unwritten)
    return app


@asynccontextmanager
async def _life(app: FastAPI) -> AsyncIterator[None]:
    to_thread.current_default_thread_limiter().total_tokens = READERS
    tasks = [asyncio.create_task(work) for work in (app.state.hub.run(), _remember(app.state.realm.history))]
    yield
    app.state.hub.close()
    app.state.realm.exports.close()
    app.state.realm.battles.close()
    app.state.previewer.close()
    await app.state.oracle.close()
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _remember(history: MachineHistory) -> None:
    while True:
        with suppress(OSError):  # a realm whose disk has gone
            await to_thread.run_sync(history.take)
        await asyncio.sleep(EVERY_SECONDS)


async def _unwritten(request: Request, problem: sqlite3.OperationalError) -> Response:
    """Reading goes on while the disk is full; what was to be written is not."""
    if not is_no_space(problem, request.app.state.realm.paths.state):
        raise problem
    return problem_response(
        request.scope, 507, "no_room", "The disk is full, so nothing was written. Free space first."
    )
