"""The clock of one contestant: when it began, how long its steps took by the wall and by the CPU, what memory."""

import os
import re
import time
from pathlib import Path

import psutil
import torch


class Stopwatch:
    """`begin` right before the loop, `step` right after each optimizer step, all on one monotonic clock.

    `turns`: where to read a byte before every step, and where to write one after it (two pipes' ends). The wait between
    is nobody's time.
    """

    def __init__(self, started: float, warm_up: int, steps: int, turns: tuple[int, int] | None = None):
        self.started, self.steps, self.turns = started, steps, turns
        self._waited_for = {0, 1, warm_up, steps}  # on a GPU only these wait for what is still computed
        self.tokens: list[int] = []
        self.seconds: list[float] = []
        self.peak_bytes = self.device_peak_bytes = self.cpu_seconds = None

    def begin(self) -> None:
        self._cpu_before = time.process_time()
        self.ready_seconds = self._now() - self.started
        self._await_turn()

    def step(self, tokens: int) -> None:
        """An optimizer step on this many real tokens, padding not counted."""
        self.tokens.append(tokens)
        self.seconds.append(self._now() - self._since)
        if len(self.tokens) == self.steps:
            self.cpu_seconds = time.process_time() - self._cpu_before
            self.peak_bytes = peak_bytes()
            if torch.cuda.is_available():
                self.device_peak_bytes = torch.cuda.max_memory_allocated()
        self._await_turn()

    def _await_turn(self) -> None:
        """A whole answer, also after the last step: what comes then is measured by nobody and disturbs nobody."""
        if self.turns:
            os.write(self.turns[1], b".")
            os.read(self.turns[0], 1)
        self._since = time.monotonic()

    def _now(self) -> float:
        if torch.cuda.is_available() and (self.turns or len(self.tokens) in self._waited_for):
            torch.cuda.synchronize()
        return time.monotonic()

    def result(self) -> dict:
        assert len(self.tokens) == self.steps, f"{len(self.tokens)} of {self.steps} steps were done"
        return {
            "ready_seconds": self.ready_seconds,
            "first_step_seconds": self.ready_seconds + self.seconds[0],
            "seconds": self.seconds,
            "tokens": self.tokens,
            "cpu_seconds": self.cpu_seconds,
            "peak_bytes": self.peak_bytes,
            "device_peak_bytes": self.device_peak_bytes,
        }


def peak_bytes() -> int:
    """The most memory that this process held at once. Linux keeps it; elsewhere what it holds now has to do."""
    status = Path("/proc/self/status")
    found = re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(found[1]) << 10 if found else psutil.Process().memory_info().rss
