"""`bench learning --forgetting`: what is left of a skill after another one was taught, with replay and without.

Every seed is a life in a process of its own (entrants/two_skills.py), on newborn micro heroes, through gate, queue and battle.
It gathers scores and judges them; it trains nothing itself.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from core.errors import RealmError
from training.bench.launch import lived
from training.bench.machine import describe_machine, versions
from training.bench.page import keep, surroundings
from training.terminal import duration_text, interval_text, table

FIRST, SECOND = ("REV", 1), ("SEQ", 3)
WITHOUT, WITH = 0.0, 0.2
KEPT = 0.95  # of its accuracy that a skill has to keep with replay
LIFE_SECONDS = 1500
HEAD = ("seed", "replay", "first skill before", "and after", "kept", "second skill")
Say = Callable[[str], None]


@dataclass(frozen=True)
class ForgettingOptions:
    """`quests` of `rows` rows teach the second skill; `questions` are asked of each, fresh ones."""

    seeds: int = 3
    quests: int = 6
    rows: int = 1024
    questions: int = 256
    threads: int = len(os.sched_getaffinity(0))


def run_forgetting(options: ForgettingOptions, say: Say) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints."""
    began, lives = time.time(), []
    for seed in range(1, options.seeds + 1):
        lives.append(_life(seed, options) | {"seed": seed})
        left = (time.time() - began) / seed * (options.seeds - seed)
        kept = ", ".join(f"replay {ratio}: {share:.1%} kept" for ratio, share in shares(lives[-1]).items())
        say(f"seed {seed}: {kept}; {duration_text(left)} to go")
    kept = {str(ratio): [shares(life)[str(ratio)] for life in lives] for ratio in (WITHOUT, WITH)}
    return {
        "bench": "forgetting",
        "passed": all(map(is_kept, lives)),
        "ratio": {ratio: median(each) for ratio, each in kept.items()},
        "lives": lives,
        "first": FIRST,
        "second": SECOND,
        "rows": options.rows,
        "quests": options.quests,
        "seeds": options.seeds,
        "machine": describe_machine(options.threads),
        "versions": versions(sys.executable),
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": time.time() - began,
    }


def is_kept(life: dict[str, Any]) -> bool:
    """Whether replay kept the skill, and the skill would have fallen without."""
    kept = shares(life)
    return kept[str(WITHOUT)] < KEPT <= kept[str(WITH)]


def shares(life: dict[str, Any]) -> dict[str, float]:
    """What was kept of the first skill's accuracy, by ratio of replay."""
    before = life["before"]["accuracy"]
    return {ratio: found["first"]["accuracy"] / before if before else 0.0 for ratio, found in life["after"].items()}


def _life(seed: int, options: ForgettingOptions) -> dict[str, Any]:
    """The scores of one seed. Raises RealmError."""
    with tempfile.TemporaryDirectory(prefix="bench-forgetting-") as folder:
        task = {"root": folder, "seed": seed, "first": FIRST, "second": SECOND, "ratios": (WITHOUT, WITH)}
        for name in ("quests", "rows", "questions", "threads"):
            task[name] = getattr(options, name)
        try:
            return lived("training.bench.entrants.two_skills", task, Path(folder), LIFE_SECONDS)
        except RealmError as problem:
            raise RealmError(f"seed {seed}: {problem}") from None


def forgetting_text(result: dict[str, Any]) -> str:
    """How it looks on a terminal."""
    return table(HEAD, _rows(result))


def write_forgetting(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write the bench's part of docs/benchmarks.md; answers what was written."""
    command = f"python -m training bench learning --forgetting --seeds {result['seeds']}"
    facts = {key: " level ".join(map(str, result[key])) for key in ("first", "second")}
    lines = ["## Two skills one after the other", "", *surroundings(result, command), ""]
    lines += [METHOD.format(**result | facts, kept=KEPT), ""]
    lines += ["|".join(["", *cells, ""]) for cells in (HEAD, ["---:"] * len(HEAD), *_rows(result))]
    return keep(docs, "forgetting", "\n".join(lines), {})


def _rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            str(life["seed"]),
            ratio,
            interval_text(life["before"]),
            interval_text(found["first"]),
            f"{shares(life)[ratio]:.1%}",
            interval_text(found["second"]),
        )
        for life in result["lives"]
        for ratio, found in life["after"].items()
    ]


METHOD = """\
A newborn micro hero is taught {first} by quests of {rows} rows until it knows it, then {second} by {quests} such quests, once
without replay and once with a fifth of each step's rows from before, from the same weights and in the same order. Fresh
problems are asked before and after. With replay it has to keep {kept:.0%} of its accuracy, without it the skill has to fall, or there was
nothing to be kept."""
