"""An entrant's own process: what it is started with, in which surroundings, and what it answers."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from core.errors import RealmError
from core.paths import CHECKOUT

PEER_PYTHON = CHECKOUT / ".venv-bench" / "bin" / "python"
RUN_SECONDS = 600
# As the trainer's own process has it: threads that wait for each other sleep, nothing is looked up in a network.
SURROUNDINGS = {
    "OMP_WAIT_POLICY": "passive",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
    "PYTHONPATH": str(CHECKOUT),
}
FORGOTTEN = ("ACCELERATE_", "OMP_", "MKL_", "MALLOC_", "PYTORCH_", "LD_PRELOAD")


def peer_python() -> str:
    """The interpreter that has the peers, where they were installed."""
    return str(PEER_PYTHON if PEER_PYTHON.exists() else sys.executable)


def surroundings(threads: int) -> dict[str, str]:
    """The environment of every contestant."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(FORGOTTEN)}
    return {**kept, **SURROUNDINGS, "OMP_NUM_THREADS": str(threads)}


class Launched:
    """An entrant at its `task` (a `Task` as a dict), in a folder of its own. Ended with the `with` block.

    It is a process group, to be stopped as one; should whoever started it vanish, the kernel ends a stopped one too.
    """

    def __init__(self, folder: Path, python: str, task: dict[str, Any], kernels: Path, pass_fds: tuple[int, ...] = ()):
        folder.mkdir(exist_ok=True)
        self._result, self._log = folder / "result.json", folder / "log.txt"
        self._result.unlink(missing_ok=True)
        (folder / "task.json").write_bytes(orjson.dumps({**task, "started": time.monotonic()}))
        with open(self._log, "wb") as output:
            self.process = subprocess.Popen(
                [python, "-m", "training.bench.entrants", str(folder / "task.json"), str(self._result)],
                env={**surroundings(task["threads"]), "TORCHINDUCTOR_CACHE_DIR": str(kernels)},
                cwd=folder,
                stdout=output,
                stderr=output,
                pass_fds=pass_fds,
                process_group=0,
            )

    def __enter__(self) -> "Launched":
        return self

    def __exit__(self, *_) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def answer(self) -> dict[str, Any]:
        """Waits for the result; raises RealmError with the last words of whoever failed or takes too long."""
        try:
            code = self.process.wait(RUN_SECONDS)
        except subprocess.TimeoutExpired:
            raise RealmError(f"not done after {RUN_SECONDS} s") from None
        if code or not self._result.exists():
            raise RealmError(_last_words(self._log, code))
        return orjson.loads(self._result.read_bytes())


def lived(module: str, task: dict[str, Any], folder: Path, seconds: float) -> dict[str, Any]:
    """What `python -m module TASK RESULT` answers to `task` at its end. Raises RealmError with its last words."""
    written, result, log = folder / "task.json", folder / "result.json", folder / "log.txt"
    written.write_bytes(orjson.dumps(task))
    command = [sys.executable, "-m", module, str(written), str(result)]
    with open(log, "wb") as output:
        try:
            done = subprocess.run(
                command, env=surroundings(task["threads"]), stdout=output, stderr=output, timeout=seconds
            )
        except subprocess.TimeoutExpired:
            raise RealmError(f"not done after {seconds:.0f} s") from None
    if done.returncode:
        raise RealmError(_last_words(log, done.returncode))
    return orjson.loads(result.read_bytes())


def _last_words(log: Path, code: int) -> str:
    return (log.read_text(errors="replace").strip().splitlines()[-1:] or [f"ended with {code}"])[0]
