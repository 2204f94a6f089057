"""The local Oracle as the Tavern sees it: whether it lives, what keeps it from starting, and the wish that starts it.

It starts no process itself. The supervisor sees the wish, a file, and keeps the Oracle alive as long as it is there.
"""

import time
from typing import Any

import anyio
from anyio import to_thread

from core.answer_memory import Needs, shortage
from core.config import Config
from core.durable import read_json
from core.errors import CheckpointError, UserError
from core.paths import RealmPaths
from core.realm_lock import same_process
from core.status import service_states
from core.upstream import Upstream, UpstreamProblem
from management.model_shelf import VaultShelf

START_SECONDS = 90.0  # imports, on a machine that trains
LOOK_SECONDS = 0.1


class LocalOracle:
    """`ready` brings it to life where it has none; `token` is the realm's, by which it knows us."""

    def __init__(self, paths: RealmPaths, config: Config, token: str):
        self._paths, self._config, self._token = paths, config, token
        self._shelf = VaultShelf(paths)
        self._upstream: Upstream | None = None

    def facts(self) -> dict[str, Any]:
        """Its row in the table of services, and what would keep the hero from answering; None where nothing does."""
        states = service_states(self._paths)
        row = next(service for service in states if service["name"] == "oracle")
        place = self._place()
        return {
            "state": "running" if place else row["state"],
            "pid": place["pid"] if place else row["pid"],
            "port": place["port"] if place else self._config.oracle.port,
            "problem": None if place else self._problem(states),
        }

    async def wake(self) -> None:
        """Have it started, if it is not up. Raises UpstreamProblem where it cannot be."""
        if await to_thread.run_sync(self._place) is None:
            if problem := await to_thread.run_sync(lambda: self._problem(service_states(self._paths))):
                raise UpstreamProblem("oracle_down", problem, 503)
            await to_thread.run_sync(self._paths.oracle_wish.touch)

    async def ready(self) -> Upstream:
        """It, up and answering. Raises UpstreamProblem."""
        await self.wake()
        deadline = time.monotonic() + START_SECONDS
        while (place := await to_thread.run_sync(self._place)) is None:
            problem = await to_thread.run_sync(self._given_up)
            if problem or time.monotonic() > deadline:
                raise UpstreamProblem("oracle_down", problem or self._late(), 503)
            await anyio.sleep(LOOK_SECONDS)
        return await self._at(f"http://127.0.0.1:{place['port']}")

    async def close(self) -> None:
        if self._upstream:
            await self._upstream.close()

    async def _at(self, url: str) -> Upstream:
        if self._upstream is None or self._upstream.url != url:
            await self.close()
            self._upstream = Upstream(url, "The local Oracle", self._token)
        return self._upstream

    def _place(self) -> dict[str, Any] | None:
        """Where it listens, if the process that said so lives."""
        place = read_json(self._paths.oracle_place)
        alive = isinstance(place, dict) and same_process(place.get("pid"), place.get("started"))
        return place if alive else None

    def _problem(self, services: list[dict[str, Any]]) -> str | None:
        """Why the Oracle cannot be started, with the remedy."""
        states = {service["name"]: service["state"] for service in services}
        if states["watchdog"] != "running":
            return "The realm does not run, so nobody can start the local Oracle: `python -m training start-all`."
        if states["oracle"] == "failed":
            return "The local Oracle died again and again: `logs oracle` says why; `stop-all` and `start-all` try anew."
        try:
            _, folder = self._shelf.find("hero")
            return shortage(Needs.of(folder), self._config.oracle.memory_gib)
        except (UserError, CheckpointError, OSError) as problem:
            return str(problem)

    def _given_up(self) -> str | None:
        row = next(service for service in service_states(self._paths) if service["name"] == "oracle")
        return "The local Oracle could not be started: `logs oracle` says why." if row["state"] == "failed" else None

    @staticmethod
    def _late() -> str:
        return f"The local Oracle did not come up within {START_SECONDS:.0f} s; `logs oracle` says why. Try again."
