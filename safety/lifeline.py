"""What every service of the realm does first: end with its parent, turn signals into a flag, and show that it lives.

Handlers only set a flag; the service looks at it where stopping is safe.
"""

import contextlib
import ctypes
import faulthandler
import os
import signal
import threading
from pathlib import Path

from core.heartbeat import Heartbeat
from core.paths import RealmPaths

_PR_SET_PDEATHSIG = 1


def end_with_parent(parent: int | None) -> bool:
    """Have the kernel send SIGTERM when `parent` dies; False where it died before we could ask."""
    if parent is None:
        return True
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return os.getppid() == parent


class Lifeline:
    """`should_exit` is set by SIGTERM or SIGINT; `beat` and `enter` are the heartbeat's of its main thread.

    `oom_score`: whom the kernel ends first when memory runs out, from -1000 (never) to 1000.
    """

    def __init__(self, paths: RealmPaths, service: str, parent: int | None = None, oom_score: int = 0):
        self.should_exit = threading.Event()
        heartbeat = Heartbeat(paths.heartbeats / service)
        self.beat, self.enter = heartbeat.beat, heartbeat.enter
        faulthandler.enable()
        faulthandler.register(signal.SIGUSR1)  # the supervisor asks a silent service where it stands
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, lambda *_: self.should_exit.set())
        if not end_with_parent(parent):
            self.should_exit.set()
        with contextlib.suppress(OSError):  # to lower it takes rights that a user need not have
            Path("/proc/self/oom_score_adj").write_text(str(oom_score))
