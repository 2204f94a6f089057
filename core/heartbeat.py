"""A heartbeat: a file in which a thread says what it is at, and how long it may be silent there. It judges nobody.

It is written by the thread whose life it shows, never by one beside it, which would go on beating. A reader sees that it
has changed and needs no clock of the writer's, so a wall clock that jumps changes nothing.
"""

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SILENCE = {  # phase of the trainer: seconds that may pass from one beat to the next, at least
    "setup": 600.0,  # imports, and the hero read from disk
    "idle": 60.0,
    "preparing": 300.0,  # a beat for every chunk of rows
    "warm-up": 600.0,  # kernels, the look before the battle, its first step
    "step": 60.0,
    "evaluation": 600.0,
    "checkpoint": 420.0,  # the thread waits for the disk
    "paused": 60.0,
}
OUTSIDE_BATTLE = ("", "setup", "idle")
STEPS_OF_SILENCE = {"step": 5, "evaluation": 20}  # and at least so many steps as long as nearly the longest of late
RECENT_STEPS = 200
_WIDTH = 80  # of the file: overwritten in place by one call, so that nobody reads half of it


@dataclass(frozen=True)
class Beat:
    """What a heartbeat file said: `mark` differs from beat to beat; `silence` None where it names no limit."""

    mark: tuple[int, str]
    phase: str = ""
    number: int = 0
    silence: float | None = None


class Heartbeat:
    """The writer's side. `enter(phase, number)` begins something, `beat` says that it goes on."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic):
        self._path, self._clock = path, clock
        self._phase, self._number, self._seconds, self._count = "", 0, 0.0, 0
        self._entered = clock()
        self._steps: deque[float] = deque(maxlen=RECENT_STEPS)

    def enter(self, phase: str, number: int | None = None, seconds: float = 0.0) -> None:
        """A phase begins. `step` with the number of a step that is done; `seconds`: that it may take, if more than usual."""
        now = self._clock()
        if self._phase == "step":
            self._steps.append(now - self._entered)
        self._phase, self._entered, self._seconds = phase, now, seconds
        self._number = self._number if number is None else number
        self.beat()

    def beat(self) -> None:
        self._count += 1
        silence = f"{self.silence:.1f}" if self._phase else "-"
        text = f"{self._phase or '-'} {self._number} {silence} {self._count}".ljust(_WIDTH - 1) + "\n"
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                os.pwrite(descriptor, text.encode(), 0)
            finally:
                os.close(descriptor)
        except OSError:  # a full disk takes no text; the time of the file needs no room
            with contextlib.suppress(OSError):
                self._path.touch()

    @property
    def silence(self) -> float:
        """Seconds that may pass until the next beat."""
        longest = 0.0
        if self._phase in STEPS_OF_SILENCE:
            if not self._steps:  # how long one takes is not known yet: a large hero may need minutes
                return SILENCE["warm-up"]
            p99 = sorted(self._steps)[-1 - len(self._steps) // 100]
            longest = STEPS_OF_SILENCE[self._phase] * p99
        return max(SILENCE[self._phase], self._seconds, longest)


def read_beat(path: Path) -> Beat | None:
    """The last beat, None where there was none; a file without text, or with another, is a beat that names nothing."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text, moment = file.read(_WIDTH), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    mark = (moment, text)
    match text.split():
        case [phase, number, silence, _] if phase in SILENCE and number.isdecimal():
            return Beat(mark, phase, int(number), float(silence))
        case _:
            return Beat(mark)
