"""Who answers what: the box that config.json names, or the local Oracle. It decides the model, and says whose weights speak.

It knows no page and no web framework. A name of ours (hero, champion, a checkpoint's id) never reaches a box that does not
list it: there the box's own model answers, and a notice says which.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import anyio
from anyio import to_thread

from core.chat_request import CHAMPION, HERO
from core.config import Config
from core.paths import RealmPaths
from core.upstream import Upstream, UpstreamProblem
from management.model_shelf import UnknownModel, VaultShelf
from monitoring.local_oracle import LocalOracle

FRESH_SECONDS, DOWN_SECONDS = 5.0, 1.0  # that what the box said holds: its models, or that it is down
PATIENCE_SECONDS = 1.0  # of a page that only tells how things are
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


class Oracle:
    """Of one realm. `token` is the realm's own; it never leaves this machine."""

    def __init__(self, paths: RealmPaths, config: Config, token: str):
        self._config, self._shelf = config, VaultShelf(paths)
        self.local = LocalOracle(paths, config, token)
        key = paths.oracle_key.read_text().strip() if paths.oracle_key.is_file() else None
        self.remote = Upstream(config.oracle.url, "The Oracle's box", key) if config.oracle.url else None
        self.seconds = config.oracle.seconds
        self._probe, self._probed = Probe(), float("-inf")
        if self.remote:
            self._probe = Probe(
                problem=UpstreamProblem("oracle_silent", f"{self.remote.url} has not answered yet.", 504)
            )
        self._probing: asyncio.Task | None = None

    async def close(self) -> None:
        if self._probing:
            self._probing.cancel()
        await self.local.close()
        if self.remote:
            await self.remote.close()

    async def models(self) -> list[dict[str, Any]]:
        """Whom one can ask, as `GET /v1/models` lists it: ours, then those of the box."""
        own = [model.facts() | {"answered_by": LOCAL} for model in await to_thread.run_sync(self._shelf.models)]
        if self.remote is None:
            return own
        probe = await self.probe(PATIENCE_SECONDS)
        for model in own:
            if model["id"] in (HERO, CHAMPION) or _serving(probe.models, model["checkpoint"]):
                model["answered_by"] = REMOTE
        taken = {model["id"] for model in own}
        return own + [_listed(one) for one in probe.models if one["id"] not in taken]

    async def route(self, name: str) -> Route:
        """Where a request for the model `name` goes. Raises UnknownModel, UpstreamProblem."""
        if self.remote is None:
            return await self._here(await to_thread.run_sync(self._id_of, name))
        probe, ours = await self.probe(), name in (HERO, CHAMPION)
        try:
            checkpoint = await to_thread.run_sync(self._id_of, name)
        except UnknownModel:
            checkpoint = None
        if served := _serving(probe.models, checkpoint):
            return Route(self.remote, REMOTE, served["id"], checkpoint)
        if checkpoint and not ours:
            return await self._here(checkpoint)
        if probe.problem:
            raise probe.problem
        if not ours:
            named = next((one for one in probe.models if one["id"] == name), None)
            if named is None:
                raise UnknownModel(
                    f"There is no model {name[:80]!r}, neither here nor on the box; see `GET /v1/models`."
                )
            return Route(self.remote, REMOTE, name, _checkpoint(named))
        if not probe.models:
            raise UpstreamProblem("no_model", f"The box at {self.remote.url} lists no model; load one there.", 503)
        other = self._chosen(probe.models)
        return Route(self.remote, REMOTE, other["id"], _checkpoint(other), _notice(other, name, checkpoint))

    async def _here(self, checkpoint: str) -> Route:
        return Route(await self.local.ready(), LOCAL, checkpoint, checkpoint)

    def _id_of(self, name: str) -> str:
        return self._shelf.find(name)[0]

    async def probe(self, patience: float | None = None) -> Probe:
        """What the box says of itself, a few seconds old at most; after `patience` seconds what it said last."""
        lasts = FRESH_SECONDS if self._probe.problem is None else DOWN_SECONDS
        if self._probing is None and time.monotonic() - self._probed > lasts:
            self._probing = asyncio.create_task(self._refresh())  # for all who want to know, and beyond their patience
        if self._probing is not None:
            with anyio.move_on_after(patience):
                await asyncio.shield(self._probing)
        return self._probe

    async def _refresh(self) -> None:
        try:
            self._probe = await self._ask()
        finally:
            self._probed, self._probing = time.monotonic(), None

    async def _ask(self) -> Probe:
        chosen = self._config.oracle.model
        try:
            if not await self.remote.healthy():
                raise UpstreamProblem("oracle_down", f"The box at {self.remote.url} says that it is not ready.", 503)
        except UpstreamProblem as problem:
            return Probe(problem=problem)
        try:
            models = (await self.remote.models())[:MOST_REMOTE]
        except UpstreamProblem as problem:
            if chosen is None:
                return Probe(problem=problem)
            models = []
        if chosen not in (None, *(one["id"] for one in models)):
            models.append({"id": chosen})  # some servers load what is asked for, and list nothing
        return Probe(tuple(models))

    def _chosen(self, models: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        """The model of the box that answers for ours."""
        return next((one for one in models if one["id"] == self._config.oracle.model), models[0])

    async def state(self) -> dict[str, Any]:
        """All that a page has to say about the Oracle. It starts nothing."""
        models = {model.name: model.checkpoint for model in await to_thread.run_sync(self._shelf.models)}
        pointers = {name: models.get(name) for name in (HERO, CHAMPION)}
        local = await to_thread.run_sync(self.local.facts)
        if self.remote is None:
            words = {"running": "ready", "starting": "starting", "backoff": "starting"}
            about = {"kind": LOCAL, "url": None, "problem": local["problem"], "notice": None, "same": True}
            about |= {"state": words.get(local["state"], "down" if local["problem"] else "off")}
            about |= {"model": HERO, "checkpoint": pointers[HERO]}
        else:
            about = self._about_box(await self.probe(PATIENCE_SECONDS), pointers[HERO])
        return about | pointers | {"local": local}

    def _about_box(self, probe: Probe, hero: str | None) -> dict[str, Any]:
        """`same`: whether it serves the hero's checkpoint, None where that cannot be known."""
        served = _serving(probe.models, hero)
        one = served or (self._chosen(probe.models) if probe.models else None)
        checkpoint = hero if served else one and _checkpoint(one)
        return {
            "kind": REMOTE,
            "url": self.remote.url,
            "problem": probe.problem and str(probe.problem),
            "notice": _notice(one, HERO, hero) if one and not served else None,
            "same": checkpoint == hero if checkpoint else None,
            "state": "down" if probe.problem else "ready",
            "model": one and one["id"],
            "checkpoint": checkpoint,
        }


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
