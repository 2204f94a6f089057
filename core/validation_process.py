"""File work in a child process with limits on memory and time, so that no file can stall or kill the daemon.

The parent's half is `ValidationProcess`, the child's is `main`; they talk in JSON lines. The child stays for the next
file and is replaced when it dies or takes too long. It knows nothing about queues.
"""

import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson

from core.paths import CHECKOUT

MEMORY_BYTES = 4 << 30
SECONDS_BASE = {"validate": 60.0, "prepare": 300.0}
BYTES_PER_SECOND = {"validate": 4e6, "prepare": 0.2e6}


class ValidationProcess:
    """One resident child. `wake` is called from another thread when an answer is there."""

    def __init__(self, wake: Callable[[], None]):
        self._wake = wake
        self._child: subprocess.Popen | None = None
        self._answer: dict[str, Any] | None = None
        self._deadline = 0.0
        self.task: dict[str, Any] | None = None

    @property
    def busy(self) -> bool:
        return self.task is not None

    def give(self, task: dict[str, Any], now: float) -> None:
        """Start on `task`: keys `task` (validate or prepare), `path` and what that work needs."""
        assert not self.busy
        if self._child is None or self._child.poll() is not None:
            self._start()
        size = Path(task["path"]).stat().st_size
        self._deadline = now + SECONDS_BASE[task["task"]] + size / BYTES_PER_SECOND[task["task"]]
        self.task, self._answer = task, None
        try:
            self._child.stdin.write(orjson.dumps(task) + b"\n")
            self._child.stdin.flush()
        except BrokenPipeError:
            pass  # it died just now: `take` finds out

    def take(self, now: float) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(task, answer) when the work is done, died or was stopped for its time; None while it goes on."""
        if not self.busy:
            return None
        if self._answer is None and now > self._deadline:
            self._end({"failure": "it took too long to read; the file may be broken, split it"})
        elif self._answer is None and self._child.poll() is not None and not self._reader.is_alive():
            self._end({"failure": f"reading it ended the reader ({_exit_words(self._child.returncode)}); the file may be broken"})
        if self._answer is None:
            return None
        task, answer, self.task, self._answer = self.task, self._answer, None, None
        return task, answer

    def close(self) -> None:
        if self._child and self._child.poll() is None:
            self._child.kill()
            self._child.wait()

    def _start(self) -> None:
        command = [sys.executable, "-m", "core.validation_process"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT)
        self._reader = threading.Thread(target=self._listen, args=(self._child,), daemon=True)
        self._reader.start()

    def _listen(self, child: subprocess.Popen) -> None:
        for line in child.stdout:
            if child is self._child:
                self._answer = orjson.loads(line)
            self._wake()
        self._wake()

    def _end(self, answer: dict[str, Any]) -> None:
        self.close()
        self._child = None
        self._answer = answer


def _exit_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


# The child's half


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    _end_with_parent()
    for line in sys.stdin.buffer:
        answer = _work(orjson.loads(line))
        sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _end_with_parent() -> None:
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(task: dict[str, Any]) -> dict[str, Any]:
    """Carry out one task; what goes wrong with the file is an answer, too."""
    try:
        return _TASKS[task["task"]](task)
    except MemoryError:
        return {"failure": f"reading it needs more than {MEMORY_BYTES >> 30} GiB of memory; split the file"}
    except Exception as problem:
        import traceback

        traceback.print_exc()
        return {"failure": f"it cannot be read: {type(problem).__name__}: {problem}"}


def _validate(task: dict[str, Any]) -> dict[str, Any]:
    from core.quest import Settings
    from core.validator import validate_file

    settings = Settings(**task["settings"])
    return validate_file(Path(task["path"]), settings, _renderer(task["tokenizer"], settings.max_length), Path(task["bad_rows"]))


def _prepare(task: dict[str, Any]) -> dict[str, Any]:
    from core.prepare import cache_name, prepare
    from core.quest import Settings

    settings = Settings(**task["settings"])
    renderer = _renderer(task["tokenizer"], settings.max_length)
    name = cache_name(task["sha256"], task["form"], settings, renderer)
    prepared = prepare(Path(task["path"]), task["form"], settings, renderer, Path(task["prepared"]) / name)
    return {"name": name, "rows": len(prepared)}


_TASKS = {"validate": _validate, "prepare": _prepare}


@lru_cache(maxsize=2)
def _renderer(folder: str, max_length: int):
    from core.rendering import Renderer

    return Renderer.load(Path(folder), max_length)


if __name__ == "__main__":
    sys.exit(main())
