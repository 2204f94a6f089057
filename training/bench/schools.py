"""`bench schools`: that each school teaches what it is for, shown on newborn micro heroes, several seeds each.

Every life is a process of its own. What it is asked afterwards it was never taught. It gathers numbers and judges them; it
trains nothing itself.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import RealmError
from core.mastery import Score
from training.bench.launch import lived
from training.bench.machine import describe_machine, versions
from training.terminal import duration_text

FOLDS, LIFE_SECONDS = 5, 1500
ROWS = {"scribe": 1024, "mirror": 512, "judge": 512, "champion": 512, "whisper": 1024, "oracle": 1024}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Promise:
    """What a school's numbers have to show with every seed; `held` is asked of one seed's."""

    text: str
    held: Callable[[dict[str, float]], bool]


PROMISES = {
    "scribe": Promise("held-out loss falls", lambda found: found["after"] < found["before"]),
    "mirror": Promise("wrong answers to fresh problems become fewer", lambda found: found["after"] < found["before"]),
    "judge": Promise("held-out preferences judged right: 90 % or more", lambda found: found["after"] >= 0.9),
    "champion": Promise(
        "mean reward on fresh problems rises by 0.2 or more", lambda found: found["after"] >= found["before"] + 0.2
    ),
    "whisper": Promise(
        "divergence from the teacher falls by half or more", lambda found: found["after"] <= found["before"] / 2
    ),
    "oracle": Promise("told beside plain SFT, whatever comes of it", lambda found: True),
}


@dataclass(frozen=True)
class SchoolOptions:
    """`schools`: which; `preferences`: a file of preference rows that the Judge learns in five folds, if there is one."""

    seeds: int = 3
    schools: tuple[str, ...] = tuple(PROMISES)
    quick: bool = False
    preferences: Path | None = None
    threads: int = len(os.sched_getaffinity(0))


def run_schools(options: SchoolOptions, say: Say) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints."""
    began, found = time.time(), {}
    tasks = [(name, seed) for name in options.schools for seed in range(1, options.seeds + 1)]
    for place, (name, seed) in enumerate(tasks):
        task = {"school": name, "seed": seed, "rows": ROWS[name] // (2 if options.quick else 1)}
        found.setdefault(name, []).append(_life(task, options.threads) | {"seed": seed})
        left = (time.time() - began) / (place + 1) * (len(tasks) - place - 1)
        say(f"{name}, seed {seed}: {told(name, found[name][-1])}; {duration_text(left)} to go")
    return {
        "bench": "schools",
        "schools": {name: _judged(name, seeds) for name, seeds in found.items()},
        "preferences": _of_file(options, say) if options.preferences else None,
        "passed": all(PROMISES[name].held(each) for name, seeds in found.items() for each in seeds),
        "ratio": {"scribe": _ratio(found["oracle"])} if "oracle" in found else {},
        "seeds": options.seeds,
        "quick": options.quick,
        "machine": describe_machine(options.threads),
        "versions": versions(sys.executable),
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": time.time() - began,
    }


def told(name: str, found: dict[str, float]) -> str:
    """One seed's numbers in words."""
    if name == "oracle":
        return f"held-out loss {found['oracle']:.4f}, plain SFT {found['scribe']:.4f}"
    return f"{found['before']:.4f} before, {found['after']:.4f} after"


def _judged(name: str, seeds: list[dict[str, Any]]) -> dict[str, Any]:
    held = [PROMISES[name].held(each) for each in seeds]
    return {"promise": PROMISES[name].text, "held": sum(held), "tried": len(held), "seeds": seeds}


def _ratio(seeds: list[dict[str, Any]]) -> float:
    """Held-out loss of surprise-weighted training by that of plain SFT, mean over seeds."""
    return sum(each["oracle"] / each["scribe"] for each in seeds) / len(seeds)


def _of_file(options: SchoolOptions, say: Say) -> dict[str, Any]:
    """Every row of the user's file judged once by a hero that was not taught it."""
    task = {"school": "judge_of_file", "seed": 1, "folds": FOLDS, "file": str(options.preferences.resolve())}
    parts = [_life(task | {"fold": fold}, options.threads) for fold in range(FOLDS)]
    score = Score(sum(part["right"] for part in parts), sum(part["asked"] for part in parts))
    say(f"{options.preferences.name}: {score.right} of {score.asked} pairs judged right in {FOLDS} folds")
    return {"file": options.preferences.name, "folds": FOLDS, **score.facts()}


def _life(task: dict[str, Any], threads: int) -> dict[str, Any]:
    """The numbers of one life. Raises RealmError."""
    with tempfile.TemporaryDirectory(prefix="bench-schools-") as folder:
        facts = task | {"root": folder, "threads": threads}
        try:
            return lived("training.bench.entrants.school_life", facts, Path(folder), LIFE_SECONDS)
        except RealmError as problem:
            raise RealmError(f"{task['school']}, seed {task['seed']}: {problem}") from None
