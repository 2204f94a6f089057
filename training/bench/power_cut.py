"""A small ext4 on a loop device whose power can be cut: the kernel's shutdown call drops what is not on the disk.

It knows nothing of what lies on it. Flag 1 writes the journal out and drops the rest, flag 2 drops both.
"""

import array
import fcntl
import os
import shutil
import subprocess
import time
from pathlib import Path

from core.errors import RealmError

FLAGS = (1, 2)
_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_PATIENCE = 20.0


def missing(folder: Path) -> str:
    """Why the power cannot be cut here, or an empty string."""
    if os.geteuid() != 0:
        return "only root may mount an image"
    tools = [tool for tool in ("mkfs.ext4", "mount", "umount") if not shutil.which(tool)]
    if tools:
        return f"{', '.join(tools)} not installed"
    try:
        with PoweredDisk(folder / "probe", megabytes=16) as disk:
            disk.cut(1)
            disk.restore()
    except (RealmError, OSError) as problem:
        return f"no ext4 image can be mounted and shut down: {problem}"
    return ""


class PoweredDisk:
    """`place` is the mounted file system; `image` may be a copy of another disk's."""

    def __init__(self, folder: Path, megabytes: int = 64):
        self.place, self.image = folder / "disk", folder / "image"
        self.place.mkdir(parents=True, exist_ok=True)
        if not self.image.exists():
            with open(self.image, "wb") as file:
                file.truncate(megabytes << 20)
            _call("mkfs.ext4", "-q", "-F", "-m", "0", str(self.image))

    def __enter__(self) -> "PoweredDisk":
        _call("mount", "-o", "loop", str(self.image), str(self.place))
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is None:
            self._leave()
        else:  # whoever uses it still must not hide what went wrong
            _call("umount", "--lazy", str(self.place))

    def cut(self, flag: int) -> None:
        """From now on every call fails, and nothing more reaches the disk. Whoever uses it is to be killed then."""
        descriptor = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, array.array("I", [flag]))
        finally:
            os.close(descriptor)

    def restore(self) -> None:
        """Mounted again, as after a start of the machine."""
        self._leave()
        self.__enter__()

    def _leave(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                _call("umount", str(self.place))
                return
            except RealmError:  # the last process that used it is on its way out
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def copy_to(self, folder: Path) -> "PoweredDisk":
        """A disk of the same content; this one is not mounted."""
        folder.mkdir(parents=True, exist_ok=True)
        _call("cp", "--sparse=always", str(self.image), str(folder / "image"))
        return PoweredDisk(folder)


def _call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RealmError(f"{command[0]}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
