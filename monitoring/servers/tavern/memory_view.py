"""What a battle needs in memory under given settings, component by component, as a bar. It loads no model and no torch."""

import os
from pathlib import Path
from typing import Any

from core.checkpoints import pointed
from core.config import Config
from core.errors import UserError
from core.hero import base_model, hero_of
from core.machine import Machine, a_gpu, this_cpu
from core.memory_beside import expected
from core.memory_needs import CUDA, Component, Shape
from core.memory_plan import Plan, choose, frozen
from core.paths import RealmPaths
from monitoring.gpu import read_gpus
from monitoring.servers.tavern.vault_keeping import segments

KINDS = (  # how a component's name begins, and the colour of its part
    ("weights' copies", "copies"),
    ("weights", "weights"),
    ("gradients", "gradients"),
    ("moments", "moments"),
    ("remainders", "moments"),
    ("activations", "activations"),
    ("snapshot", "snapshot"),
)


def memory(paths: RealmPaths, config: Config) -> dict[str, Any]:
    """The plan for the hero of `config` on this machine; `problem` says why there is none."""
    try:
        folder = _folder(paths, config)
        if folder is None:
            return {"problem": None, "plan": None}
        found = choose(config, Shape.read(folder), _machine(config), frozen(folder), expected(paths, config))
    except UserError as problem:
        return {"problem": str(problem), "plan": None}
    return {"problem": None, "plan": _words(found, folder.name)}


def _folder(paths: RealmPaths, config: Config) -> Path | None:
    """The hero's newest checkpoint, else the model it is to start from; None for a micro hero."""
    tip = pointed(paths.tip)
    if tip and hero_of(paths, tip) == config.hero.name:
        return paths.vault / tip
    return base_model(paths, config)


def _machine(config: Config) -> Machine:
    """As the trainer will see it: the first GPU where there is one that it may use."""
    gpus = read_gpus() if os.environ.get("CUDA_VISIBLE_DEVICES") != "" else []
    room = next((gpu["memory_total_bytes"] for gpu in gpus if gpu["memory_total_bytes"]), None)
    return a_gpu(room, config.memory.gib) if room else this_cpu(config.memory.gib)


def _words(found: Plan, name: str) -> dict[str, Any]:
    here = [part for part in found.components if part.counts and not part.host]
    aside = [part for part in found.components if not part.counts or part.host]
    whole = max(found.room_bytes, found.total_bytes)
    parts = [(_kind(part), part.name, part.bytes) for part in here]
    return {
        "name": name,
        "parameters": found.parameters,
        "memory": "GPU memory" if found.target == CUDA else "main memory",
        "room": found.room_bytes,
        "total": found.total_bytes,
        "headroom": abs(found.headroom_bytes),
        "fits": found.fits,
        "max_length": found.max_length,
        "bar": segments([*parts, ("free", "headroom", max(0, found.headroom_bytes))], whole),
        "limit": round(1000 * found.room_bytes / whole, 1),
        "parts": [{"kind": kind, "name": name, "bytes": count} for kind, name, count in parts],
        "aside": [{"name": part.name, "bytes": part.bytes, "where": _where(part)} for part in aside],
        "means": _means(found),
        "reasons": found.reasons,
        "advice": found.advice,
    }


def _kind(part: Component) -> str:
    return next((kind for beginning, kind in KINDS if part.name.startswith(beginning)), "rest")


def _where(part: Component) -> str:
    return "in main memory" if part.host else "not at the peak"


def _means(found: Plan) -> list[tuple[str, str]]:
    means = found.means
    again = f"one layer in {means.recompute_every}" if means.recompute_every else "none"
    return [
        ("Weights", means.weights if means.rounding == "none" else f"{means.weights}, {means.rounding} rounding"),
        ("Computed in", means.compute),
        ("Moments", means.moments),
        ("Gradients", "released one by one" if means.release else "kept for the step"),
        ("Layers computed again", again),
        ("Tokens a pass", f"{means.pack_tokens:,}"),
    ]
