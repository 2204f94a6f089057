"""What is known of a death or a failure: kind, advice, what follows, last words; and the dossier it becomes for a quest.

It is handed from the supervisor, which saw the death, to the next life, which answers it. It decides nothing.
"""

import time
import traceback
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from core.errors import NotFinite, UserError
from core.heartbeat import OUTSIDE_BATTLE

LAST_LINES = 20
LINE_CHARACTERS = 300


class Kind(StrEnum):
    """Why a service ended, or a battle failed."""

    OOM_KILL = "oom_kill"  # the kernel ended it, since memory had run out
    CUDA_OOM = "cuda_oom"  # the device's allocator, or the machine's, had nothing more to give
    NAN = "nan"
    DISK = "disk"
    IMPORT_ERROR = "import_error"
    DATA = "data"
    HANG = "hang"
    BUG = "bug"
    KILLED = "killed"  # by a signal from outside
    STOPPED = "stopped"  # it ended by itself, as it does when it is asked to


class Action(StrEnum):
    """What follows."""

    HALVE = (
        "halve_passes"  # the same rows and the same loss in passes half as large: half the micro-batch, twice as many
    )
    QUARANTINE = "quarantine"
    WAIT_FOR_DISK = "wait_for_disk"
    RESTART = "restart"
    STOP = "stop"


OUT_OF_MEMORY = (Kind.OOM_KILL, Kind.CUDA_OOM)
FROM_OUTSIDE = (Kind.KILLED, Kind.STOPPED, Kind.DISK, Kind.IMPORT_ERROR)


@dataclass(frozen=True)
class Crash:
    """One death that nobody in the realm had asked for. `phase`, `step`: what its heartbeat said last."""

    kind: Kind
    action: Action
    advice: str
    exit: str
    phase: str = ""
    step: int = 0
    lines: tuple[str, ...] = ()
    time: float = field(default_factory=time.time)

    @property
    def in_battle(self) -> bool:
        return self.phase not in OUTSIDE_BATTLE

    @property
    def blames_quest(self) -> bool:
        """Whether the quest in battle may have been the cause."""
        return self.in_battle and self.kind not in FROM_OUTSIDE

    @property
    def reason(self) -> str:
        return f"the trainer ended in it ({self.kind}, {self.exit}, after step {self.step:,})"

    def attempt(self) -> dict[str, Any]:
        """Its page of a quest's dossier."""
        signal = self.exit if self.exit.startswith(("SIG", "signal")) else None
        return _attempt(self.time, self.kind, self.exit, signal, self.step, self.lines, self.advice)

    def text(self) -> str:
        """For the next life's environment."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def told(cls, text: str) -> "Crash | None":
        """What `text` gave; None where there was no death."""
        if not text:
            return None
        known = orjson.loads(text)
        kind, action, lines = Kind(known.pop("kind")), Action(known.pop("action")), tuple(known.pop("lines"))
        return cls(kind, action, lines=lines, **known)


def attempt_of(problem: BaseException, step: int) -> dict[str, Any]:
    """The page of a dossier for an exception that ended a battle and not the trainer."""
    if isinstance(problem, FloatingPointError | NotFinite):
        kind, advice = Kind.NAN, "Look at the rows and at the learning rate; `quest retry` tries it again."
    elif isinstance(problem, UserError):
        kind, advice = Kind.DATA, str(problem)
    else:
        kind, advice = Kind.BUG, "The lines say where; `quest retry` tries it again."
    lines = last_lines("".join(traceback.format_exception(problem)))
    return _attempt(time.time(), kind, "exception", None, step, lines, advice)


def last_lines(text: str) -> tuple[str, ...]:
    """The end of what a process said, short enough to be kept."""
    return tuple(line.rstrip()[:LINE_CHARACTERS] for line in text.splitlines() if line.strip())[-LAST_LINES:]


def _attempt(when, kind, exit, signal, step, lines, advice) -> dict[str, Any]:
    return {
        "time": when,
        "kind": str(kind),
        "exit": exit,
        "signal": signal,
        "step": step,
        "lines": list(lines),
        "advice": advice,
    }
