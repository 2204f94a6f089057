"""An inference box pulls a checkpoint from a trainer's Tavern: by its manifest, every byte compared, swapped in one instant.

What came of a pull that broke off is gone on with. A file counts when its SHA-256 is the manifest's, the folder gets its
name when all of them do and a look without torch finds a model in it, and only then the pointers move. It knows no HTTP.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from core import model_folder
from core.checkpoints import (
    MANIFEST,
    STATE_FILES,
    Manifest,
    pointed,
    seizing,
    set_champion,
    set_current,
    sha256_of,
    verify,
    write_manifest,
)
from core.durable import move, sync_file
from core.errors import CheckpointError, RealmBusy, UserError
from core.model_folder import NEVER_READ, RUNS
from core.paths import RealmPaths
from core.room import Room

PULLED = "pulled"  # the branch of a checkpoint without what training goes on with
KEPT = 2  # of those pulled: the newest one, and the one to go back to
MOST_BYTES = 1 << 40
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,159}-[0-9]{8,12}-[0-9a-f]{8}(-[0-9]{1,3})?")  # as commit names them
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,119}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Source(Protocol):
    """A trainer's Tavern; monitoring/tavern_client.py is the real one."""

    url: str

    def get(self, path: str) -> dict[str, Any]: ...

    def download(self, path: str, begin: int = 0) -> Iterator[tuple[int, bytes]]: ...


@dataclass(frozen=True)
class Pulled:
    """What a pull did: `bytes` that were fetched, 0 where all was there."""

    checkpoint: str
    step: int
    bytes: int
    new: bool


def offer(manifest: Manifest) -> dict[str, Any]:
    """What a Tavern tells of a checkpoint: all that another machine needs to answer with it."""
    files = {name: facts for name, facts in manifest.files.items() if name not in STATE_FILES}
    return {"checkpoint": manifest.id, "hero": manifest.hero, "campaign": manifest.campaign, "step": manifest.step,
            "created": manifest.created, "files": files}  # fmt: skip


def pull(
    paths: RealmPaths,
    source: Source,
    which: str,
    tell: Callable[[str, int, int], None] = lambda name, done, all: None,
    thorough: bool = True,
) -> Pulled:
    """Bring the source's `which` (champion, hero) here and point to it. `tell(file, bytes, of)` hears how far it is;
    unless `thorough`, what is pointed to already is not hashed again.

    Raises UserError, CheckpointError, and whatever the source raises.
    """
    if pointed(paths.tip):
        raise UserError(f"{paths.root} trains a hero of its own; pull into another realm: `oracle sync --root DIR`")
    manifest = _manifest(source.get(f"/api/oracle/weights/{which}"), source.url)
    paths.make()
    here = paths.vault / manifest.id
    if (not thorough and pointed(paths.champion) == manifest.id and here.is_dir()) or _is_whole(here):
        fetched, new = 0, pointed(paths.champion) != manifest.id
    else:
        fetched, new = _fetch(paths, source, manifest, tell), True
    set_champion(paths, manifest.id)
    set_current(paths, manifest.id)
    _let_go(paths, manifest.id)
    return Pulled(manifest.id, manifest.step, fetched, new)


def _manifest(told: dict[str, Any], url: str) -> Manifest:
    """What the source offers, every name and number looked at: they become paths and sizes here."""
    files = told.get("files")
    if not _is(_ID, told.get("checkpoint")) or not isinstance(files, dict) or not 0 < len(files) <= 100:
        raise UserError(f"{url} offers no checkpoint that can be pulled; is it a Tavern of this version?")
    for name, facts in files.items():
        fits = isinstance(facts, dict) and _is(_SHA256, facts.get("sha256")) and type(facts.get("bytes")) is int
        harmless = _is(_NAME, name) and name != MANIFEST and not name.lower().endswith((*RUNS, *NEVER_READ))
        if not (fits and harmless and 0 <= facts["bytes"] <= MOST_BYTES):
            raise UserError(f"{url} offers a file that is not taken: {name[:80]!r}")
    step, created = told.get("step"), told.get("created")
    if type(step) is not int or not isinstance(created, int | float):
        raise UserError(f"{url} does not say which step its checkpoint is of")
    files = {name: {"sha256": facts["sha256"], "bytes": facts["bytes"]} for name, facts in files.items()}
    hero, campaign = str(told.get("hero"))[:80], str(told.get("campaign"))[:80]
    return Manifest(hero, campaign, step, created=created, files=files, id=told["checkpoint"], branch=PULLED)


