"""From the evidence of a death to its class, one sentence of advice, and what is to follow. It only reads evidence.

The rules are tried in order, the strongest evidence first: what the supervisor and the kernel did, what the process
said, how it exited. Nothing here looks at the system; `safety/evidence.py` does.
"""

import re
import signal
from dataclasses import dataclass

from core.dossier import Action, Crash, Kind, last_lines

_OUTSIDE_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Evidence:
    """`code`: exit code, minus the signal's number, None where it could not even be begun. `said`: the end of its stderr.

    `oom_killed`: the kernel counted or logged it; `hung`: the supervisor had to end it. `phase`, `step`: its last beat.
    """

    code: int | None
    said: str = ""
    oom_killed: bool = False
    hung: bool = False
    phase: str = ""
    step: int = 0


SAID = (  # class: what only such a death says last
    (Kind.CUDA_OOM, r"OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED"
                    r"|\bMemoryError\b|std::bad_alloc|can't allocate memory|[Cc]annot allocate memory"),
    (Kind.DISK, r"No space left on device|Disk quota exceeded|database or disk is full"
                r"|Input/output error|disk I/O error|Read-only file system"),
    (Kind.NAN, r"FloatingPointError|(?:loss|gradient norm) (?:nan|inf)\b"),
    (Kind.IMPORT_ERROR, r"\b(?:ImportError|ModuleNotFoundError)\b|undefined symbol|cannot open shared object file"
                        r"|CUDA driver version is insufficient"),
    (Kind.DATA, r"JSONDecodeError|UnicodeDecodeError|SafetensorError|core\.errors\.UserError|errors\.CheckpointError"),
)  # fmt: skip

ADVICE = {
    Kind.OOM_KILL: "The machine, or the realm's control group, had no memory left: give it more, or set batch_size or "
    "max_length lower; `plan` shows what needs how much.",
    Kind.CUDA_OOM: "No memory could be had where it was asked for: leave more of it free, or set batch_size or max_length "
    "lower; `plan` shows what needs how much.",
    Kind.NAN: "A loss or gradient was no number: look at the rows and set learning_rate lower.",
    Kind.DISK: "The disk is full or failing: free space, look at `dmesg`; it goes on by itself.",
    Kind.IMPORT_ERROR: "A library cannot be loaded: set the environment up again (scripts/start.sh), then `start-all`.",
    Kind.DATA: "A file could not be read as what it is: `doctor` looks at the realm, `quest show` at the quest.",
    Kind.HANG: "It stood still and was ended; the lines show where each of its threads stood.",
    Kind.BUG: "It failed by itself; the lines and its log say where.",
    Kind.KILLED: "Somebody outside the realm ended it; it goes on from the last checkpoint.",
    Kind.STOPPED: "It ended in good order without the realm having asked for it; it is started again.",
}

LEVELS = {Kind.STOPPED: "info", Kind.DISK: "alert", Kind.IMPORT_ERROR: "alert", Kind.BUG: "alert"}  # else warning


def diagnose(evidence: Evidence) -> Crash:
    """What `evidence` tells of a death."""
    kind = _kind(evidence)
    crash = Crash(
        kind,
        Action.RESTART,
        ADVICE[kind],
        "no start" if evidence.code is None else exit_name(evidence.code),
        evidence.phase,
        evidence.step,
        last_lines(evidence.said),
    )
    return Crash(**vars(crash) | {"action": _action(crash)})


def _kind(evidence: Evidence) -> Kind:
    if evidence.hung:
        return Kind.HANG
    if evidence.oom_killed and evidence.code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return Kind.OOM_KILL
    if evidence.code == 0:
        return Kind.STOPPED
    if evidence.code is not None and -evidence.code in _OUTSIDE_SIGNALS:
        return Kind.KILLED
    ending = "\n".join(last_lines(evidence.said))
    return next((kind for kind, words in SAID if re.search(words, ending)), Kind.BUG)


def _action(crash: Crash) -> Action:
    if crash.kind in (Kind.OOM_KILL, Kind.CUDA_OOM) and crash.in_battle:
        return Action.HALVE
    if crash.kind in (Kind.NAN, Kind.DATA) and crash.in_battle:  # it would come to the same again
        return Action.QUARANTINE
    return {Kind.DISK: Action.WAIT_FOR_DISK, Kind.IMPORT_ERROR: Action.STOP}.get(crash.kind, Action.RESTART)


def exit_name(code: int) -> str:
    """`exit 1`, or `SIGKILL`."""
    if code >= 0:
        return f"exit {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
