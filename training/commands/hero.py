"""`hero list|show|hatch|fetch|switch`: who is trained, and where a new hero comes from."""

import os
import re
from pathlib import Path
from typing import Any

from core.config_edit import save, seen
from core.durable import sync_folder
from core.errors import UserError, nearest
from core.hero import base_models, describe, reserved
from core.paths import RealmPaths
from core.roster import HATCHED, Known, known_heroes, take_up
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import bytes_text, cell_text, styled, table

FETCHED = ("*.safetensors", "*.json", "*.jinja", "*.txt")  # data only: no pickles, no code


def register(verbs) -> None:
    actions = group(verbs, "hero", "the model in training: list, show, hatch, fetch, switch")
    verb(actions, "list", list_heroes, "the heroes, and the models below models/ that another can start from")
    verb(actions, "show", show, "the hero: name, newest checkpoint, step, shape")
    verb(actions, "hatch", hatch, "make checkpoint 0 now, from the base model or from random weights")
    parser = verb(actions, "fetch", fetch, "download a model from the Hugging Face Hub into models/")
    parser.add_argument("name", metavar="OWNER/NAME", help="e.g. Qwen/Qwen3-0.6B")
    parser.add_argument("--revision", help="a commit, tag or branch (default: the newest)")
    parser = verb(actions, "switch", switch, "train another hero: one that is known, or a new one from a model")
    parser.add_argument("hero", metavar="NAME_OR_BASE", help="a hero of `hero list`, or a folder below models/")
    parser.add_argument(
        "--name", help="of a new hero, from the folder NAME_OR_BASE (default: made from the folder's name)"
    )


def list_heroes(realm: Realm) -> None:
    heroes, bases = _heroes(realm), base_models(realm.existing)
    told = [{"kind": "base", **base} for base in bases]
    told += [{"kind": "hero", "problem": None, **hero.facts()} for hero in heroes.values()]
    realm.report(told, lambda: f"{_hero_table(heroes)}\n\n{_base_table(realm.paths, bases)}")


def _hero_table(heroes: dict[str, Known]) -> str:
    rows = [(hero.facts(), "on" if hero.on else None) for hero in heroes.values()]
    shown = ("name", "base_model", "global_step", "checkpoint", "standing")
    return table(
        ("hero", "from", "step", "newest checkpoint", "standing", "switched"),
        ((*(facts[name] for name in shown), on) for facts, on in rows),
    )


def _base_table(paths: RealmPaths, bases: list[dict[str, Any]]) -> str:
    if not bases:
        return f"models/: none; bring one to {paths.models}, `hero fetch` one, or hatch a micro hero"
    rows = (
        (
            base["name"],
            base["model_type"],
            bytes_text(base["bytes"]),
            base["problem"],
            ", ".join(base["never_read"]) or None,
        )
        for base in bases
    )
    return table(("models/", "type", "weights", "problem", "never read"), rows)


def _heroes(realm: Realm) -> dict[str, Known]:
    return known_heroes(realm.existing, realm.config, realm.ledger)


def show(realm: Realm) -> None:
    about = describe(realm.existing, realm.config)
    realm.report(about, lambda: "\n".join(f"{name:14} {cell_text(value)}" for name, value in about.items()))


def hatch(realm: Realm) -> None:
    realm.refuse_while_running("a hero is hatched")
    about = describe(realm.existing, realm.config)
    if about["checkpoint"]:
        raise UserError(
            f"the hero {about['name']} exists already, at checkpoint {about['checkpoint']}; "
            f"`config set hero.name OTHER` names a new one"
        )
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true", OMP_WAIT_POLICY="passive")
    from core.forge.hatch import hatch as make_hero  # torch

    manifest = make_hero(realm.paths, realm.config)
    realm.report(
        {"checkpoint": manifest.id, "bytes": manifest.bytes},
        f"{manifest.hero} has hatched: {manifest.id}, {bytes_text(manifest.bytes)}",
    )


