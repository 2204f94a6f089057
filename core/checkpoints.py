"""Checkpoints on disk: manifest, commit, verification, and the pointers tip, current and champion. Knows no torch.

A checkpoint is a folder of `models/vault` whose `manifest.json` lists a SHA-256 for every other file. It is built under
a temporary name, flushed, hashed by reading it back, and renamed: a folder without a valid manifest is no checkpoint.

The manifest alone says what its weights hold: `trained` are the quests trained to their end (ranges of ids),
`open` the steps done in quests that were begun. So recovery needs no chain of ancestors, which retention may prune.
A `branch` left the way of training for good, e.g. cooled down: it is there to be used and never becomes the tip.
"""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from core import durable
from core.durable import move, point, read_json, sync_file, sync_folder, write_json
from core.errors import CheckpointError
from core.exam_record import record_exams
from core.ledger import Ledger
from core.paths import RealmPaths

MANIFEST = "manifest.json"
STATE_FILES = ("optimizer.safetensors", "trainer_state.json")  # what only goes on with training
FORMAT = 1
Ranges = tuple[tuple[int, int], ...]


def add_to(ranges: Ranges, quest: int) -> Ranges:
    """`ranges` with `quest` in it, neighbours merged."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted({*ranges, (quest, quest)}):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def holds(ranges: Ranges, quest: int) -> bool:
    return any(first <= quest <= last for first, last in ranges)


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint says of itself. `step`: the hero's global step; times in seconds since the epoch.

    `prepared`: of the quests in `open`, by id as text, which rendering of their rows was trained (prepare.cache_name).
    `began`: of the same quests, the checkpoint that each one's battle began from; older versions did not say.
    `teachers`: of the same quests, and of the one that ended here, the SHA-256 that names their teacher's weights, if they have one.
    `fought`: of the same quests, and of the one that ended here, what their battles have come to (BattleReport.so_far).
    `unfit`: why it must not be promoted, None for one that may be.
    `branch`: how it left the way of training, None for a checkpoint that training goes on from.
    `seconds`: what it took to write, flush and hash the files.
    `standing`: how far the weights have come in each skill (core/standing.py); `canaries`: right and asked of each level, by
    its key, as they were last asked on the way here; `baseline`: those of the hero's first weights; `exams`: what was asked
    of these very weights (core/examination.py); `weight_size`: the root mean square of all weights when the last battle
    ended; `verdict`: the Temple's, of the battle that ended here (temple.Verdict.facts).
    """

    hero: str
    campaign: str
    step: int
    parent: str | None = None
    quest: int | None = None
    quest_sha256: str | None = None
    trained: Ranges = ()
    open: dict[int, int] = field(default_factory=dict)
    validation_loss: float | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    id: str = ""
    branch: str | None = None
    prepared: dict[str, str] = field(default_factory=dict)
    fought: dict[str, dict[str, float]] = field(default_factory=dict)
    unfit: str | None = None
    seconds: float | None = None
    standing: dict[str, Any] = field(default_factory=dict)
    canaries: dict[str, list[int]] = field(default_factory=dict)
    baseline: dict[str, list[int]] = field(default_factory=dict)
    exams: list[dict[str, Any]] = field(default_factory=list)
    weight_size: float | None = None
    verdict: dict[str, Any] | None = None
    began: dict[str, str] = field(default_factory=dict)
    teachers: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.files.values())

    @property
    def evaluation(self) -> float:
        """The sum of the canaries' accuracies: how many levels of its skills it commands."""
        return sum(right / asked for right, asked in self.canaries.values())

    def taught(self, quest: int, teacher: str | None) -> dict[str, str]:
        """`teachers` of the next checkpoint, which `quest` is trained for by this `teacher`."""
        known = {key: self.teachers[key] for key in self.prepared if key in self.teachers}
        return _without(known, str(quest)) | ({str(quest): teacher} if teacher else {})

    def finished(self, quest: int) -> "Manifest":
        """This manifest after `quest` was trained to its end."""
        others = {key: steps for key, steps in self.open.items() if key != quest}
        rows, began = (_without(known, str(quest)) for known in (self.prepared, self.began))
        return replace(self, trained=add_to(self.trained, quest), open=others, prepared=rows, began=began)

    def reached(self, quest: int, steps: int, prepared: str, tip: str | None = None) -> "Manifest":
        """This manifest with `steps` optimizer steps of `quest` done, on its rows as `prepared` names them. `tip`: what its
        battle began from, unless that is known from steps before."""
        key, began = str(quest), self.began
        if not self.open.get(quest):
            began = _without(began, key) | ({key: tip} if tip else {})
        return replace(self, open={**self.open, quest: steps}, prepared={**self.prepared, key: prepared}, began=began)


