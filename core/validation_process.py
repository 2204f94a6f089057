"""File work in a child process with limits on memory and time, so that no file can stall or kill the daemon.

The parent's half is `ValidationProcess`, the child's is `main`; they talk in JSON lines. The child stays for the next
file and is replaced when it dies or takes too long. It knows nothing about queues.
"""

import contextlib
import errno
import hashlib
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from core.errors import UserError
from core.full_disk import is_no_space
from core.paths import CHECKOUT

MEMORY_BYTES = 4 << 30
SILENT_SECONDS = 120.0  # a few MiB of rows take seconds, also on a machine that trains
ALIVE_SECONDS = 1.0
FLUSHED_BYTES = 8 << 20
THRIFTY = {"MALLOC_ARENA_MAX": "2", "MALLOC_MMAP_THRESHOLD_": "131072"}  # what a long row took is given back at once
_ALIVE = b"alive"


class ValidationProcess:
    """One resident child. `wake` is called from another thread when an answer is there."""

    def __init__(self, wake: Callable[[], None], silent_seconds: float = SILENT_SECONDS):
        self._wake, self._silent_seconds = wake, silent_seconds
        self._child: subprocess.Popen | None = None
        self._answer: dict[str, Any] | None = None
        self._alive = False
        self._deadline = 0.0
        self.task: dict[str, Any] | None = None
        self.share = 0.0  # of the task, where the child tells

    @property
    def busy(self) -> bool:
        return self.task is not None

    def give(self, task: dict[str, Any], now: float) -> None:
        """Start on `task`: keys `task` (validate, prepare, preview or ask), `path` and what that work needs."""
        assert not self.busy
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._start()
        self._deadline = now + self._silent_seconds
        self.task, self._answer, self.share = task, None, 0.0
        try:
            self._child.stdin.write(orjson.dumps(task) + b"\n")
            self._child.stdin.flush()
        except OSError:  # mostly it died just now; `take` finds out
            self._child.kill()

    def take(self, now: float) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """(task, answer) when the work is done, died or was stopped for its silence; None while it goes on.

        The answer has `died` where the child ended by itself, which may or may not be the file's fault.
        """
        if not self.busy:
            return None
        if self._alive:
            self._alive, self._deadline = False, now + self._silent_seconds
        if self._answer is None and now > self._deadline:
            self._end(
                {"failure": f"reading it stood still for {self._silent_seconds:.0f} seconds; the file may be broken"}
            )
        elif self._answer is None and self._child.poll() is not None and not self._reader.is_alive():
            words = f"reading it ended the reader ({_exit_words(self._child.returncode)}); the file may be broken"
            self._end({"failure": words, "died": True})
        if self._answer is None:
            return None
        task, answer, self.task, self._answer = self.task, self._answer, None, None
        return task, answer

    def close(self) -> None:
        if self._child:
            self._child.kill()
            self._child.wait()
            self._reader.join()
            self._child.stdout.close()
            with contextlib.suppress(BrokenPipeError):
                self._child.stdin.close()
            self._child = None

    def _start(self) -> None:
        command = [sys.executable, "-m", "core.validation_process", str(os.getpid())]
        self._child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=CHECKOUT, env={**os.environ, **THRIFTY}
        )
        self._reader = threading.Thread(target=self._listen, args=(self._child,), daemon=True)
        self._reader.start()

    def _listen(self, child: subprocess.Popen) -> None:
        for line in child.stdout:
            if line.startswith(_ALIVE):
                self._alive, self.share = True, float(line[len(_ALIVE) :] or 0)
            elif line.endswith(b"\n"):  # else it died in the middle of its answer
                self._answer = orjson.loads(line)
                self._wake()
        self._wake()

    def _end(self, answer: dict[str, Any]) -> None:
        self.close()
        self._answer = answer


