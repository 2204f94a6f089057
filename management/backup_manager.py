"""Backups of a checkpoint with the ledger and config.json, to a target; and the way back. It knows nothing about when.

    TARGET/objects/ab/abcdef…       every file once, by its SHA-256
    TARGET/backups/TIME-ID.json     what a backup consists of; written last, so that a backup is whole or not there

A file whose sum is there already is not sent again. What was sent is read back and compared before the record is written.
"""

import hashlib
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from core.checkpoints import MANIFEST, Manifest, holding, record, sha256_of, verify
from core.config import Backup
from core.durable import move, sync_file, sync_folder
from core.errors import CheckpointError, RealmError, UserError
from core.ledger import Ledger
from core.paths import RealmPaths
from management.backup_target import Missing, Target
from management.trash import throw_away

FORMAT = 1
RECORDS, OBJECTS = "backups", "objects"
LEFT_SECONDS = 24 * 3600.0  # an object that no record names may belong to a backup that is being made
DAY = 24 * 3600


@dataclass(frozen=True)
class Record:
    """One backup. `files`: the checkpoint's files by name, with SHA-256 and bytes; likewise ledger and config."""

    checkpoint: str
    hero: str
    step: int
    created: float
    files: dict[str, dict[str, Any]]
    ledger: dict[str, Any] | None
    config: dict[str, Any] | None
    name: str = ""

    def objects(self) -> dict[str, int]:
        """Every object that it needs, with its bytes."""
        entries = [*self.files.values(), *(entry for entry in (self.ledger, self.config) if entry)]
        return {_object(entry["sha256"]): entry["bytes"] for entry in entries}


def _object(sha256: str) -> str:
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"


# There


def back_up(
    paths: RealmPaths, ledger: Ledger, checkpoint: str, target: Target, clock: Callable[[], float] = time.time
) -> tuple[Record, int]:
    """Send `checkpoint`, ledger and config; the record, and how many bytes had to be sent. Raises RealmError."""
    _sweep(paths, clock())
    there = {name for known in records(target) for name in known.objects()}
    with holding(paths.vault / checkpoint), tempfile.TemporaryDirectory(dir=paths.state, prefix=".backup-") as beside:
        manifest = verify(paths.vault / checkpoint)
        sent = 0

        def put(source: Path) -> dict[str, Any]:
            nonlocal sent
            entry = {"sha256": sha256_of(source), "bytes": source.stat().st_size}
            sent += _put(target, source, entry, there)
            return entry

        files = {name: put(paths.vault / checkpoint / name) for name in (*manifest.files, MANIFEST)}
        copied = put(_copy_of(ledger, Path(beside) / "ledger"))
        settings = put(shutil.copy(paths.config, Path(beside) / "config")) if paths.config.exists() else None
        facts = Record(checkpoint, manifest.hero, manifest.step, clock(), files, copied, settings)
        return _write_record(target, facts, Path(beside) / "record"), sent


def _sweep(paths: RealmPaths, now: float) -> None:
    """Copies of the ledger that a kill left."""
    for left in paths.state.glob(".backup-*"):
        if now - left.stat().st_mtime > LEFT_SECONDS:
            shutil.rmtree(left, ignore_errors=True)


def _put(target: Target, source: Path, entry: dict[str, Any], there: set[str]) -> int:
    """Send one file unless its object is there, and read it back; the bytes that were sent."""
    name = _object(entry["sha256"])
    if target.size(name) == entry["bytes"] and (name in there or target.sha256(name) == entry["sha256"]):
        return 0
    target.send(source, name)
    if target.sha256(name) != entry["sha256"]:
        target.remove(name)
        raise RealmError(f"{target.url}: {name} came back with other bytes than were sent; nothing was recorded")
    return entry["bytes"]


def _copy_of(ledger: Ledger, path: Path) -> Path:
    """The ledger as it is at one instant, whoever writes to it."""
    copy = sqlite3.connect(path)
    try:
        ledger.connection.backup(copy, sleep=0.01)  # of seconds, between two attempts at a busy one
        if (told := copy.execute("PRAGMA quick_check").fetchone()[0]) != "ok":
            raise RealmError(f"the ledger is damaged: {told}")
    finally:
        copy.close()
    return path


def _write_record(target: Target, facts: Record, beside: Path) -> Record:
    short = [name for name, size in facts.objects().items() if target.size(name) != size]
    if short:  # somebody pruned beside us
        raise RealmError(f"{target.url}: {short[0]} is gone again; back up once more")
    values = {key: value for key, value in asdict(facts).items() if key != "name"}
    beside.write_bytes(orjson.dumps({"format": FORMAT, **values, "checksum": _checksum(values)}))
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(facts.created))
    name = f"{RECORDS}/{stamp}-{facts.checkpoint}.json"
    target.send(beside, name)
    if target.sha256(name) != sha256_of(beside):
        target.remove(name)
        raise RealmError(f"{target.url}: {name} came back with other bytes than were sent")
    return Record(**values, name=name)


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()


