"""Who answers what: the box that config.json names, or the local Oracle. It decides the model, and says whose weights speak.

It knows no page and no web framework. A name of ours (hero, champion, a checkpoint's id) never reaches a box that does not
list it: there the box's own model answers, and a notice says which.
"""

import time
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import to_thread

from core.chat_request import CHAMPION, HERO
from core.config import Config
from core.errors import UserError
from core.paths import RealmPaths
from management.model_shelf import UnknownModel, VaultShelf
from monitoring.local_oracle import LocalOracle
from monitoring.upstream import Upstream, UpstreamProblem

FRESH_SECONDS = 5.0
MOST_REMOTE = 200  # models of a box that are listed
LOCAL, REMOTE = "local", "remote"


@dataclass(frozen=True)
class Route:
    """Where a request goes: `model` as that server calls it, `checkpoint` if it is known whose weights these are."""

    upstream: Upstream
    kind: str
    model: str
    checkpoint: str | None
    notice: str | None = None


@dataclass(frozen=True)
class Probe:
    """What the box said last; `problem` where it did not."""

    models: tuple[dict[str, Any], ...] = ()
    problem: UpstreamProblem | None = None
    seconds: float = 0.0  # that it took


class Oracle:
    """Of one realm. `token` is the realm's own; it never leaves this machine."""

    def __init__(self, paths: RealmPaths, config: Config, token: str):
        self._config, self._shelf = config, VaultShelf(paths)
        self.local = LocalOracle(paths, config, token)
        key = paths.oracle_key.read_text().strip() if paths.oracle_key.is_file() else None
        self.remote = Upstream(config.oracle.url, "The Oracle's box", key) if config.oracle.url else None
        self.seconds = config.oracle.seconds
        self._probe, self._probed = Probe(), float("-inf")
        self._probing = anyio.Lock()

    async def close(self) -> None:
        await self.local.close()
        if self.remote:
            await self.remote.close()

    async def models(self) -> list[dict[str, Any]]:
        """Whom one can ask, as `GET /v1/models` lists it: ours, then those of the box."""
        own = [model.facts() | {"answered_by": LOCAL} for model in await to_thread.run_sync(self._shelf.models)]
        if self.remote is None:
            return own
        probe = await self.probe()
        for model in own:
            if model["id"] in (HERO, CHAMPION) or _serving(probe.models, model["checkpoint"]):
                model["answered_by"] = REMOTE
        taken = {model["id"] for model in own}
        return own + [_listed(one) for one in probe.models if one["id"] not in taken]

    async def route(self, name: str) -> Route:
        """Where a request for the model `name` goes. Raises UnknownModel, UpstreamProblem."""
        if self.remote is None:
            checkpoint = (await to_thread.run_sync(self._shelf.find, name))[0]
            return Route(await self.local.ready(), LOCAL, checkpoint, checkpoint)
        probe = await self.probe()
        try:
            checkpoint = (await to_thread.run_sync(self._shelf.find, name))[0]
        except UnknownModel:
            checkpoint = None
        if served := _serving(probe.models, checkpoint):
            return Route(self.remote, REMOTE, served["id"], checkpoint)
        if checkpoint and name not in (HERO, CHAMPION):
            return Route(await self.local.ready(), LOCAL, checkpoint, checkpoint)
        if probe.problem:
            raise probe.problem
        named = next((one for one in probe.models if one["id"] == name), None)
        if named and name not in (HERO, CHAMPION):
            return Route(self.remote, REMOTE, name, _checkpoint(named))
        if name not in (HERO, CHAMPION):
            raise UnknownModel(
                f"There is no model {name[:80]!r}, neither here nor on the box. `GET /v1/models` lists them."
            )
        if not probe.models:
            raise UpstreamProblem("no_model", f"The box at {self.remote.url} lists no model; load one there.", 503)
        other = probe.models[0]
        return Route(self.remote, REMOTE, other["id"], _checkpoint(other), _notice(other, name, checkpoint))

    async def probe(self, fresh: float = FRESH_SECONDS) -> Probe:
        """What the box says of itself, at most `fresh` seconds old."""
        async with self._probing:
            if time.monotonic() - self._probed > fresh:
                began = time.monotonic()
                self._probe = await self._ask(began)
                self._probed = time.monotonic()
        return self._probe

    async def _ask(self, began: float) -> Probe:
        try:
            if not await self.remote.healthy():
                raise UpstreamProblem("oracle_down", f"The box at {self.remote.url} says that it is not ready.", 503)
            models = await self.remote.models()
        except UpstreamProblem as problem:
            return Probe(problem=problem)
        return Probe(tuple(models[:MOST_REMOTE]), None, time.monotonic() - began)

    async def state(self) -> dict[str, Any]:
        """All that a page has to say about the Oracle. It starts nothing."""
        pointers = {}
        for name in (HERO, CHAMPION):
            try:
                pointers[name] = (await to_thread.run_sync(self._shelf.find, name))[0]
            except UserError:
                pointers[name] = None
        local = await to_thread.run_sync(self.local.facts)
        if self.remote is None:
            ready = {"running": "ready", "starting": "starting", "backoff": "starting"}
            state = ready.get(local["state"], "down" if local["problem"] else "off")
            return {
                "kind": LOCAL, "url": None, "state": state, "problem": local["problem"], "notice": None, **pointers,
                "checkpoint": pointers[HERO], "same": True, "local": local,
            }  # fmt: skip
        probe = await self.probe()
        served = _serving(probe.models, pointers[HERO])
        first = served or next(iter(probe.models), None)
        notice = None if served or not first else _notice(first, HERO, pointers[HERO])
        checkpoint = pointers[HERO] if served else first and _checkpoint(first)
        return {
            "kind": REMOTE, "url": self.remote.url, "state": "down" if probe.problem else "ready",
            "problem": probe.problem and str(probe.problem), "notice": notice, **pointers,
            "checkpoint": checkpoint, "same": None if not first or not (served or checkpoint) else bool(served),
            "local": local,
        }  # fmt: skip


def _listed(one: dict[str, Any]) -> dict[str, Any]:
    created = one.get("created")
    return {
        "id": one["id"][:200],
        "object": "model",
        "created": created if isinstance(created, int) else 0,
        "owned_by": "box",
        "checkpoint": _checkpoint(one),
        "step": None,
        "answered_by": REMOTE,
    }


def _serving(models: tuple[dict[str, Any], ...], checkpoint: str | None) -> dict[str, Any] | None:
    """The model of the box that is this very checkpoint: by its id, the last part of a path, or what our own server says."""
    if checkpoint is None:
        return None
    return next((one for one in models if checkpoint in _names(one)), None)


def _names(one: dict[str, Any]) -> set[str]:
    told = (one["id"], one.get("root"), one.get("checkpoint"))
    return {name.rstrip("/").rpartition("/")[2] for name in told if isinstance(name, str)}


def _checkpoint(one: dict[str, Any]) -> str | None:
    told = one.get("checkpoint")
    return told[:200] if isinstance(told, str) else None


def _notice(one: dict[str, Any], name: str, checkpoint: str | None) -> str:
    """What to know when another model answers than the one that was asked for."""
    other = _checkpoint(one)
    who = f"checkpoint {other}" if other else f"{one['id'][:200]!r}, which does not say what checkpoint it is"
    ours = f"the {name}'s is {checkpoint}" if checkpoint else f"there is no {name} here yet"
    return f"The box serves {who}; {ours}. `oracle sync` on the box brings it there."
