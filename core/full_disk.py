"""What a full disk looks like to whoever writes, and the reserve that is given back then. It knows nothing about watermarks.

A write that fails for want of room is either tried again (ledger, checkpoint), or let go because it comes again by
itself (the snapshot of now, a turn of the daemon): `spared`. It is never reported as done.
"""

import contextlib
import errno
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from core.paths import RealmPaths
from core.room import Room

log = logging.getLogger(__name__)
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
TOLD = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full")
PERHAPS = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR)  # a journal that found no inode, a flush that found no room
KEPT_INODES = 32


def is_no_space(problem: BaseException, folder: Path) -> bool:
    """Whether the disk of `folder` is full, in the words of Python, safetensors or SQLite."""
    if isinstance(problem, sqlite3.Error) and getattr(problem, "sqlite_errorcode", 0) & 0xFF in PERHAPS:
        return Room.of(folder).full
    return getattr(problem, "errno", None) in NO_SPACE or any(words in str(problem) for words in TOLD)


@contextlib.contextmanager
def spared(folder: Path) -> Iterator[None]:
    """Let go of what a full disk refuses: it comes again by itself, or can be done without."""
    try:
        yield
    except (OSError, sqlite3.Error) as problem:
        if not is_no_space(problem, folder):
            raise
        log.debug("let go: %s", problem)


class Reserve:
    """state/reserve: bytes in one file, inodes in empty ones. Anybody may release it, the disk manager takes it again."""

    def __init__(self, paths: RealmPaths):
        self._folder = paths.reserve

    @property
    def bytes(self) -> int:
        """What it holds now."""
        with contextlib.suppress(FileNotFoundError):
            return os.stat(self._folder / "bytes").st_size
        return 0

    def release(self) -> bool:
        """Give it back to the disk; True where there was something to give."""
        files = list(self._folder.iterdir()) if self._folder.is_dir() else []
        for file in files:
            file.unlink(missing_ok=True)
        return bool(files)

    def take(self, wanted: int) -> bool:
        """Set `wanted` bytes aside, and some inodes; whether there was room for them."""
        if self.bytes == wanted:
            return True
        self.release()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with open(self._folder / "bytes", "wb") as file:
                os.posix_fallocate(file.fileno(), 0, wanted)
            for number in range(KEPT_INODES):
                (self._folder / f"inode{number}").touch()
        except OSError as problem:
            self.release()
            if problem.errno not in NO_SPACE:
                raise
            return False
        return True