def _is(pattern: re.Pattern, value: Any) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_whole(folder: Path) -> bool:
    try:
        verify(folder)
        return True
    except CheckpointError:
        return False


def _fetch(paths: RealmPaths, source: Source, manifest: Manifest, tell: Callable[[str, int, int], None]) -> int:
    """Build the checkpoint beside its name, or go on building; returns the bytes that came."""
    building = paths.vault / f".{PULLED}-{manifest.id}"
    building.mkdir(exist_ok=True)
    with seizing(building) as alone:
        if not alone:
            raise RealmBusy("another `oracle sync` is pulling the same checkpoint; wait for it")
        for stray in (file for file in building.iterdir() if file.name not in manifest.files):
            stray.unlink()
        missing = manifest.bytes - sum(file.stat().st_size for file in building.iterdir())
        if not Room.of(building).holds(missing):
            raise UserError(
                f"the disk has no room for the {missing:,} bytes of {manifest.id}; free some and sync again"
            )
        fetched = sum(_fetch_file(source, manifest, name, building, tell) for name in manifest.files)
        if problem := model_folder.problem(building):
            shutil.rmtree(building)
            raise CheckpointError(f"{manifest.id} is whole but no model that is taken: {problem}")
        write_manifest(building, manifest)
        broken = paths.vault / manifest.id
        if broken.exists():  # what is there is not whole, or there would have been nothing to fetch
            shutil.rmtree(broken)
        move(building, broken)
    return fetched


def _fetch_file(source: Source, manifest: Manifest, name: str, building: Path, tell: Callable) -> int:
    """One file, from where it broke off; a second time from its beginning where the sum is wrong."""
    path, facts, fetched = building / name, manifest.files[name], 0
    for _ in range(2):
        fetched += _append(source, f"/api/oracle/weights/{manifest.id}/{name}", path, facts["bytes"], tell)
        if path.stat().st_size == facts["bytes"] and sha256_of(path) == facts["sha256"]:
            sync_file(path)
            return fetched
        path.unlink()
    raise CheckpointError(
        f"{manifest.id}: {name} came with another SHA-256 than {source.url} had said, twice; sync again"
    )


def _append(source: Source, address: str, path: Path, size: int, tell: Callable) -> int:
    """Fetch what of the file is missing, no byte more than its size."""
    fetched = 0
    with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644), "r+b") as file:
        begin = file.seek(0, os.SEEK_END)
        if begin >= size:
            return 0
        for place, part in source.download(address, begin):
            if place + len(part) > size:
                raise CheckpointError(f"{source.url} sends more of {path.name} than the {size:,} bytes it had said")
            file.seek(place)
            file.write(part)
            fetched += len(part)
            tell(path.name, place + len(part), size)
        file.truncate()
    return fetched


def _let_go(paths: RealmPaths, newest: str) -> None:
    """Remove pulled checkpoints but the newest, and what is left of pulls that nobody will go on with."""
    others = [folder for folder in paths.vault.iterdir() if folder.is_dir() and not folder.is_symlink()]
    whole = [folder for folder in others if not folder.name.startswith(".") and folder.name != newest]
    whole.sort(key=lambda folder: (folder / MANIFEST).stat().st_mtime if (folder / MANIFEST).exists() else 0)
    left = [folder for folder in others if folder.name.startswith(f".{PULLED}-")]
    for folder in [*whole[: max(0, len(whole) - KEPT + 1)], *left]:
        with seizing(folder) as alone:
            if alone:
                shutil.rmtree(folder)
