"""`vault list|show|verify|export|cooldown`: the checkpoints on disk, with what the ledger knows of them."""

from argparse import ArgumentTypeError
from dataclasses import asdict
from typing import Any

from core.checkpoints import manifests, pointed, read, verify
from core.errors import CheckpointError, UserError, nearest
from core.paths import RealmPaths
from training.commands.vault_models import AUTO, cool_down, cooldown_steps, export_model
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import bytes_text, cell_text, moment_text, styled, table


def register(verbs) -> None:
    actions = group(verbs, "vault", "checkpoints: list, show, verify, export, cooldown")
    verb(actions, "list", list_checkpoints, "every checkpoint, newest first")
    parser = verb(actions, "show", show, "all about one checkpoint: manifest, files, verdict")
    parser.add_argument("id", metavar="ID")
    parser = verb(actions, "verify", verify_checkpoints, "compare every file with its SHA-256")
    parser.add_argument("id", nargs="?", metavar="ID", help="one checkpoint; none verifies all")
    parser = verb(
        actions,
        "export",
        lambda realm: export_model(realm, _known(realm, realm.args.id)),
        "write a model folder that transformers loads, cooled down aside; training goes on undisturbed",
    )
    parser.add_argument("id", metavar="ID", help="a checkpoint, the beginning of its name, or tip, current, champion")
    parser.add_argument("--to", metavar="DIR", help="the folder to make (default: exports/ID)")
    parser.add_argument(
        "--cooldown",
        metavar="STEPS",
        type=cooldown_steps,
        default=AUTO,
        help="steps with a falling learning rate; auto: a tenth of those since birth; 0: none",
    )
    parser = verb(
        actions,
        "cooldown",
        lambda realm: cool_down(realm, _known(realm, realm.args.id)),
        "add a cooled-down branch of a checkpoint to the Vault; training goes on undisturbed",
    )
    parser.add_argument("id", metavar="ID", help="a checkpoint, the beginning of its name, or tip, current, champion")
    parser.add_argument("--steps", metavar="STEPS", type=_some_steps, default=AUTO, help="how many (default: auto)")


def _some_steps(given: str) -> int | str:
    if cooldown_steps(given) == 0:
        raise ArgumentTypeError("a cooldown has at least 1 step")
    return cooldown_steps(given)


def problem_of(paths: RealmPaths, checkpoint: str) -> str | None:
    """Why a checkpoint is not whole, or None."""
    try:
        verify(paths.vault / checkpoint)
        return None
    except CheckpointError as problem:
        return str(problem)


def _ids(realm: Realm) -> list[str]:
    """Checkpoints with a readable manifest, newest first, then those that the ledger has and the disk no more."""
    whole = [manifest.id for manifest in manifests(realm.existing)]
    kept = realm.ledger.all("SELECT id FROM checkpoints WHERE gone IS NULL ORDER BY step DESC")
    return whole + [row["id"] for row in kept if row["id"] not in set(whole)]


def _known(realm: Realm, given: str) -> str:
    """The id that `given`, perhaps its beginning or a pointer's name, means. Raises UserError."""
    pointers = {"tip": realm.paths.tip, "current": realm.paths.current_model, "champion": realm.paths.champion}
    if given in pointers and (checkpoint := pointed(pointers[given])):
        return checkpoint
    ids = _ids(realm)
    matching = [checkpoint for checkpoint in ids if checkpoint == given] or [
        checkpoint for checkpoint in ids if checkpoint.startswith(given)
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UserError(f"{given!r} may be any of {', '.join(matching)}")
    raise UserError(f"the Vault has no checkpoint {given!r}{nearest(given, ids) or '.'} `vault list` shows them")


def _row(realm: Realm, checkpoint: str) -> dict[str, Any]:
    ledger = realm.ledger.one("SELECT * FROM checkpoints WHERE id=?", (checkpoint,)) or {}
    try:
        manifest = asdict(read(realm.paths.vault / checkpoint))
    except CheckpointError:
        manifest = {}
    facts = {**ledger, **manifest}
    current = pointed(realm.paths.current_model) == checkpoint
    return {
        "id": checkpoint,
        "step": facts.get("step"),
        "state": "promoted" if current else ledger.get("state", "saved"),
        "parent": facts.get("parent"),
        "branch": facts.get("branch"),
        "quest": facts.get("quest"),
        "validation_loss": facts.get("validation_loss"),
        "verified": problem_of(realm.paths, checkpoint) is None,
        "champion": pointed(realm.paths.champion) == checkpoint,
        "pinned": bool(ledger.get("pinned")),
        "bytes": ledger.get("bytes") or sum(file["bytes"] for file in manifest.get("files", {}).values()),
        "created": facts.get("created"),
        "tip": pointed(realm.paths.tip) == checkpoint,
        "current": current,
    }


def list_checkpoints(realm: Realm) -> None:
    rows = [_row(realm, checkpoint) for checkpoint in _ids(realm)]
    columns = ("id", "step", "state", "quest", "verified", "champion", "pinned", "bytes", "created")
    realm.report(
        rows,
        lambda: table(
            columns,
            (
                [*(row[name] for name in columns[:-2]), bytes_text(row["bytes"]), moment_text(row["created"])]
                for row in rows
            ),
        ),
    )


def show(realm: Realm) -> None:
    checkpoint = _known(realm, realm.args.id)
    about = _row(realm, checkpoint) | {"problem": problem_of(realm.paths, checkpoint)}
    try:
        manifest = asdict(read(realm.paths.vault / checkpoint))
    except CheckpointError:
        manifest = {}
    about |= {"manifest": manifest}
    plain = {name: value for name, value in {**manifest, **about}.items() if name not in ("manifest", "files")}
    plain["created"] = moment_text(about["created"])
    files = ((name, bytes_text(file["bytes"]), file["sha256"]) for name, file in manifest.get("files", {}).items())
    text = "\n".join(f"{name:16} {cell_text(value)}" for name, value in plain.items())
    realm.report(about, f"{text}\n\n{table(('file', 'bytes', 'sha256'), files)}")


def verify_checkpoints(realm: Realm) -> int:
    wanted = [_known(realm, realm.args.id)] if realm.args.id else _ids(realm)
    found = [{"id": checkpoint, "problem": problem_of(realm.paths, checkpoint)} for checkpoint in wanted]
    found = [{"id": one["id"], "verified": one["problem"] is None, "problem": one["problem"]} for one in found]
    lines = [
        f"{styled('whole ', 'green')} {one['id']}" if one["verified"] else f"{styled('broken', 'red')} {one['problem']}"
        for one in found
    ]
    realm.report(found, "\n".join(lines) or "the Vault is empty")
    return 0 if all(one["verified"] for one in found) else 1
