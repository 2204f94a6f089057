"""A rolled training as a folder: weights and state as safetensors and JSON, so that nothing in it can execute on loading.

It knows what a trainer hands it, and nothing of games.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_file, save_model

from core.errors import UserError
from core.forge.state import give_streams, give_tensors, take_streams, take_tensors

WEIGHTS, TENSORS, VALUES = "model.safetensors", "training_state.safetensors", "training_state.json"
ONE_FILE = "10000GB"


def save(folder: Path, model: torch.nn.Module, tokenizer: Any, state: Mapping[str, Any]) -> None:
    """Write all to `folder`, in place of what was there; until it is whole it has another name. Raises UserError."""
    building, old = (folder.with_name(f".{folder.name}.{word}") for word in ("building", "old"))
    for left in (building, old):
        shutil.rmtree(left, ignore_errors=True)
    building.mkdir(parents=True)
    _save_model(model, building)
    if tokenizer is not None:
        tokenizer.save_pretrained(building)
    tensors: dict[str, torch.Tensor] = {}
    values = take_tensors({**state, "streams": streams()}, "state", tensors)
    try:
        text = orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as problem:
        raise UserError(
            f"{folder}: a state of optimizer or scheduler cannot be written as JSON: {problem}"
        ) from problem
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, building / TENSORS)
    (building / VALUES).write_bytes(text)
    if folder.exists():
        folder.rename(old)
    building.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def load(folder: Path, model: torch.nn.Module, dice: dict[str, Any]) -> dict[str, Any]:
    """Put weights and random streams back; the state as it was handed to `save`. `dice`: what they must have been. Raises
    UserError, with nothing changed where the dice are others."""
    try:
        tensors = load_file(folder / TENSORS)
        values = give_tensors(orjson.loads((folder / VALUES).read_bytes()), tensors)
        other = {name: value for name, value in values["dice"].items() if dice.get(name) != value}
        if other:
            raise UserError(
                f"{folder}: was rolled with other dice: {', '.join(f'{k} = {v!r}' for k, v in other.items())}"
            )
        load_model(model, folder / WEIGHTS)
    except (OSError, KeyError, RuntimeError, SafetensorError, orjson.JSONDecodeError) as problem:
        raise UserError(f"{folder}: is no checkpoint of this model: {problem}") from problem
    put_back(values.pop("streams"))
    return values


def _save_model(model: torch.nn.Module, folder: Path) -> None:
    """As plain transformers loads it, if it is one of theirs."""
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(folder, max_shard_size=ONE_FILE)
    else:
        save_model(model, folder / WEIGHTS)


def streams(own: torch.Generator | None = None) -> dict[str, Any]:
    """All random streams of this process: torch's, its GPU's, Python's, NumPy's; and a data loader's `own`."""
    tensors: dict[str, torch.Tensor] = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    if own is not None:
        tensors["own"] = own.get_state()
    values = take_streams(tensors)
    return {"tensors": tensors, "values": values}


def put_back(known: dict[str, Any], own: torch.Generator | None = None) -> None:
    """Go on where they were."""
    if own is not None and "own" in known["tensors"]:
        own.set_state(known["tensors"]["own"])
    torch.set_rng_state(known["tensors"]["rng.cpu"])
    if torch.cuda.is_available() and "rng.cuda" in known["tensors"]:
        torch.cuda.set_rng_state(known["tensors"]["rng.cuda"])
    give_streams(known["values"], known["tensors"])
