"""Deleting a checkpoint, and bringing it back within a day. It knows nothing of retention, whose work is final.

A deleted checkpoint lies in a folder inside the Vault, whole, until its time is over or room is short. What must stay
(management/vault.py) and what somebody reads is refused.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from core.checkpoints import read, seizing, verify
from core.durable import move
from core.errors import CheckpointError, UserError, nearest
from core.ledger import Ledger
from core.paths import RealmPaths
from management.vault import protection

KEPT_SECONDS = 24 * 3600.0


def delete(paths: RealmPaths, ledger: Ledger, checkpoint: str, clock: Callable[[], float] = time.time) -> None:
    """Into the trash. Raises UserError where it must stay."""
    folder = paths.vault / checkpoint
    if not folder.is_dir():
        raise UserError(f"{checkpoint} is not on disk any more; the ledger only remembers it")
    with seizing(folder) as ours:
        if not ours:
            raise UserError(f"{checkpoint} is being read or written; try again when that is done")
        if why := protection(paths, ledger, checkpoint):
            raise UserError(f"{checkpoint} stays: {why}")
        throw_away(paths, checkpoint)
        ledger.change("checkpoints", checkpoint, gone=clock())
    ledger.event("vault", "checkpoint_deleted", f"{checkpoint} is deleted; `vault undelete` brings it back for a day.")


def throw_away(paths: RealmPaths, checkpoint: str) -> None:
    """The folder into the trash, in place of one of that name that lay there."""
    paths.trash.mkdir(exist_ok=True)
    _remove(paths.trash / checkpoint)
    move(paths.vault / checkpoint, paths.trash / checkpoint)
    os.utime(paths.trash / checkpoint)  # its age counts from here


def undelete(paths: RealmPaths, ledger: Ledger, checkpoint: str) -> None:
    """Back from the trash, if it is whole. Raises RealmError."""
    known = deleted(paths)
    if checkpoint not in known:
        raise UserError(
            f"the trash has no {checkpoint!r}{nearest(checkpoint, known) or '.'} `vault list --deleted` lists it"
        )
    verify(paths.trash / checkpoint)
    try:
        move(paths.trash / checkpoint, paths.vault / checkpoint)
    except FileExistsError:
        raise UserError(f"{checkpoint} is in the Vault; the one in the trash stays there") from None
    ledger.change("checkpoints", checkpoint, gone=None)
    ledger.event("vault", "checkpoint_undeleted", f"{checkpoint} is back in the Vault.", checkpoint=checkpoint)


def deleted(paths: RealmPaths) -> dict[str, dict[str, float]]:
    """What lies in the trash, newest deletion first: bytes, and when it goes for good."""
    folders = [folder for folder in paths.trash.iterdir() if folder.is_dir()] if paths.trash.is_dir() else []
    folders = [folder for folder in folders if not folder.name.startswith(".")]
    folders.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    return {folder.name: {"bytes": _bytes(folder), "goes": folder.stat().st_mtime + KEPT_SECONDS} for folder in folders}


def empty(paths: RealmPaths, room_is_short: bool, clock: Callable[[], float] = time.time) -> list[str]:
    """Remove for good what lay there for a day, or all of it; the ids."""
    gone = [name for name, fact in deleted(paths).items() if room_is_short or fact["goes"] <= clock()]
    for name in gone:
        _remove(paths.trash / name)
    for half in paths.trash.glob(".going-*"):  # a crash cut its removal off
        shutil.rmtree(half, ignore_errors=True)
    return gone


def _remove(folder: Path) -> None:
    """It loses its name first, so that what is in the trash is whole."""
    if folder.exists():
        going = folder.with_name(f".going-{folder.name}")
        shutil.rmtree(going, ignore_errors=True)
        os.rename(folder, going)
        shutil.rmtree(going, ignore_errors=True)


def _bytes(folder: Path) -> int:
    try:
        return read(folder).bytes
    except CheckpointError:
        return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
