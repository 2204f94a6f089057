"""Opens files that somebody else put there: regular ones only, never what a link leads to, never waiting on a pipe."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from core.errors import UserError

_KINDS = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
LINK = "is a symbolic link"


def other_kind_of(mode: int) -> str | None:
    """What a file of this mode is instead of a regular one, as what follows its name; None for a regular one."""
    if stat.S_ISLNK(mode):
        return LINK
    return None if stat.S_ISREG(mode) else f"is a {_KINDS.get(stat.S_IFMT(mode), 'device')}"


def open_regular(path: Path) -> BinaryIO:
    """`path` for reading. Raises UserError for anything but a regular file, OSError where it cannot be opened."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        kinds = {errno.ELOOP: LINK, errno.ENXIO: "is a socket or a device"}
        if problem.errno in kinds:
            raise UserError(f"{path.name} {kinds[problem.errno]}; only regular files are read") from None
        raise
    if kind := other_kind_of(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"{path.name} {kind}; only regular files are read")
    return os.fdopen(descriptor, "rb")
