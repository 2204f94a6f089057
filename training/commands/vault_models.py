"""`vault export|cooldown`: models made from checkpoints, in this process and its own memory, while the trainer goes on."""

import os
import sys
import time
from argparse import ArgumentTypeError
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from core.checkpoints import Manifest, commit, holding, record, verify
from core.cooldown_plan import CooldownPlan, cooldown_plan
from core.errors import RealmError, UserError
from core.jobs import job
from core.quest import Settings
from management import gguf
from management.export import LONG_NAMES, check_target, copy_model, export, model_card, settle_config
from management.vault import find
from monitoring.gpu import read_gpus
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import duration_text

AUTO = "auto"
WHICH = "a checkpoint: its name or the beginning of it, one given by `vault tag`, or tip, current, champion"
NICENESS = 10
TOLD_SECONDS = 2.0
GPU_SHARE = 3  # times a checkpoint's bytes: weights, moments, gradients, activations


def register(actions) -> None:
    parser = verb(
        actions,
        "export",
        lambda realm: export_model(realm, find(realm.existing, realm.ledger, realm.args.id)),
        "write a model folder that transformers loads, cooled down aside; training goes on undisturbed",
    )
    parser.add_argument("id", metavar="ID", help=WHICH)
    parser.add_argument("--to", metavar="DIR", help="the folder to make (default: exports/ID)")
    parser.add_argument(
        "--cooldown",
        metavar="STEPS",
        type=cooldown_steps,
        default=AUTO,
        help="steps with a falling learning rate; auto: a tenth of those since birth; 0: none",
    )
    parser.add_argument("--dtype", choices=tuple(LONG_NAMES), help="kind of numbers (default: the hero's own)")
    parser.add_argument(
        "--gguf",
        action="store_true",
        help="a GGUF file and an Ollama Modelfile too, by llama.cpp's converter (LLAMA_CPP)",
    )
    parser = verb(
        actions,
        "cooldown",
        lambda realm: cool_down(realm, find(realm.existing, realm.ledger, realm.args.id)),
        "add a cooled-down branch of a checkpoint to the Vault; training goes on undisturbed",
    )
    parser.add_argument("id", metavar="ID", help=WHICH)
    parser.add_argument("--steps", metavar="STEPS", type=_some_steps, default=AUTO, help="how many (default: auto)")


def _some_steps(given: str) -> int | str:
    if cooldown_steps(given) == 0:
        raise ArgumentTypeError("a cooldown has at least 1 step")
    return cooldown_steps(given)


def cooldown_steps(given: str) -> int | str:
    """`--cooldown`'s value: a number of steps or `auto`."""
    if given == AUTO or given.isdecimal():
        return given if given == AUTO else int(given)
    raise ArgumentTypeError(f"{given!r}: give a number of steps, auto, or 0 for none")


def export_model(realm: Realm, checkpoint: str) -> None:
    """Write the model of a checkpoint, cooled down unless told otherwise, into a folder that transformers loads."""
    args = realm.args
    target = check_target(Path(args.to) if args.to else realm.existing.exports / checkpoint)
    source = realm.paths.vault / checkpoint
    script = gguf.converter() if args.gguf else None
    with (
        job(realm.ledger, "export", "vault", f"{checkpoint} to {target}"),
        holding(source),
        _readable_errors("exported"),
    ):
        manifest = verify(source)
        plan = _plan(realm, manifest, args.cooldown)
        if plan is None:
            told, made = manifest.settings.get("cooldown"), manifest
            write = partial(copy_model, source, manifest)
        else:
            hero = _cooled(realm, manifest, plan)
            told, made = asdict(hero.told), replace(hero.branch(), id=manifest.id)
            write = partial(hero.write, tokenizer=source)
        ready = partial(_make_ready, write, args.dtype, script and partial(gguf.convert, script, name=checkpoint))
        export(target, model_card(realm.paths, realm.ledger, made, told, args.dtype), ready)
    realm.ledger.event("vault", "model_exported", f"{checkpoint} is exported to {target}.", checkpoint=checkpoint)
    facts = {"checkpoint": checkpoint, "dtype": args.dtype, "gguf": script is not None}
    realm.report(
        {**facts, "folder": str(target), "step": made.step, "cooldown": told},
        "\n".join([*_lines(told), f"exported to {target}", *_ollama(target, script)]),
    )


def _make_ready(write: Callable, dtype: str | None, convert: Callable | None, folder: Path) -> None:
    """The model's files as they are to be used elsewhere."""
    write(folder)
    if dtype:
        from core.forge.consolidate import recast  # torch

        recast(folder, dtype)
    settle_config(folder, dtype)
    if convert:
        convert(folder=folder, dtype=dtype)


