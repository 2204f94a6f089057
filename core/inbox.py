"""The inbox: the one entrance of the realm. It tells when a dropped file is complete, and knows nothing about rows.

Hints come from the file system, truth from looking. A file is complete when nobody has it open for writing (a read
lease is granted) and it was renamed in, or nothing about it changed for `QUIET_SECONDS`. Where leases do not work
(network file systems) the quiet time is longer, because the writer may sit on another machine.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import signal
import stat
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from core.durable import move, write_json
from core.errors import UserError
from core.paths import PRIORITIES, RealmPaths

AT_ONCE = 2000  # files that one look gives at most, so that a flood never keeps its reader from showing that it lives
HINTS = 10_000
QUIET_SECONDS = 2.0
QUIET_SECONDS_WITHOUT_LEASE = 10.0
SIDECAR = ".quest.json"
LONGEST_STEM = 200  # bytes; the queue adds an id and endings, and a file system's names end at 255
_STEM = re.compile(r"[^\w.+=@ -]", re.UNICODE)


@dataclass(frozen=True)
class Arrival:
    """A complete file in the inbox. `refusal`: why it cannot be a quest at all (not a regular file), or None."""

    path: Path
    priority: str
    refusal: str | None = None

    @property
    def stem(self) -> str:
        return self.path.name[: -len(".jsonl")]

    @property
    def sidecar(self) -> Path:
        return self.path.with_name(self.stem + SIDECAR)


@dataclass(slots=True)
class _Seen:
    signature: tuple
    since: float


class Inbox:
    """Looks at the inbox folders; call `complete(now)` again and again, `renamed_in(path)` when a rename was seen."""

    def __init__(self, paths: RealmPaths):
        self.paths = paths
        self._seen: dict[Path, _Seen] = {}
        self._renamed: set[Path] = set()
        self._put_off: dict[Path, float] = {}
        self.wrong: dict[Path, str] = {}  # folders that cannot be looked into, and why

    def renamed_in(self, path: Path) -> None:
        """A hint: `path` got its name by a rename, so its writer has finished."""
        if len(self._renamed) < HINTS:  # the others are taken after a quiet time
            self._renamed.add(path)

    def complete(self, now: float) -> list[Arrival]:
        """The files that can be taken, in order of priority and age. `now`: seconds of a monotonic clock."""
        hints = frozenset(self._renamed)  # one that comes while we look is for the next look
        self._put_off = {path: until for path, until in self._put_off.items() if until > now}
        found = {priority: self._candidates(priority) for priority in PRIORITIES}
        present = {self.paths.inbox_for(priority): set(names) for priority, names in found.items()}
        self._seen = {path: seen for path, seen in self._seen.items() if path.name in present[path.parent]}
        self._renamed -= {path for path in hints if path.name not in present.get(path.parent, ())}
        paths = ((self.paths.inbox_for(priority) / name, priority) for priority in found for name in found[priority])
        looks = (self._look(path, priority, now) for path, priority in paths if path not in self._put_off)
        arrivals = list(islice(filter(None, looks), AT_ONCE))
        for arrival in arrivals:
            self._seen.pop(arrival.path, None)
            self._renamed.discard(arrival.path)
        return arrivals

    def put_off(self, path: Path, until: float) -> None:
        """Do not look at `path` before `until`: it cannot be taken."""
        self._put_off[path] = until

    @property
    def pending(self) -> int:
        """Files seen at the last look that were not complete."""
        return len(self._seen)

    def _candidates(self, priority: str) -> list[str]:
        """The names in one folder, oldest first. The inbox may be a link to anywhere, what lies in it may not lead out of it."""
        folder = self.paths.inbox_for(priority)
        if folder != self.paths.inbox and folder.is_symlink():
            self.wrong[folder] = f"inbox/{folder.name} is a symbolic link and is not looked into; make it a folder"
            return []
        try:
            with os.scandir(folder) as entries:
                found = sorted((_age(entry), entry.name) for entry in entries if is_quest_name(entry.name))
        except FileNotFoundError:
            return []
        except OSError as problem:
            self.wrong[folder] = f"{folder.relative_to(self.paths.root)} cannot be looked into: {problem.strerror}"
            return []
        self.wrong.pop(folder, None)
        return [name for _, name in found]

    def _look(self, path: Path, priority: str, now: float) -> Arrival | None:
        try:
            facts = path.lstat()
        except FileNotFoundError:
            return None
        reason = refusal(facts)
        signature = (facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)
        seen = self._seen.get(path)
        if seen is None or seen.signature != signature:
            seen = self._seen[path] = _Seen(signature, now - max(0.0, min(QUIET_SECONDS, time.time() - facts.st_ctime)))
        if reason:
            return Arrival(path, priority, reason) if now - seen.since >= QUIET_SECONDS else None
        lease = has_no_writer(path)
        if lease is False:
            return None
        quiet = QUIET_SECONDS if lease else QUIET_SECONDS_WITHOUT_LEASE
        if path in self._renamed or now - seen.since >= quiet:
            return Arrival(path, priority)
        return None


def _age(entry: os.DirEntry) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns
    except FileNotFoundError:
        return 0


def is_quest_name(name: str) -> bool:
    """Whether a file of this name is taken: `*.jsonl`. Unfinished copies are hidden (rsync) or end otherwise (`.part`, `~`)."""
    return name.lower().endswith(".jsonl") and not name.startswith(".")


def refusal(facts: os.stat_result) -> str | None:
    """Why something of this kind cannot be a quest, or None."""
    if stat.S_ISLNK(facts.st_mode):
        return "is a symbolic link; drop the file itself"
    if not stat.S_ISREG(facts.st_mode):
        kind = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}.get(
            stat.S_IFMT(facts.st_mode), "device"
        )
        return f"is a {kind}; only regular files are taken"
    if facts.st_nlink > 1:
        return "has a second name (hard link), so its bytes could change under the training; drop a copy"
    return None


def has_no_writer(path: Path) -> bool | None:
    """True if nobody has `path` open for writing, False if somebody has, None where the file system cannot tell.

    A read lease is granted only while there is no writer (fcntl(2), F_SETLEASE).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except PermissionError:  # a rename takes it all the same, and its reader will say why it cannot be read
        return None
    except OSError:  # it went away, or became something else, this instant
        return False
    try:
        fcntl.fcntl(
            descriptor, fcntl.F_SETSIG, signal.SIGURG
        )  # who opens it just now breaks the lease: SIGIO would end us
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        return True
    except OSError as problem:
        return False if problem.errno == errno.EAGAIN else None  # EACCES: another user's file, and no right to ask
    finally:
        os.close(descriptor)


