"""What the system knows of a death: kills for memory counted by its control group or told by the kernel's log.

It draws no conclusion. Where a file is missing or may not be read, there is no evidence, and no error.
"""

import contextlib
import os
import re
from collections import deque
from pathlib import Path

_LOOKS = 10  # one a second: older kills in the same group were others'
_VICTIM = re.compile(r"Killed process (\d+) ")


class KernelLog:
    """The kernel's messages from now on, where this user may read them."""

    def __init__(self, path: str = "/dev/kmsg"):
        self._victims: set[int] = set()
        self._descriptor = -1
        with contextlib.suppress(OSError):
            self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def named(self, pid: int) -> bool:
        """Whether the kernel said that it ended this process for its memory."""
        while self._descriptor >= 0:
            try:
                record = os.read(self._descriptor, 8192)
            except BrokenPipeError:  # records were overwritten before they were read; the next call has the rest
                continue
            except OSError:
                break
            if not record:
                break
            self._victims.update(int(pid) for pid in _VICTIM.findall(record.decode(errors="replace")))
        return pid in self._victims


class MemoryGroup:
    """How often memory's control group of a process had to kill. `look` once a second while it lives: a dead one has none."""

    def __init__(self, pid: int, proc: Path = Path("/proc"), mount: Path = Path("/sys/fs/cgroup")):
        self._listing, self._mount = proc / str(pid) / "cgroup", mount
        self._file: Path | None = None
        self._counts: deque[int] = deque(maxlen=_LOOKS)

    def look(self) -> None:
        """Take the present count; a process may have been moved to another group."""
        file = self._find()
        if file is None or (self._file and file.parent in (self._mount, self._mount / "memory")):
            file = self._file  # one that is just ending is told to be in the root
        if file != self._file:
            self._file = file
            self._counts.clear()
        if file and (count := _kills(file)) is not None:
            self._counts.append(count)

    def killed(self) -> bool:
        """Whether the group had to kill within the last looks; asked after the death."""
        count = _kills(self._file) if self._file else None
        return bool(self._counts) and count is not None and count > self._counts[0]

    def _find(self) -> Path | None:
        """The file with the count: version 1's, where memory has a hierarchy of its own, or version 2's."""
        try:
            lines = [line.split(":", 2) for line in self._listing.read_text().splitlines()]
        except OSError:
            return self._file
        groups = {controller: path.lstrip("/") for _, names, path in lines for controller in names.split(",")}
        if "memory" in groups:
            base, inside, name = self._mount / "memory", groups["memory"], "memory.oom_control"
        else:
            base, inside, name = self._mount, groups.get("", ""), "memory.events"
        return next((file for file in (base / inside / name, base / name) if file.is_file()), None)


def _kills(file: Path) -> int | None:
    try:
        counts = dict(line.split() for line in file.read_text().splitlines())
        return int(counts["oom_kill"])
    except (OSError, KeyError, ValueError):
        return None
