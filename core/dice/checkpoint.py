"""A rolled training as a folder: weights and state as safetensors and JSON, so that nothing in it can execute on loading.

It knows what a trainer hands it, and nothing of games.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model

from core import durable
from core.errors import UserError
from core.forge.state import give_streams, give_tensors, take_streams, take_tensors

WEIGHTS, TENSORS, VALUES = "model.safetensors", "training_state.safetensors", "training_state.json"
ONE_FILE = "10000GB"


def save(folder: Path, model: torch.nn.Module, tokenizer: Any, state: Mapping[str, Any]) -> None:
    """Write all to `folder`, in place of an earlier checkpoint there, whose name it has once it is whole and on disk.

    Files of others stay. Raises UserError for a folder of others.
    """
    folder = folder.resolve()
    building, old = _beside(folder, "building"), _beside(folder, "old")
    _finish(folder, old)
    if folder.exists() and not ((folder / VALUES).is_file() or (folder.is_dir() and not any(folder.iterdir()))):
        raise UserError(f"{folder}: is not empty and holds no checkpoint of Roll-to-Train; save to another folder")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    _save_model(model, building)
    if tokenizer is not None:
        tokenizer.save_pretrained(building)
    tensors: dict[str, torch.Tensor] = {}
    values = take_tensors({**state, "streams": streams()}, "state", tensors)
    own = [path.name for path in building.iterdir()] + [TENSORS, VALUES]
    try:
        text = orjson.dumps(
            {"files": own, "state": values}, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
        )
    except TypeError as problem:
        raise UserError(
            f"{folder}: a state of optimizer or scheduler cannot be written as JSON: {problem}"
        ) from problem
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, building / TENSORS)
    (building / VALUES).write_bytes(text)
    for path in (*building.rglob("*"), building):
        durable.sync_folder(path) if path.is_dir() else durable.sync_file(path)
    if folder.exists():
        folder.rename(old)
    durable.move(building, folder)
    _finish(folder, old)


def _beside(folder: Path, word: str) -> Path:
    return folder.with_name(f".{folder.name}.{word}")


def _finish(folder: Path, old: Path) -> None:
    """End what a save began, also one that was interrupted: `old` goes, but for the files of others, or is `folder` again."""
    if not old.is_dir():
        return
    if not folder.exists():
        durable.move(old, folder)
        return
    own = durable.read_json(old / VALUES, {}).get("files", [])
    for path in old.iterdir():
        if path.name not in own and not (folder / path.name).exists():
            path.rename(folder / path.name)
    shutil.rmtree(old)


def read(folder: Path) -> dict[str, Any]:
    """The state as it was handed to `save`, with the random `streams`. Raises UserError."""
    folder = _whole(folder)
    try:
        tensors = load_file(folder / TENSORS)
        values = give_tensors(orjson.loads((folder / VALUES).read_bytes())["state"], tensors)
    except (OSError, KeyError, TypeError, SafetensorError, orjson.JSONDecodeError) as problem:
        raise UserError(f"{folder}: is no checkpoint of Roll-to-Train: {problem}") from problem
    return values


def read_weights(folder: Path, model: torch.nn.Module) -> None:
    """Put the weights back. Raises UserError."""
    folder = _whole(folder)
    try:
        load_model(model, folder / WEIGHTS)
    except (OSError, RuntimeError, SafetensorError) as problem:
        raise UserError(f"{folder}: is no checkpoint of this model: {problem}") from problem


def _whole(folder: Path) -> Path:
    """`folder`, or the checkpoint before it where a save was interrupted between the two."""
    folder = folder.resolve()
    old = _beside(folder, "old")
    return old if old.is_dir() and not folder.exists() else folder


def _save_model(model: torch.nn.Module, folder: Path) -> None:
    """As plain transformers loads it, if it is one of theirs."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder, max_shard_size=ONE_FILE)
    else:
        save_model(model, folder / WEIGHTS)


def generators(loader: Any) -> list[torch.Generator]:
    """Those that a data loader draws from beside the process's streams: its own, its samplers'; each once."""
    holders = (loader, getattr(loader, "sampler", None), getattr(loader, "batch_sampler", None))
    found = [getattr(holder, "generator", None) for holder in holders]
    return list({id(each): each for each in found if isinstance(each, torch.Generator)}.values())


def streams(own: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """All random streams of this process: torch's, its GPU's, Python's, NumPy's; and a data loader's `own`."""
    tensors: dict[str, torch.Tensor] = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    tensors |= {f"own.{place}": generator.get_state() for place, generator in enumerate(own)}
    values = take_streams(tensors)
    return {"tensors": tensors, "values": values}


def put_back(known: dict[str, Any], own: Sequence[torch.Generator] = ()) -> None:
    """Go on where they were."""
    for place, generator in enumerate(own):
        if f"own.{place}" in known["tensors"]:
            generator.set_state(known["tensors"][f"own.{place}"])
    torch.set_rng_state(known["tensors"]["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in known["tensors"]:
        torch.cuda.set_rng_state(known["tensors"]["rng.cuda"])
    give_streams(known["values"], known["tensors"])
