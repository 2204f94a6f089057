"""Who the hero is and where it comes from, read from disk without torch.

models/current_model -> Vault      a hero that exists
models/<base model>/               what the user brought; the next hero starts from it
core/assets/tokenizer/             what a hatched micro hero speaks
"""

import os
from pathlib import Path
from typing import Any

from core.checkpoints import manifests, pointed, read
from core.config import Config
from core.durable import read_json
from core.errors import CheckpointError, UserError, nearest
from core.model_folder import model_type, never_read, problem
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.progress import mastered_in, tip_of

_RESERVED = {"vault", "current_model", "champion", "tip"}  # folders of the realm, and names that a checkpoint goes by


def reserved(name: str) -> bool:
    """Whether no base model can be called so: below models/ or among checkpoints the name means something else."""
    return name.lower() in _RESERVED


def base_models(paths: RealmPaths) -> list[dict[str, Any]]:
    """The folders below models/ in Hugging Face layout: name, architecture, bytes of weights, why one cannot be used, and
    the files in it that are never read."""
    folders = sorted(path for path in paths.models.iterdir()) if paths.models.is_dir() else []
    return [
        _describe_base(path)
        for path in folders
        if not reserved(path.name) and not path.name.startswith(".") and os.path.lexists(path / "config.json")
    ]


def _describe_base(path: Path) -> dict[str, Any]:
    return {
        "name": path.name,
        "model_type": model_type(path),
        "bytes": sum(file.lstat().st_size for file in path.glob("*.safetensors")),
        "problem": problem(path),
        "never_read": never_read(path),
    }


def base_model(paths: RealmPaths, config: Config) -> Path | None:
    """The folder a new hero starts from, None for a micro hero. Raises UserError where the choice is wrong or unclear."""
    found = {base["name"]: base for base in base_models(paths)}
    wanted = config.hero.base_model
    if wanted is None and len(found) > 1:
        raise UserError(
            f"models/ holds {', '.join(found)}; say which one the hero is: "
            f"`config set hero.base_model {next(iter(found))}`"
        )
    name = wanted or next(iter(found), None)
    if name is None:
        return None
    if name not in found:
        raise UserError(
            f"hero.base_model = {name!r} is not in models/{nearest(name, found) or '.'} "
            f"Bring it there, or get it by `hero fetch {name}`."
        )
    if found[name]["problem"]:
        raise UserError(f"models/{name}: {found[name]['problem']}")
    return paths.models / name


def tokenizer_folder(paths: RealmPaths, config: Config) -> Path:
    """The folder whose tokenizer and chat template the hero speaks, or will speak when it is born."""
    current = pointed(paths.current_model)
    if current and hero_of(paths, current) == config.hero.name:
        return paths.vault / current
    return base_model(paths, config) or BUNDLED_TOKENIZER


def hero_of(paths: RealmPaths, checkpoint: str) -> str | None:
    """Whose checkpoint it is, as its manifest says, which alone knows: names may begin alike. None if it cannot be read."""
    try:
        return read(paths.vault / checkpoint).hero
    except CheckpointError:
        return None


def describe(paths: RealmPaths, config: Config) -> dict[str, Any]:
    """The hero's identity for `hero show`: name, base, where it stands, mastered levels, model shape. Where the tip is
    another hero's, it stands at its newest checkpoint."""
    name = config.hero.name
    here = tip_of(paths, name) or next((each for each in manifests(paths, name) if each.branch is None), None)
    folder = tokenizer_folder(paths, config)
    shape = read_json(folder / "config.json", {})
    keys = (
        "model_type",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "vocab_size",
    )
    return {
        "name": name,
        "base_model": config.hero.base_model,
        "checkpoint": here.id if here else None,
        "global_step": here.step if here else 0,
        "current_model": pointed(paths.current_model),
        "mastered": mastered_in(here),
        "shape": {key: shape[key] for key in keys if key in shape},
    }
