"""What every service of the realm does first: end with its parent, turn signals into a flag, and show that it lives.

Handlers only set a flag; the service looks at it where stopping is safe.
"""

import ctypes
import faulthandler
import os
import signal
import threading

from core.full_disk import spared
from core.paths import RealmPaths

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int | None) -> bool:
    """Have the kernel send SIGTERM when `parent` dies; False where it died before we could ask."""
    if parent is None:
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


class Lifeline:
    """`should_exit` is set by SIGTERM or SIGINT; `beat` touches the service's heartbeat file."""

    def __init__(self, paths: RealmPaths, service: str, parent: int | None = None):
        self.should_exit = threading.Event()
        self._heartbeat = paths.heartbeats / service
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1)  # the supervisor asks a silent service where it stands
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self.should_exit.set())
        if not end_with_parent(parent):
            self.should_exit.set()

    def beat(self) -> None:
        with spared(self._heartbeat.parent):  # one that is there can be touched on a full disk, too
            self._heartbeat.touch()
