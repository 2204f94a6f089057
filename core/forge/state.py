"""Model, optimizer and random state to files and back, as safetensors and JSON: nothing here can execute on loading."""

import math
import random
import shutil
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from core.checkpoints import STATE_FILES
from core.errors import CheckpointError
from core.forge.guard import Record
from core.forge.step_guard import StepGuard

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
OPTIMIZER, STATE = STATE_FILES
MAX_SHARD = "5GB"


class Carried(Protocol):
    """What a checkpoint carries beside the optimizer: a battle's dice."""

    def take(self, tensors: dict[str, torch.Tensor]) -> dict[str, Any] | None:
        """As JSON, its tensors put into `tensors`; None for nothing."""

    def load(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Go on as `take` said."""


def save_model(model: torch.nn.Module, folder: Path, tokenizer: Path) -> None:
    """Weights, config and the tokenizer files of `tokenizer`, in the layout that plain transformers loads.

    Raises CheckpointError where there is no tokenizer: weights without one are of no use to anybody.
    """
    folder.mkdir(parents=True, exist_ok=True)
    copy_tokenizer(tokenizer, folder)
    model.config.use_cache = True
    model.save_pretrained(folder, max_shard_size=MAX_SHARD)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """The tokenizer files of `source`. Raises CheckpointError where it has none."""
    if not (source / "tokenizer.json").is_file():
        raise CheckpointError(f"{source} has no tokenizer.json")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def save_state(
    folder: Path, optimizer: torch.optim.Optimizer, guard: StepGuard | None = None, rolled: Carried | None = None
) -> None:
    """Optimizer moments, the random streams, what the guard remembers and where the dice stand, beside the model's files."""
    tensors, text = take_state(optimizer, guard, rolled)
    save_file(tensors, folder / OPTIMIZER)
    (folder / STATE).write_bytes(text)


def take_state(
    optimizer: torch.optim.Optimizer, guard: StepGuard | None = None, rolled: Carried | None = None
) -> tuple[dict[str, torch.Tensor], bytes]:
    """What `OPTIMIZER` and `STATE` hold: the tensors themselves, not copies of them, and what stands around them."""
    tensors: dict[str, torch.Tensor] = {}
    values: dict[str, Any] = {"optimizer": take_tensors(optimizer.state_dict(), "optimizer", tensors)}
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    values["random"] = take_streams(tensors)
    if guard is not None:
        tensors["guard.running"] = guard.running
        values["guard"] = guard.record.values()
    if rolled is not None and (game := rolled.take(tensors)):
        values["dice"] = game
    return tensors, orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS)


def load_state(
    folder: Path, optimizer: torch.optim.Optimizer, guard: StepGuard | None = None, rolled: Carried | None = None
) -> None:
    """Put back what `save_state` wrote. Raises CheckpointError where it is not there; it is never skipped in silence."""
    try:
        tensors = load_file(folder / OPTIMIZER)
        random_state = tensors["rng.cpu"]
        values = orjson.loads((folder / STATE).read_bytes())
        state = give_tensors(values["optimizer"], tensors)
    except (OSError, KeyError, SafetensorError, orjson.JSONDecodeError) as problem:
        raise CheckpointError(f"{folder.name}: the optimizer's state cannot be read: {problem}") from problem
    optimizer.load_state_dict(state)
    torch.set_rng_state(random_state)
    if torch.cuda.is_available() and "rng.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["rng.cuda"])
    if "random" in values:  # checkpoints made before this was kept lack it
        give_streams(values["random"], tensors)
    if guard is not None and "guard" in values:
        guard.load(tensors["guard.running"], Record.of(values["guard"]))
    if rolled is not None and "dice" in values:
        rolled.load(values["dice"], tensors)


def seed_streams(seed: int) -> None:
    """Where a hero's life begins."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def take_streams(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Python's and NumPy's random streams; nothing of ours draws from them in a battle, other people's code may."""
    version, python, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = np.random.get_state()
    tensors["rng.python"] = torch.tensor(python, dtype=torch.int64)
    tensors["rng.numpy"] = torch.from_numpy(keys.astype(np.int64))
    return {"python": [version, gauss], "numpy": [kind, int(place), int(has_gauss), float(cached)]}


def give_streams(values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    (version, gauss), (kind, place, has_gauss, cached) = values["python"], values["numpy"]
    random.setstate((version, tuple(tensors["rng.python"].tolist()), gauss))
    np.random.set_state((kind, tensors["rng.numpy"].numpy().astype(np.uint32), place, has_gauss, cached))


def has_state(folder: Path) -> bool:
    """Whether a checkpoint carries an optimizer; checkpoint 0 has none."""
    return (folder / OPTIMIZER).is_file()


def take_tensors(node: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    """`node` as JSON, its tensors moved into `tensors` and replaced by their names."""
    if isinstance(node, torch.Tensor):
        tensors[name] = node.detach().contiguous()
        return {"$tensor": name}
    if isinstance(node, dict):
        return {"$dict": [[key, take_tensors(value, f"{name}.{key}", tensors)] for key, value in node.items()]}
    if isinstance(node, (list, tuple)):
        return [take_tensors(value, f"{name}.{index}", tensors) for index, value in enumerate(node)]
    if isinstance(node, float) and not math.isfinite(node):  # JSON has none of these
        return {"$float": str(float(node))}
    return node


def give_tensors(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    """What `take_tensors` was given; tuples are lists."""
    if isinstance(node, dict) and "$tensor" in node:
        return tensors[node["$tensor"]]
    if isinstance(node, dict) and "$float" in node:
        return float(node["$float"])
    if isinstance(node, dict):
        return {key: give_tensors(value, tensors) for key, value in node["$dict"]}
    if isinstance(node, list):
        return [give_tensors(value, tensors) for value in node]
    return node
