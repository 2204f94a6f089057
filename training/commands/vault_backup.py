"""`vault backup|restore`: copies of a checkpoint, the ledger and config.json elsewhere, and the way back."""

import shutil
from pathlib import Path

from core.config import Backup
from core.errors import RealmError, UserError
from core.ledger import Ledger
from management import backup_manager
from management.backup_schedule import back_up_and_prune
from management.backup_target import Target
from management.vault import find
from training.commands.verb import verb
from training.realm import Realm
from training.terminal import bytes_text, moment_text, table

PLACES = "a directory, s3://BUCKET/PREFIX or sftp://USER@HOST/PATH"


def register(actions) -> None:
    parser = verb(
        actions, "backup", back_up, "send a checkpoint, the ledger and config.json elsewhere, read back and compared"
    )
    parser.add_argument(
        "id", metavar="ID", nargs="?", help="a checkpoint (default: as backup.what in config.json says)"
    )
    parser.add_argument("--to", metavar="URL", help=f"{PLACES} (default: backup.to in config.json)")
    parser.add_argument("--list", action="store_true", help="only list the backups that are there")
    parser = verb(
        actions, "restore", restore, "bring a backup's checkpoint back into the Vault; nothing whole is overwritten"
    )
    text = f"{PLACES}: its newest backup is restored, the whole realm where there is none; or a checkpoint's name"
    parser.add_argument("what", metavar="WHAT", help=text)
    parser.add_argument("--from", metavar="URL", dest="source", help="where from, with an ID (default: backup.to)")


def back_up(realm: Realm) -> None:
    with _target(realm, realm.args.to) as target:
        (_list if realm.args.list else _send)(realm, target)


def _send(realm: Realm, target: Target) -> None:
    checkpoint = find(realm.existing, realm.ledger, realm.args.id or realm.config.backup.what)
    made, sent, pruned = back_up_and_prune(realm.paths, realm.ledger, checkpoint, target, realm.config.backup)
    text = f"{checkpoint} is backed up to {target.url}: {bytes_text(sent)} sent and read back."
    facts = {"checkpoint": checkpoint, "to": target.url, "sent_bytes": sent, "pruned": pruned}
    realm.report({**facts, "backup": made.name}, text)


def _list(realm: Realm, target: Target) -> None:
    found = backup_manager.records(target)
    rows = [
        {
            "checkpoint": known.checkpoint,
            "step": known.step,
            "created": known.created,
            "bytes": sum(known.objects().values()),
        }
        for known in found
    ]
    cells = [(row["checkpoint"], row["step"], bytes_text(row["bytes"]), moment_text(row["created"])) for row in rows]
    head = ("checkpoint", "step", "bytes", "made")
    realm.report(rows, table(head, cells) if rows else f"no backup in {target.url} yet")


def restore(realm: Realm) -> None:
    what, source = realm.args.what, realm.args.source
    place = source is None and ("://" in what or Path(what).expanduser().is_dir())
    with Target(what) if place else _target(realm, source) as target:
        _bring(realm, target, None if place else what)


def _bring(realm: Realm, target: Target, given: str | None) -> None:
    known = backup_manager.choose(backup_manager.records(target), given, target)
    fresh = not realm.exists
    if fresh:
        backup_manager.restore_realm(realm.paths, known, target)
    _check_room(realm, sum(entry["bytes"] for entry in known.files.values()))
    manifest = backup_manager.restore(realm.paths, Ledger(realm.paths.ledger), known, target)
    text = f"{manifest.id} is in the Vault, every byte as it was backed up."
    hint = "`start-all` goes on from it" if fresh else "`vault promote` shows it, `vault rollback` trains on from it"
    facts = {"checkpoint": manifest.id, "from": target.url, "step": manifest.step, "realm_restored": fresh}
    realm.report(facts, f"{text} {hint[0].upper()}{hint[1:]}." if not fresh else f"{text} {hint}.")


def _check_room(realm: Realm, needed: int) -> None:
    free = shutil.disk_usage(realm.paths.root).free
    if free < needed:
        raise RealmError(f"{bytes_text(needed)} do not fit into the {bytes_text(free)} that are free; make room first")


def _target(realm: Realm, given: str | None) -> Target:
    policy: Backup = realm.config.backup
    if not (given or policy.to):
        raise UserError(f"where? Give {PLACES}, or once and for all `config set backup.to URL`")
    return Target(given or policy.to)
