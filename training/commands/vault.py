"""`vault list|show|verify|lineage`: the checkpoints on disk, with what the ledger knows of them; the family's other verbs
are vault_acts', vault_backup's and vault_models'."""

from dataclasses import asdict
from typing import Any

from core.checkpoints import read
from core.errors import CheckpointError
from core.logs import visible
from management.lineage import lineage, tree
from management.trash import deleted
from management.vault import find, ids, pointers, problem_of, tags
from training.commands import vault_acts, vault_backup, vault_models
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import bytes_text, cell_text, moment_text, styled, table


def register(verbs) -> None:
    actions = group(verbs, "vault", "checkpoints: look, promote, roll back, name, back up, export")
    parser = verb(actions, "list", list_checkpoints, "every checkpoint, newest first")
    parser.add_argument("--deleted", action="store_true", help="those in the trash, which `vault undelete` brings back")
    parser = verb(actions, "show", show, "all about one checkpoint: manifest, files, verdict")
    parser.add_argument("id", metavar="ID")
    parser = verb(actions, "verify", verify_checkpoints, "compare every file with its SHA-256")
    parser.add_argument("id", nargs="?", metavar="ID", help="one checkpoint; none verifies all")
    parser = verb(actions, "lineage", show_lineage, "which quest made what: the checkpoints as a tree")
    parser.add_argument("id", nargs="?", metavar="ID", help="only this one's ancestors and descendants")
    vault_acts.register(actions)
    vault_backup.register(actions)
    vault_models.register(actions)


def _known(realm: Realm, given: str) -> str:
    return find(realm.existing, realm.ledger, given)


def _row(realm: Realm, checkpoint: str) -> dict[str, Any]:
    ledger = realm.ledger.one("SELECT * FROM checkpoints WHERE id=?", (checkpoint,)) or {}
    try:
        manifest = asdict(read(realm.paths.vault / checkpoint))
    except CheckpointError:
        manifest = {}
    facts = {**ledger, **manifest}
    pointing = [name for name, target in pointers(realm.paths).items() if target == checkpoint]
    return {
        "id": checkpoint,
        "step": facts.get("step"),
        "state": "promoted" if "current" in pointing else ledger.get("state", "saved"),
        "parent": facts.get("parent"),
        "branch": facts.get("branch"),
        "quest": facts.get("quest"),
        "validation_loss": facts.get("validation_loss"),
        "verified": problem_of(realm.paths, checkpoint) is None,
        "champion": "champion" in pointing,
        "pinned": bool(ledger.get("pinned")),
        "bytes": ledger.get("bytes") or sum(file["bytes"] for file in manifest.get("files", {}).values()),
        "created": facts.get("created"),
        "tip": "tip" in pointing,
        "current": "current" in pointing,
        "tags": [name for name, target in tags(realm.ledger).items() if target == checkpoint],
        "rolled_back": bool(ledger.get("rolled_back")),
    }


def list_checkpoints(realm: Realm) -> None:
    if realm.args.deleted:
        rows = [{"id": key, **facts} for key, facts in deleted(realm.existing).items()]
        cells = [(row["id"], bytes_text(row["bytes"]), moment_text(row["goes"])) for row in rows]
        realm.report(rows, table(("id", "bytes", "goes for good"), cells) if rows else "the trash is empty")
        return
    rows = [_row(realm, checkpoint) for checkpoint in ids(realm.existing, realm.ledger)]
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
    wanted = [_known(realm, realm.args.id)] if realm.args.id else ids(realm.existing, realm.ledger)
    found = [{"id": checkpoint, "problem": problem_of(realm.paths, checkpoint)} for checkpoint in wanted]
    found = [{"id": one["id"], "verified": one["problem"] is None, "problem": one["problem"]} for one in found]
    lines = [
        f"{styled('whole ', 'green')} {one['id']}" if one["verified"] else f"{styled('broken', 'red')} {one['problem']}"
        for one in found
    ]
    realm.report(found, "\n".join(lines) or "the Vault is empty")
    return 0 if all(one["verified"] for one in found) else 1


def show_lineage(realm: Realm) -> None:
    of = _known(realm, realm.args.id) if realm.args.id else None
    nodes = lineage(realm.existing, realm.ledger, of)
    realm.report(nodes, lambda: "\n".join(map(visible, tree(nodes))) or "the Vault is empty")