def fetch(realm: Realm) -> None:
    name, revision = realm.args.name, realm.args.revision
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UserError(f"{name!r} must be OWNER/NAME as on the Hugging Face Hub, e.g. Qwen/Qwen3-0.6B")
    target = realm.existing.models / name.rpartition("/")[2]
    if reserved(target.name):
        raise UserError(f"models/{target.name} means something else to the realm; `hero fetch` another")
    if target.exists():
        raise UserError(f"{target} is there already; remove it to fetch it anew")
    download(name, revision, target, quiet=realm.args.json)
    size = sum(file.stat().st_size for file in target.iterdir() if file.is_file())
    base = next(
        (base for base in base_models(realm.paths) if base["name"] == target.name), {"problem": "it has no config.json"}
    )
    warning = f"\n{styled('It cannot be a hero: ' + base['problem'], 'red')}" if base["problem"] else ""
    realm.report(
        {"name": target.name, "bytes": size, "problem": base["problem"]},
        f"{target.name}, {bytes_text(size)}, is in models/. `hero switch {target.name}` makes it the hero.{warning}",
    )


def download(name: str, revision: str | None, target: Path, quiet: bool) -> None:
    """Fetch into a folder beside `target`, renamed when all is there; a broken download goes on where it was."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    beside = target.with_name(f".{target.name}.part")
    try:
        if not quiet:
            files = HfApi().model_info(name, revision=revision, files_metadata=True).siblings or []
            size = sum(
                file.size or 0 for file in files if any(Path(file.rfilename).match(pattern) for pattern in FETCHED)
            )
            print(f"{name}: {bytes_text(size)} to fetch", flush=True)
        snapshot_download(
            name, revision=revision, local_dir=beside, allow_patterns=list(FETCHED), ignore_patterns=["*/*"]
        )
    except (RepositoryNotFoundError, RevisionNotFoundError):
        at = f" at {revision}" if revision else ""
        raise UserError(
            f"the Hub has no public model {name!r}{at}; check the name, or set HF_TOKEN for a private one"
        ) from None
    except (HfHubHTTPError, OfflineModeIsEnabled, OSError) as problem:
        why = str(problem).partition("\n")[0] or type(problem).__name__
        raise UserError(
            f"{name} could not be fetched: {why}. Without a network, copy the model's folder to {target}; "
            f"fetching again goes on where it stopped."
        ) from None
    beside.rename(target)
    sync_folder(target.parent)


def switch(realm: Realm) -> None:
    realm.refuse_while_running("the hero is switched")
    wanted, before, heroes = realm.args.hero, realm.config.hero.name, _heroes(realm)
    if wanted in heroes and not realm.args.name:
        name, base = wanted, heroes[wanted].base_model
        if heroes[name].here is None and base:
            _check_base(realm.existing, base, heroes)
        changes = {}
    else:
        base, name = wanted, realm.args.name or _hero_name(wanted)
        _check_base(realm.existing, base, heroes)
        _check_not_born_elsewhere(heroes.get(name), base)
        changes = {f"heroes.{name}.base_model": base}
    save(realm.paths.config, {"hero.name": name} | changes, seen(realm.paths.config))
    hero = heroes.get(name)
    if hero:
        take_up(realm.paths, realm.ledger, hero)
    realm.report({"base_model": base, "name": name, "before": before}, _switched(name, base, hero, before))


def _switched(name: str, base: str | None, hero: Known | None, before: str) -> str:
    back = f" {before}'s checkpoints stay; `hero switch {before}` brings it back." if name != before else ""
    if hero and hero.here:
        return f"The hero is {name}, at step {hero.here.step:,}: {hero.standing}.{back}"
    source = f"models/{base}" if base and base != HATCHED else "the realm's base model, or random weights"
    return f"The hero is {name}, to be born from {source}.{back}"


def _check_not_born_elsewhere(hero: Known | None, base: str) -> None:
    if hero and hero.here and hero.base_model not in (base, None):
        raise UserError(
            f"{hero.name} was born already, from {hero.base_model}: `hero switch {hero.name}` takes it up; "
            f"--name OTHER makes a new hero from {base}"
        )


def _hero_name(base: str) -> str:
    """A hero's name from a folder's: Qwen3-0.6B -> Qwen3_0_6B."""
    name = re.sub(r"\W", "_", base, flags=re.ASCII).lstrip("_0123456789")[:32]
    return name or "Hero"


def _check_base(paths: RealmPaths, name: str, heroes: dict[str, Known]) -> None:
    found = {base["name"]: base for base in base_models(paths)}
    if name not in found:
        near = nearest(name, [*heroes, *found]) or "."
        raise UserError(
            f"{name!r} is neither a hero nor in models/{near} Heroes: {', '.join(heroes)}. "
            f"In models/: {', '.join(found) or 'none'}"
        )
    if found[name]["problem"]:
        raise UserError(f"models/{name}: {found[name]['problem']}")