def _without(known: dict[str, str], key: str) -> dict[str, str]:
    return {name: value for name, value in known.items() if name != key}


def record(ledger: Ledger, manifest: Manifest, state: str) -> None:
    """Tell the ledger of a checkpoint; told again, it stays one row."""
    names = ("hero", "campaign", "step", "parent", "quest", "bytes", "created", "validation_loss")
    record_exams(ledger, manifest)
    facts = {name: getattr(manifest, name) for name in names} | {"state": state, "gone": None, "rolled_back": None}
    if not ledger.change("checkpoints", manifest.id, **facts):  # the same training again gives the same id
        ledger.add("checkpoints", id=manifest.id, **facts)


def sha256_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit(paths: RealmPaths, manifest: Manifest, build: Callable[[Path], Mapping[str, str] | None]) -> Manifest:
    """Let `build(folder)` write the files, make them durable, and give the checkpoint its name; no pointer moves.

    `build` may return the SHA-256 of files that it has read back itself. Raises whatever it or the disk raises; then
    nothing of the checkpoint is left.
    """
    building = paths.vault / f".building-{secrets.token_hex(4)}"
    building.mkdir(parents=True)
    hold, began = _hold(building), time.monotonic()
    try:
        known = build(building) or {}
        files = {
            path.name: {"sha256": known.get(path.name) or sha256_of(path), "bytes": path.stat().st_size}
            for path in sorted(building.iterdir())
        }
        for name in files:
            sync_file(building / name)
        content = hashlib.sha256(orjson.dumps(files, option=orjson.OPT_SORT_KEYS)).hexdigest()[:8]
        kind = f"{manifest.branch}-" if manifest.branch else ""
        name = f"{manifest.hero}-{manifest.campaign}-{kind}{manifest.step:08d}-{content}"
        taken = round(time.monotonic() - began, 3)
        named = replace(manifest, files=files, created=time.time(), seconds=taken, id=_free_name(paths.vault, name))
        write_manifest(building, named)
        move(building, paths.vault / named.id)
        return named
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    finally:
        os.close(hold)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """What makes a checkpoint of a folder, as soon as that has its name."""
    values = {"format": FORMAT, **asdict(manifest), "open": _text_keys(manifest.open)}
    write_json(folder / MANIFEST, {**values, "checksum": _checksum(values)})
    sync_folder(folder)


