"""The clock of one contestant: when it began, how long its steps took by the wall and by the CPU, what memory."""

import re
import time
from pathlib import Path

import psutil
import torch


class Stopwatch:
    """`begin` right before the loop, `step` right after each optimizer step, all on one monotonic clock."""

    def __init__(self, started: float, warm_up: int, steps: int):
        self.started, self.steps = started, steps
        self._waited_for = {0, 1, warm_up, steps}  # on a GPU only these wait for what is still computed
        self.marks: list[float] = []
        self.tokens: list[int] = []
        self.peak_bytes = self.device_peak_bytes = self.cpu_seconds = None

    def begin(self) -> None:
        self._cpu_before = time.process_time()
        self.marks.append(self._now())

    def step(self, tokens: int) -> None:
        """An optimizer step on this many real tokens, padding not counted."""
        self.marks.append(self._now())
        self.tokens.append(tokens)
        if len(self.tokens) == self.steps:
            self.cpu_seconds = time.process_time() - self._cpu_before
            self.peak_bytes = peak_bytes()
            if torch.cuda.is_available():
                self.device_peak_bytes = torch.cuda.max_memory_allocated()

    def _now(self) -> float:
        if torch.cuda.is_available() and len(self.marks) in self._waited_for:
            torch.cuda.synchronize()
        return time.monotonic()

    def result(self) -> dict:
        assert len(self.tokens) == self.steps, f"{len(self.tokens)} of {self.steps} steps were done"
        seconds = [after - before for before, after in zip(self.marks, self.marks[1:], strict=False)]
        return {
            "ready_seconds": self.marks[0] - self.started,
            "first_step_seconds": self.marks[1] - self.started,
            "seconds": seconds,
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
