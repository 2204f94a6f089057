"""The realm's own trainer process as a life to be killed: `training.trainer_process`, and the micro hero in it."""

import os
import signal
import sys
import time

from core import checkpoints
from core.durable import read_json
from core.errors import CheckpointError
from core.paths import CHECKOUT, PRIORITIES, RealmPaths
from safety.child import Child

_TURN = 0.02


class RealTrainer:
    """The same to a driver as `stand_in.Life`."""

    def __init__(self, paths: RealmPaths):
        self._paths, self._before = paths, time.time()
        output = paths.root.with_name(f"{paths.root.name}.out")  # not on a disk whose power is cut
        command = [
            sys.executable,
            "-m",
            "training.trainer_process",
            "--root",
            str(paths.root),
            "--parent",
            str(os.getpid()),
        ]
        self._child = Child(command, output, {}, CHECKOUT)
        self.step = 0

    @property
    def awake(self) -> bool:
        """Whether it has told so; a verdict may have it load an earlier checkpoint, and wake up again."""
        return self.look()

    def look(self) -> bool:
        """Read what it tells of itself, its steps among it; whether it is awake."""
        told = read_json(self._paths.status, {})
        if told.get("time", 0.0) < self._before or told.get("state") == "loading":
            return False
        self.step = max(self.step, (told.get("hero") or {}).get("global_step") or 0)
        return True

    @property
    def tip(self) -> int:
        try:
            return checkpoints.read(self._paths.tip).step
        except CheckpointError:
            return 0

    def idle(self) -> bool:
        """Whether it has trained all there was; it is idle for a moment before its first battle, too."""
        told = read_json(self._paths.status, {})
        left = any(any(self._paths.queued(state).glob("*.jsonl")) for state in (*PRIORITIES, "processing"))
        return told.get("time", 0.0) >= self._before and told.get("state") == "idle" and not left

    def lives(self) -> bool:
        return self._child.poll() is None

    def send(self, number: int) -> None:
        self._child.send(number)

    def end(self, seconds: float = 60.0) -> int | None:
        """Asked to end; its exit code, or None where it had to be killed."""
        self._child.send(signal.SIGTERM)
        code = self._await(seconds)
        if code is None:
            self.kill()
        return code

    def kill(self) -> int | None:
        self._child.send(signal.SIGKILL)
        return self._await(60.0)

    def _await(self, seconds: float) -> int | None:
        deadline = time.monotonic() + seconds
        while self._child.poll() is None and time.monotonic() < deadline:
            time.sleep(_TURN)
        return self._child.poll()
