"""Files that survive a power cut: write beside, flush to disk, rename. It knows nothing about what is written.

A rename is atomic but not durable, and a write is neither: bytes reach the disk by fsync of the file, names by fsync
of the folder (research: "All file systems are not created equal", OSDI 2014).
"""

import ctypes
import errno
import os
import re
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

_RENAME_NOREPLACE = 1
_AT_FDCWD = -100
_BESIDE = re.compile(r"\..+\.[0-9a-f]{8}\.tmp", re.DOTALL)
LEFT_SECONDS = 60.0  # nobody takes so long between a file and its rename
_libc = ctypes.CDLL(None, use_errno=True)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Make the bytes of `path` durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, data: bytes, durable: bool = True) -> None:
    """Replace `path` by `data` in one instant; readers see the old bytes or the new, never a mixture."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def write_json(path: Path, value, durable: bool = True) -> None:
    """`write_bytes` of `value` as indented JSON."""
    write_bytes(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), durable)


def read_json(path: Path, default=None):
    """The JSON in `path`, or `default` where there is none or it cannot be read as JSON."""
    try:
        return orjson.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, orjson.JSONDecodeError):
        return default


def move(source: Path, target: Path) -> None:
    """Rename within one file system, durably; a target that exists raises FileExistsError instead of being replaced."""
    rename(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def rename(source: Path, target: Path) -> None:
    """`move` without making the names durable, for many at once: their folders are the caller's to sync."""
    result = _libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE)
    if result != 0:
        code = ctypes.get_errno()
        if code not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(code, os.strerror(code), str(source), None, str(target))
        if os.path.lexists(target):  # file systems without NOREPLACE (NFS, some FUSE)
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.rename(source, target)


def point(link: Path, target: Path) -> None:
    """Make the symlink `link` lead to its neighbour `target` (relative, so that a realm can be moved), in one instant."""
    beside = link.with_name(f".{link.name}.{secrets.token_hex(4)}.tmp")
    os.symlink(os.path.relpath(target, link.parent), beside)
    try:
        os.replace(beside, link)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    sync_folder(link.parent)


def leftovers(folder: Path) -> Iterator[Path]:
    """Files and links in `folder` whose rename never came: a crash was quicker. Those that are just written are none."""
    for path in folder.iterdir():
        if _BESIDE.fullmatch(path.name):
            try:
                facts = path.lstat()
            except FileNotFoundError:  # its rename came
                continue
            if not stat.S_ISDIR(facts.st_mode) and time.time() - facts.st_mtime > LEFT_SECONDS:
                yield path


def sweep(folder: Path) -> None:
    """Remove the `leftovers` in `folder`."""
    for path in leftovers(folder):
        path.unlink(missing_ok=True)