def _exit_words(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


# The child's half


def main() -> int:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    if not _end_with_parent(int(sys.argv[1])):
        return 1
    for line in sys.stdin.buffer:
        _say(orjson.dumps(_work(orjson.loads(line))) + b"\n")
    return 0


def _say(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def _alive(share: float = 0.0) -> None:
    """Tell the parent, now and then, that the work goes on, and what share is done."""
    global _told
    if time.monotonic() - _told >= ALIVE_SECONDS:
        _told = time.monotonic()
        _say(_ALIVE + b" %.6f\n" % share)


_told = 0.0


def _end_with_parent(parent: int) -> bool:
    """Whether the parent lives; from now on this process ends with it, and no file is worked on by two."""
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return os.getppid() == parent


def _work(task: dict[str, Any]) -> dict[str, Any]:
    """Carry out one task; what goes wrong with the file is an answer, too."""
    try:
        return _TASKS[task["task"]](task)
    except FileNotFoundError:  # the trainer or its owner was quicker
        return {"failure": "it is no longer there"}
    except UserError as problem:  # of the hero's tokenizer
        return {"failure": str(problem)}
    except OSError as problem:
        if is_no_space(problem, Path(task["path"]).parent):
            return {"failure": os.strerror(errno.ENOSPC), "no_space": True}
        remedy = "; let the realm's user read it" if isinstance(problem, PermissionError) else ""
        return {"failure": f"cannot be read: {problem.strerror}{remedy}"}
    except MemoryError:
        return {"failure": f"reading it needs more than {MEMORY_BYTES >> 30} GiB of memory; split the file"}
    except Exception as problem:
        import traceback

        traceback.print_exc()
        return {"failure": f"it cannot be read: {type(problem).__name__}: {problem}"}


def _validate(task: dict[str, Any]) -> dict[str, Any]:
    from core.durable import sync_file
    from core.quest import Settings
    from core.validator import validate_file

    settings = Settings(**task["settings"])
    renderer = _renderer(task["tokenizer"], settings.max_length)
    report = validate_file(Path(task["path"]), settings, renderer, Path(task["bad_rows"]), _alive)
    if report["bytes"] > FLUSHED_BYTES:
        sync_file(Path(task["path"]))  # minutes, perhaps, for which the daemon has no time
    return report


def _prepare(task: dict[str, Any]) -> dict[str, Any]:
    from core.prepare import cache_name, prepare
    from core.quest import Settings
    from core.teacher_answers import TeacherAnswers

    settings = Settings(**task["settings"])
    renderer = _renderer(task["tokenizer"], settings.max_length)
    answers = TeacherAnswers(Path(task["answers"])) if task["answers"] else None
    name = cache_name(task["sha256"], task["form"], settings, renderer, answers)
    folder = Path(task["prepared"]) / name
    prepared = prepare(Path(task["path"]), task["form"], settings, renderer, folder, _alive, answers=answers)
    return {"name": name, "rows": len(prepared)}


def _ask(task: dict[str, Any]) -> dict[str, Any]:
    """A teacher's answers, kept in the file `answers`; `key`: where its key lies, if it may have it."""
    from core.teacher_server import ask

    path, key = Path(task["path"]), task["key"] and Path(task["key"])

    def progress(share: float) -> None:
        path.lstat()  # else its owner took it away, and nobody wants the answers
        _alive(share)

    return ask(path, task["card"], Path(task["answers"]), key.read_text().strip() if key else None, progress)


def _preview(task: dict[str, Any]) -> dict[str, Any]:
    """A page of rows; with `glance`, what the whole file seems to hold as well."""
    from core.glance import glance
    from core.quest import Settings
    from core.row_preview import preview

    path, settings = Path(task["path"]), Settings(**task["settings"])
    renderer = _renderer(task["tokenizer"], settings.max_length)
    where = {name: task[name] for name in ("rows", "form", "at", "line", "most_tokens")}
    shown = preview(path, settings.columns, renderer, profile=settings.profile, learned=settings.learned, **where)
    return shown | ({"glance": glance(path, settings, renderer)} if task["glance"] else {})


_TASKS = {"validate": _validate, "prepare": _prepare, "preview": _preview, "ask": _ask}


def _renderer(folder: str, max_length: int):
    """The tokenizer in `folder`; one that is the same, byte for byte, in another checkpoint is not read again."""
    content = tuple(
        _bytes_hash(Path(folder) / name) for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
    )
    if (content, max_length) not in _renderers:
        from core.rendering import Renderer

        _renderers.clear()
        _renderers[content, max_length] = Renderer.load(Path(folder), max_length)
    return _renderers[content, max_length]


_renderers: dict = {}


def _bytes_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


if __name__ == "__main__":
    sys.exit(main())
