"""A model folder for use elsewhere: weights, tokenizer and a card that says where they come from. Knows no torch.

It is built beside its place and renamed, so that it is whole or not there. What the weights are is the caller's: those of
a checkpoint as they lie in the Vault, or cooled ones.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from core.checkpoints import Manifest, read
from core.durable import move, read_json, sync_file, sync_folder, write_json
from core.errors import CheckpointError, UserError
from core.ledger import Ledger
from core.paths import RealmPaths

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer*.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
CARD = "README.md"
LONG_NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
SCORES = {"accuracy": "held-out token accuracy of the last battle", "preview": "score of its previewed answers"}
SHOWN_QUESTS, SHOWN_PARENTS = 50, 20


def check_target(target: Path) -> Path:
    """`target`, absolute, if a folder can be made there. Raises UserError."""
    target = target.expanduser().absolute()
    if os.path.lexists(target):
        raise UserError(f"{target} exists already; name another folder with --to, or remove it")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise UserError(f"{target} cannot be made: {problem.strerror}; name another folder with --to") from None
    return target


def copy_model(checkpoint: Path, manifest: Manifest, folder: Path) -> None:
    """The files of a checkpoint that make up its model, without what only goes on with training."""
    for name in manifest.files:
        if any(fnmatch(name, pattern) for pattern in MODEL_FILES):
            shutil.copyfile(checkpoint / name, folder / name)


def settle_config(folder: Path, dtype: str | None) -> None:
    """What a model that is used says in its config.json, and one in training may not: a cache, and the kind of numbers."""
    config = read_json(folder / "config.json", {})
    config["use_cache"] = True
    if dtype:
        config["dtype"] = LONG_NAMES[dtype]
    write_json(folder / "config.json", config)


def export(target: Path, card: str, write: Callable[[Path], None]) -> None:
    """Let `write(folder)` write the model's files, add the card, and give the folder its name."""
    building = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    building.mkdir()
    try:
        write(building)
        (building / CARD).write_text(card, encoding="utf-8")
        for file in building.iterdir():
            sync_file(file)
        sync_folder(building)
        move(building, target)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def lineage(paths: RealmPaths, manifest: Manifest) -> list[str]:
    """Its ancestors' ids, newest first, as far back as the Vault still has them; the last is named though it be gone."""
    found: list[str] = []
    parent = manifest.parent
    while parent and parent not in found and len(found) < SHOWN_PARENTS:
        found.append(parent)
        try:
            parent = read(paths.vault / parent).parent
        except CheckpointError:
            break
    return found


def quests_held(ledger: Ledger, manifest: Manifest) -> list[dict[str, Any]]:
    """What the ledger knows of the quests trained, newest first."""
    query = "SELECT id, stem, rows, school FROM quests WHERE id BETWEEN ? AND ? AND state='recently_completed'"
    rows = [row for ends in manifest.trained for row in ledger.all(query, ends)]
    return sorted(rows, key=lambda row: -row["id"])


def model_card(
    paths: RealmPaths,
    ledger: Ledger,
    manifest: Manifest,
    cooldown: dict[str, Any] | None,
    dtype: str | None = None,
) -> str:
    """The card of `manifest`'s model; `cooldown` as its settings record it, None for weights as training left them."""
    quests = quests_held(ledger, manifest)
    facts = [
        ("hero", manifest.hero),
        ("campaign", manifest.campaign),
        ("checkpoint", manifest.id),
        ("optimizer steps", f"{manifest.step:,}"),
        ("comes from", " ← ".join(lineage(paths, manifest)) or None),
        ("quests trained", f"{len(quests):,}"),
        ("held-out loss of the last battle", _loss(manifest.validation_loss)),
        *_scores(ledger, manifest),
        *_cooldown_facts(cooldown),
        ("numbers", dtype and LONG_NAMES[dtype]),
        ("made with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    ]
    lines = ["---", "library_name: transformers", "pipeline_tag: text-generation", "---", "", f"# {manifest.hero}", ""]
    lines += ["| | |", "|---|---|", *(f"| {name} | {_cell(value)} |" for name, value in facts if value)]
    lines += ["", "```python", "from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    lines += [
        'model = AutoModelForCausalLM.from_pretrained(".")',
        'tokenizer = AutoTokenizer.from_pretrained(".")',
        "```",
    ]
    lines += ["", "Quests, newest first:", "", "| Quest | Name | Rows | School |", "|---:|---|---:|---|"]
    shown = quests[:SHOWN_QUESTS]
    lines += [f"| {row['id']} | {_cell(row['stem'])} | {row['rows']} | {row['school']} |" for row in shown]
    lines += [f"\n… and {len(quests) - len(shown):,} more."] if len(quests) > len(shown) else []
    return "\n".join([*lines, ""])


def _scores(ledger: Ledger, manifest: Manifest) -> list[tuple[str, str | None]]:
    """The newest of each kind up to the checkpoint's step, of the quest in whose battle it was saved."""
    query = "SELECT value FROM evaluations WHERE hero=? AND kind=? AND quest=? AND step<=? ORDER BY id DESC"
    found = {kind: ledger.one(query, (manifest.hero, kind, manifest.quest, manifest.step)) for kind in SCORES}
    return [(SCORES[kind], f"{row['value']:.1%}" if row else None) for kind, row in found.items()]


def _cooldown_facts(cooldown: dict[str, Any] | None) -> list[tuple[str, str | None]]:
    if cooldown is None:
        return [("cooldown", "none: the weights are as training left them")]
    how = f"{cooldown['steps']:,} steps, the learning rate from {cooldown['learning_rate']:g} to 0"
    return [
        ("cooldown", how),
        ("cooled down on", f"{cooldown['rows']:,} rows of quests {', '.join(map(str, cooldown['quests']))}"),
        ("held-out loss of those quests before", _loss(cooldown["loss_before"])),
        ("held-out loss of those quests after", _loss(cooldown["loss_after"])),
    ]


def _loss(value: float | None) -> str | None:
    return None if value is None else f"{value:.4f} nats a token"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")
