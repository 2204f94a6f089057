"""One realm, one supervisor: the lock on state/realm.lock, held for life and freed by the kernel at its holder's death.

The lock is the truth; the text in the file (pid, start time, port) only tells who holds it.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import psutil

from core.errors import RealmBusy
from core.paths import RealmPaths

_PATIENCE = 0.5  # whoever asks `holder` takes a shared lock for an instant; a start must not stumble over it


@dataclass(frozen=True)
class Holder:
    """The supervisor that runs the realm. `started`: seconds since the epoch; `port`: the Tavern's."""

    pid: int
    started: float
    port: int


@contextlib.contextmanager
def held(paths: RealmPaths, port: int, sleep: Callable[[float], None] = time.sleep) -> Iterator[Holder]:
    """Hold the realm's lock. Raises RealmBusy where another supervisor does."""
    paths.lock.parent.mkdir(parents=True, exist_ok=True)
    with open(paths.lock, "a+", encoding="utf-8") as file:
        waited = 0.0
        while not locked(file, fcntl.LOCK_EX):
            if waited >= _PATIENCE:
                raise RealmBusy(
                    f"{paths.root} is already run by another supervisor; `status` shows it, `stop-all` ends it"
                )
            sleep(0.05)
            waited += 0.05
        me = Holder(os.getpid(), psutil.Process().create_time(), port)
        file.truncate(0)
        file.write(json.dumps(asdict(me)))
        file.flush()
        yield me


def holder(paths: RealmPaths, sleep: Callable[[float], None] = time.sleep) -> Holder | None:
    """Who holds the lock, or None. Raises RealmBusy where it is held by a process that does not tell."""
    if not paths.lock.exists():
        return None
    for _ in range(20):
        with open(paths.lock, encoding="utf-8") as file:
            if locked(file, fcntl.LOCK_SH):
                return None
            if (found := _read(file.read())) is not None:
                return found
        sleep(0.05)  # it is just being written
    raise RealmBusy(f"{paths.lock} is held by a process that does not say who it is; find it with `fuser {paths.lock}`")


def locked(file, kind: int) -> bool:
    """Whether the lock of this kind (fcntl.LOCK_EX, LOCK_SH) is held from now on; nobody is waited for."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False


def _read(text: str) -> Holder | None:
    """The holder that the text names, if that process lives: a dead one's text is not the holder's."""
    try:
        found = Holder(**json.loads(text))
        return found if same_process(found.pid, found.started) else None
    except (ValueError, TypeError):
        return None


def same_process(pid: int | None, started: float | None) -> bool:
    """Whether `pid` lives and is the process that began at `started` (pids are used again)."""
    if not pid:
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - (started or 0)) < 2.0
    except psutil.NoSuchProcess:
        return False
