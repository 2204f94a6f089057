"""Has pages of rows turned into tokens for the visitor, by a child process with limits, so that no file harms the Tavern.

The child (core/validation_process.py) is started by the first question and ended after a while without one. It lives and
dies with one thread of ours, which asks one question after the other; whoever asks waits for that thread.
"""

import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.validation_process import ValidationProcess
from monitoring.servers.tavern.security import Refusal

ROWS = 8
SHOWN_TOKENS = 480  # of a sequence, in a page of rows
ALL_TOKENS = 8192  # of one that is looked at alone
SECONDS = 20.0
WAITING = 8
IDLE_SECONDS = 60.0
KEPT = 32


class Previewer:
    """`ask` for what `core.row_preview` shows; `close` ends the child."""

    def __init__(self) -> None:
        self._answered = threading.Event()
        self._process = ValidationProcess(self._answered.set, SECONDS)
        self._thread = ThreadPoolExecutor(1, "previewer")
        self._kept: OrderedDict[tuple, dict[str, Any]] = OrderedDict()
        self._lock, self._waiting, self._asked = threading.Lock(), 0, 0
        self._timer: threading.Timer | None = None

    def ask(self, path: Path, task: dict[str, Any]) -> dict[str, Any]:
        """The child's answer; it is kept as long as the file is the same. Raises Refusal where there is none."""
        key = _key(path, task)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
            if self._waiting >= WAITING:
                raise Refusal(503, "busy", "Many previews are wanted just now; try again in a moment.")
            self._waiting += 1
        try:
            found = self._thread.submit(self._work, task | {"task": "preview", "path": str(path)}).result()
        finally:
            with self._lock:
                self._waiting -= 1
        if "failure" in found:
            _key(path, task)  # or it went somewhere else meanwhile
            raise Refusal(422, "no_preview", f"It cannot be shown: {found['failure']}.")
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._thread.submit(self._process.close).result()
        self._thread.shutdown()

    # In the thread

    def _work(self, task: dict[str, Any]) -> dict[str, Any]:
        self._asked += 1
        self._process.give(task, time.monotonic())
        while (done := self._process.take(time.monotonic())) is None:
            self._answered.wait(0.25)
            self._answered.clear()
        if self._timer:
            self._timer.cancel()
        self._timer = threading.Timer(IDLE_SECONDS, self._rest, (self._asked,))
        self._timer.daemon = True
        self._timer.start()
        return done[1]

    def _rest(self, asked: int) -> None:
        """End the child unless it was asked again."""
        try:
            self._thread.submit(lambda: self._process.close() if self._asked == asked else None)
        except RuntimeError:  # closed meanwhile
            return


def _key(path: Path, task: dict[str, Any]) -> tuple:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        raise Refusal(409, "moved", "The file went somewhere else just now; look again.") from None
    return facts.st_ino, facts.st_size, facts.st_mtime_ns, repr(sorted(task.items()))