def _checksum(values: dict[str, Any]) -> str:
    """SHA-256 over all the manifest says, so that a bit that flips in it is noticed, too."""
    return hashlib.sha256(orjson.dumps(values, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _text_keys(mapping: dict[int, int]) -> dict[str, int]:
    return {str(key): value for key, value in mapping.items()}


def _free_name(vault: Path, name: str) -> str:
    """`name`, or with a suffix where the same content was committed before (two saves at one step)."""
    suffixes = ("", *(f"-{count}" for count in range(2, 1000)))
    return next(name + suffix for suffix in suffixes if not (vault / (name + suffix)).exists())


def read(folder: Path) -> Manifest:
    """The manifest in `folder`, its files unchecked. Raises CheckpointError."""
    values = read_json(folder / MANIFEST)
    if not isinstance(values, dict) or values.pop("checksum", None) != _checksum(values):
        raise CheckpointError(f"{folder.name}: {MANIFEST} is missing, not readable or altered")
    if values.pop("format") != FORMAT:
        raise CheckpointError(f"{folder.name}: {MANIFEST} is of another version of the realm")
    try:
        values["trained"] = tuple((first, last) for first, last in values["trained"])
        values["open"] = {int(key): steps for key, steps in values["open"].items()}
        return Manifest(**values)
    except (KeyError, TypeError, ValueError) as problem:
        raise CheckpointError(f"{folder.name}: {MANIFEST} does not fit this version: {problem}") from None


def verify(folder: Path, beat: Callable[[], None] = lambda: None, skip: Collection[str] = ()) -> Manifest:
    """The manifest in `folder` after every file's size and SHA-256 were compared. Raises CheckpointError naming the file.

    `beat` is called before each file, for those of whom others expect a sign of life. `skip`: files nobody will read.
    """
    manifest = read(folder)
    for name, expected in manifest.files.items():
        if name in skip:
            continue
        beat()
        path = folder / name
        if path.is_symlink() or not path.is_file():
            raise CheckpointError(f"{folder.name}: {name} is missing")
        if path.stat().st_size != expected["bytes"]:
            raise CheckpointError(
                f"{folder.name}: {name} has {path.stat().st_size} bytes, the manifest says {expected['bytes']}"
            )
        if sha256_of(path) != expected["sha256"]:
            raise CheckpointError(f"{folder.name}: {name} was altered, its SHA-256 differs from the manifest's")
    return manifest


def manifests(paths: RealmPaths, hero: str | None = None) -> list[Manifest]:
    """Every readable manifest in the Vault, newest step first; files unchecked."""
    found = []
    for folder in paths.vault.iterdir() if paths.vault.is_dir() else ():
        if folder.is_dir() and not folder.is_symlink() and not folder.name.startswith("."):
            try:
                found.append((folder.name, read(folder)))
            except CheckpointError:
                continue
    wanted = [manifest for name, manifest in found if manifest.id == name and hero in (None, manifest.hero)]
    return sorted(wanted, key=lambda manifest: (manifest.step, manifest.created), reverse=True)


def pointed(link: Path) -> str | None:
    """The id of the checkpoint that a pointer leads to, or None."""
    return link.readlink().name if link.is_symlink() else None


def set_tip(paths: RealmPaths, checkpoint: str) -> None:
    point(paths.tip, paths.vault / checkpoint)


def set_current(paths: RealmPaths, checkpoint: str) -> None:
    point(paths.current_model, paths.vault / checkpoint)


def set_champion(paths: RealmPaths, checkpoint: str) -> None:
    point(paths.champion, paths.vault / checkpoint)


def newest_verified(
    paths: RealmPaths,
    hero: str,
    unwanted: Callable[[str, str], None] = lambda checkpoint, why: None,
    barred: frozenset[str] = frozenset(),
) -> Manifest | None:
    """The tip if it is whole, else the newest checkpoint of `hero` that is; `unwanted(id, why)` hears of each broken one.

    `barred`: ids never to go back to (cursed ones). Branches are not gone back to either.
    """
    tip = pointed(paths.tip)
    others = [
        manifest.id
        for manifest in manifests(paths, hero)
        if manifest.id != tip and manifest.id not in barred and manifest.branch is None
    ]
    for checkpoint in ([tip] if tip and tip not in barred else []) + others:
        try:
            manifest = verify(paths.vault / checkpoint)
        except CheckpointError as problem:
            unwanted(checkpoint, str(problem))
            continue
        if manifest.hero == hero and manifest.branch is None:
            return manifest
    return None


def sweep(paths: RealmPaths) -> None:
    """Remove what a crash left half built; what another process is building stays."""
    for folder in paths.written():
        durable.sweep(folder)
    for folder in paths.vault.glob(".building-*"):
        if not is_held(folder):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[None]:
    """Keep `folder` from being swept or retired meanwhile; the hold ends with the process at the latest."""
    try:
        hold = _hold(folder)
    except FileNotFoundError:
        raise CheckpointError(f"{folder.name} is not in the Vault") from None
    try:
        if not _is_at(hold, folder):  # it lost its name while we waited
            raise CheckpointError(f"{folder.name} is not in the Vault any more")
        yield
    finally:
        os.close(hold)


@contextlib.contextmanager
def seizing(folder: Path) -> Iterator[bool]:
    """Have `folder` for oneself, to take it away: True, or False where somebody is `holding` it. Whoever wants to hold
    it meanwhile waits, and finds it gone."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield _lock_alone(descriptor) and _is_at(descriptor, folder)
    finally:
        os.close(descriptor)


def _lock_alone(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _is_at(descriptor: int, folder: Path) -> bool:
    """Whether the open folder still has its name."""
    return folder.exists() and os.path.samestat(os.fstat(descriptor), os.stat(folder))


def _hold(folder: Path) -> int:
    """A descriptor that holds `folder` until it is closed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def is_held(folder: Path) -> bool:
    """Whether anybody is `holding` it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        return not _lock_alone(descriptor)
    finally:
        os.close(descriptor)