def _ollama(target: Path, script: Path | None) -> list[str]:
    return [f"`ollama create NAME -f {target / gguf.MODELFILE}` brings it into Ollama"] if script else []


def cool_down(realm: Realm, checkpoint: str) -> None:
    """Commit a cooled-down branch of a checkpoint to the Vault."""
    source = realm.existing.vault / checkpoint
    with job(realm.ledger, "cooldown", "vault", checkpoint), holding(source), _readable_errors("committed"):
        manifest = verify(source)
        if problem := _needs_none(manifest):
            raise UserError(f"{checkpoint} {problem}")
        hero = _cooled(realm, manifest, _plan(realm, manifest, realm.args.steps))
        branch = commit(realm.paths, hero.branch(), partial(hero.write, tokenizer=source))
    record(realm.ledger, branch, "saved")
    told = asdict(hero.told)
    realm.ledger.event(
        "vault", "checkpoint_cooled", f"{branch.id} is {checkpoint}, cooled down.", checkpoint=branch.id, **told
    )
    realm.report(
        {"checkpoint": branch.id, "parent": checkpoint, "step": branch.step, "cooldown": told},
        "\n".join([*_lines(told), f"committed as {branch.id}"]),
    )


def _needs_none(manifest: Manifest) -> str | None:
    """Why a checkpoint is not cooled down, as what follows its name."""
    if not manifest.step:
        return "has not been trained yet; there is nothing to cool down"
    if manifest.branch:
        return f"is a branch ({manifest.branch}) already; cool down the checkpoint it comes from"
    if str(Settings(**manifest.settings).trainer.get("optim", "")).startswith("schedule_free"):
        return "was trained schedule-free: its weights are an average already, and a cooldown wins nothing"
    return None


def _plan(realm: Realm, manifest: Manifest, steps: int | str) -> CooldownPlan | None:
    """What is trained, None for nothing; `auto` does without where there is nothing to win or no row left."""
    if steps == 0 or (steps == AUTO and _needs_none(manifest)):
        return None
    if steps != AUTO and (problem := _needs_none(manifest)):
        raise UserError(f"{manifest.id} {problem}")
    try:
        return cooldown_plan(realm.paths, manifest, None if steps == AUTO else int(steps))
    except UserError as problem:
        if steps != AUTO or realm.args.action != "export":
            raise
        _say(f"no cooldown: {problem}")
        return None


def _cooled(realm: Realm, manifest: Manifest, plan: CooldownPlan) -> Any:
    """The cooled hero; torch is loaded here, as a guest on a machine that trains."""
    if realm.runs:
        os.nice(NICENESS)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true", OMP_WAIT_POLICY="passive")
    free = [gpu["memory_total_bytes"] - gpu["memory_used_bytes"] for gpu in read_gpus() if gpu["memory_total_bytes"]]
    if free and free[0] < GPU_SHARE * manifest.bytes:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        _say("the GPU has no room for a second hero; the cooldown runs on the CPU")
    _say(f"{manifest.id}: {plan.steps:,} steps on quests {', '.join(map(str, plan.quest_ids))}")
    from core.forge.cooldown import CooledHero

    return CooledHero(realm.paths, manifest, plan, _Progress(plan.steps))


class _Progress:
    """Steps done and time left, on stderr: a line that is written over on a terminal, one now and then elsewhere."""

    def __init__(self, steps: int):
        self.steps, self._spent, self._told = steps, 0.0, time.monotonic()

    def __call__(self, step: int, seconds: float) -> None:
        self._spent += seconds
        now, last = time.monotonic(), step == self.steps
        if now - self._told >= TOLD_SECONDS or last:
            self._told = now
            left = (self.steps - step) * self._spent / step
            text = f"step {step:,} of {self.steps:,}, {duration_text(left)} to go"
            if sys.stderr.isatty():
                print(f"\r\x1b[K{text}", end="\n" if last else "", file=sys.stderr, flush=True)
            else:
                _say(text)


def _lines(cooldown: dict[str, Any] | None) -> list[str]:
    if cooldown is None:
        return ["no cooldown: the weights are as training left them"]
    before, after = cooldown["loss_before"], cooldown["loss_after"]
    losses = f", held-out loss {before:.4f} → {after:.4f}" if None not in (before, after) else ""
    return [f"cooled down by {cooldown['steps']:,} steps on {cooldown['rows']:,} rows{losses}"]


@contextmanager
def _readable_errors(what: str):
    """A disk that is full or not writable is no error of ours."""
    try:
        yield
    except OSError as problem:
        raise RealmError(f"nothing was {what}: {problem}") from problem


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
