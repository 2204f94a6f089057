"""A database that may be lost and that a power cut broke is set aside, so that a new one begins. It knows no tables.

Nothing waits for the disk in such a database (`ledger.connect` with `durable=False`); the ledger itself is never one.
"""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

log = logging.getLogger(__name__)
BROKEN = ".broken"
BESIDE = ("-journal", "-wal", "-shm")  # what SQLite would take for the new one's


def set_aside_if_broken(path: Path) -> None:
    """Before `path` is opened: reads all of it, so once in a process's life is enough."""
    if _is_whole(path):
        return
    log.warning("%s was broken by a crash; a new one begins, the old one is %s", path, path.name + BROKEN)
    for suffix in BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    path.replace(path.with_name(path.name + BROKEN))


def _is_whole(path: Path) -> bool:
    if not path.exists():
        return True
    with closing(
        sqlite3.connect(path, timeout=30)
    ) as connection:  # one that writes: a journal may have to be rolled back
        try:
            return connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
        except sqlite3.OperationalError:  # locked, or no room: it is not broken
            raise
        except sqlite3.DatabaseError:
            return False