def queue_stem(stem: str) -> str:
    """A dropped file's stem as the queue can keep it: no control characters, no bytes that are not text, not too long."""
    words = os.fsencode(stem).decode("utf-8", "replace")
    return _cut("".join("_" if unicodedata.category(character) == "Cc" else character for character in words))


def _cut(stem: str) -> str:
    return stem.encode()[:LONGEST_STEM].decode("utf-8", "ignore")


def safe_stem(name: str) -> str:
    """`name` without folders, ending and characters that do not belong into a file name; at most 120 characters."""
    stem = re.sub(r"\.jsonl?$", "", Path(name.replace("\\", "/")).name, flags=re.IGNORECASE)
    return _cut(_STEM.sub("_", stem).strip(" .")[:120]).strip(" .") or "quest"


@contextlib.contextmanager
def drop(
    paths: RealmPaths,
    name: str,
    priority: str = "normal",
    sidecar: dict | None = None,
    appeared: Callable[[Path], None] = lambda path: None,
) -> Iterator[BinaryIO]:
    """Write a quest into the inbox: a hidden name, fsync, rename; the sidecar goes first. An exception drops nothing.

    `name` may come from anybody: only its cleaned stem is used, with a suffix where the name is taken; `appeared` is told
    what it became.
    """
    if priority not in PRIORITIES:
        raise UserError(f"unknown priority {priority!r}. Known: {', '.join(PRIORITIES)}")
    folder = paths.inbox_for(priority)
    if folder != paths.inbox and folder.is_symlink():
        raise UserError(f"inbox/{folder.name} is a symbolic link; make it a folder, or take another priority")
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{secrets.token_hex(8)}.part"
    card = hidden.with_suffix(".card")
    try:
        with open(hidden, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if sidecar:
            write_json(card, sidecar)
        appeared(_appear(hidden, card if sidecar else None, safe_stem(name)))
    finally:
        hidden.unlink(missing_ok=True)
        card.unlink(missing_ok=True)


def _appear(hidden: Path, card: Path | None, stem: str) -> Path:
    """Give file and sidecar the first free name. A move replaces nothing, so of two who want a name one takes another."""
    for name in (stem, *(f"{stem}-{secrets.token_hex(3)}" for _ in range(100))):
        target, sidecar = hidden.with_name(f"{name}.jsonl"), hidden.with_name(name + SIDECAR)
        if os.path.lexists(target) or os.path.lexists(sidecar):
            continue
        try:
            if card:
                move(card, sidecar)
            move(hidden, target)
            return target
        except FileExistsError:
            if card and not card.exists():
                move(sidecar, card)
    raise AssertionError(f"no free name for {stem} in {hidden.parent}")