def records(target: Target) -> list[Record]:
    """The backups that are there, newest first; one that cannot be read is passed over."""
    found = []
    for name in target.names(RECORDS):
        try:
            values = orjson.loads(b"".join(target.pieces(name)))
            if values.pop("format") == FORMAT and values.pop("checksum") == _checksum(values):
                found.append(Record(**values, name=name))
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, Missing):
            continue
    return sorted(found, key=lambda known: known.created, reverse=True)


# Less


def kept(created: Iterable[float], policy: Backup) -> set[float]:
    """Which moments stay: the newest `keep`, and the newest of each of the last days and weeks that have one."""
    newest_first = sorted(created, reverse=True)
    stay = set(newest_first[: policy.keep])
    for period, count in ((DAY, policy.keep_daily), (7 * DAY, policy.keep_weekly)):
        newest_of = {int(moment // period): moment for moment in reversed(newest_first)}
        stay |= {newest_of[when] for when in sorted(newest_of, reverse=True)[:count]}
    return stay


def prune(target: Target, hero: str, policy: Backup, clock: Callable[[], float] = time.time) -> list[str]:
    """Remove the hero's backups that the policy does not keep, then objects that no backup needs; the checkpoints' ids."""
    found = records(target)
    own = [known for known in found if known.hero == hero]
    stay = kept((known.created for known in own), policy)
    gone = [known for known in own if known.created not in stay]
    for known in gone:
        target.remove(known.name)
    needed = {name for known in found if known not in gone for name in known.objects()}
    ours = {name for known in gone for name in known.objects()}
    for name in target.names(OBJECTS):
        if name not in needed and (name in ours or clock() - target.modified(name) > LEFT_SECONDS):
            target.remove(name)
    return [known.checkpoint for known in gone]


# Back


def choose(found: list[Record], given: str | None, target: Target) -> Record:
    """The newest backup, or the newest of the checkpoint that `given` begins. Raises UserError."""
    matching = [known for known in found if given is None or known.checkpoint.startswith(given)]
    if not matching:
        what = f"no backup of {given!r}" if given else "no backup"
        raise UserError(f"{target.url} holds {what}; `vault backup --list` shows what is there")
    if len(several := sorted({known.checkpoint for known in matching})) > 1 and given:
        raise UserError(f"{given!r} may be any of {', '.join(several)}")
    return matching[0]


def restore(paths: RealmPaths, ledger: Ledger, known: Record, target: Target) -> Manifest:
    """The checkpoint back into the Vault, every byte compared. What is whole there stays; what is broken makes way, into
    the trash. No pointer moves."""
    home = paths.vault / known.checkpoint
    try:
        return verify(home)
    except CheckpointError:
        pass
    building = paths.vault / f".building-restore-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    try:
        with holding(building):
            for name, entry in known.files.items():
                fetch(target, entry, building / Path(name).name)
            manifest = verify(building)
            if manifest.id != known.checkpoint:
                raise RealmError(f"{target.url}: {known.name} holds {manifest.id}, not {known.checkpoint}")
            sync_folder(building)
            if os.path.lexists(home):
                throw_away(paths, known.checkpoint)
            move(building, home)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    row = ledger.one("SELECT state FROM checkpoints WHERE id=?", (manifest.id,))
    record(ledger, manifest, row["state"] if row else "saved")
    ledger.event("vault", "restored", f"{manifest.id} is back from {target.url}.", checkpoint=manifest.id)
    return manifest


def restore_realm(paths: RealmPaths, known: Record, target: Target) -> None:
    """Config and ledger of a backup, for a realm of which nothing is there; files that are there stay.

    The ledger's past stays; what it says of the present (checkpoints, waiting quests) it says of another disk.
    """
    paths.make()
    for entry, path in ((known.config, paths.config), (known.ledger, paths.ledger)):
        if entry and not path.exists():
            fetch(target, entry, beside := path.with_name(f".{path.name}.restored"))
            os.rename(beside, path)
            sync_folder(path.parent)
    ledger, reason = Ledger(paths.ledger), "its file was not in the backup"
    ledger.all("UPDATE checkpoints SET gone=? WHERE gone IS NULL", (time.time(),))
    waiting = "UPDATE quests SET state='vanished', reason=? WHERE state IN ('arriving', 'queued', 'processing')"
    ledger.all(waiting, (reason,))
    ledger.all("UPDATE control SET done=?, result='the realm was restored' WHERE done IS NULL", (time.time(),))
    ledger.close()


def fetch(target: Target, entry: dict[str, Any], path: Path) -> None:
    """One file, its sum compared. Raises RealmError."""
    digest = hashlib.sha256()
    with open(path, "wb") as file:
        for piece in target.pieces(_object(entry["sha256"])):
            digest.update(piece)
            file.write(piece)
    if digest.hexdigest() != entry["sha256"]:
        path.unlink()
        raise RealmError(f"{target.url}: {_object(entry['sha256'])} is damaged; another backup may be whole")
    sync_file(path)
