"""`bench learning`: what ways to treat the learning rate and the optimizer's moments are worth over a stream of quests.

Each seed makes its own quests and its own newborn hero, whose life is lived once for each way, in a process of its own.
It gathers numbers and their ratios; it trains nothing itself.
"""

import hashlib
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import orjson

from core.config import Config
from core.errors import RealmError
from core.formats import form
from core.paths import BUNDLED_TOKENIZER
from core.quest import Sidecar, freeze
from core.quest_file import to_row
from core.rendering import Renderer
from core.skills import skill
from training.bench.chat_rows import rows as chat_rows
from training.bench.launch import lived
from training.bench.machine import describe_machine, versions
from training.terminal import duration_text

FORM = "messages"
LONGEST, LEAST_ROWS = 160, 40
RATE, FAST = 1e-3, 3
BRANCH_SHARE = 0.1
QUICK_SECONDS, RUN_SECONDS = 480.0, 1200
WAYS = {  # way: how it is told
    "constant": "Constant rate, moments carried",
    "reset": "Constant rate, moments reset each quest",
    "cooldown": "Constant, rate falls in the last quest",
    "rest": "Rate falls in each quest",
    "realm": "Rate falls in each quest and with age",
    "branch": "Constant, then a branch as exported",
    "schedule_free": "Schedule-free",
    "schedule_free_fast": f"Schedule-free, {FAST} × the rate",
}
MEASURES = ("final", "own", "early")
Say = Callable[[str], None]


@dataclass(frozen=True)
class LearningOptions:
    """`rows` a quest. `seconds`: no further seed is begun that would not end within them."""

    seeds: int
    quests: int = 6
    rows: int = 400
    quick: bool = False
    threads: int = len(os.sched_getaffinity(0))
    seconds: float | None = None


def run_learning(options: LearningOptions, say: Say) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints."""
    began, lives = time.time(), []
    for seed in range(1, options.seeds + 1):
        spent = time.time() - began
        if options.seconds and lives and spent / len(lives) * (len(lives) + 1) > options.seconds:
            say("no time for another seed")
            break
        with tempfile.TemporaryDirectory(prefix="bench-learning-") as folder:
            lives.append(_live(Path(folder), seed, options))
        left = (time.time() - began) / seed * (options.seeds - seed)
        final = ", ".join(f"{way} {facts['final']:.4f}" for way, facts in lives[-1]["ways"].items())
        say(f"seed {seed}: {final}; {duration_text(left)} to go")
    ratios = {way: _ratios(lives, way) for way in WAYS if way != "constant"}
    return {
        "bench": "learning",
        "ratio": {way: median(values) for way, values in ratios.items()},
        "ratio_range": {way: [min(values), max(values)] for way, values in ratios.items()},
        "ways": {way: _standing(lives, way) for way in WAYS},
        "steps": lives[0]["steps"],
        "branch_steps": lives[0]["branch_steps"],
        "quests": options.quests,
        "rows": options.rows,
        "seeds": len(lives),
        "quick": options.quick,
        "machine": describe_machine(options.threads),
        "versions": versions(sys.executable),
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": time.time() - began,
    }


def _ratios(lives: list[dict[str, Any]], way: str) -> list[float]:
    """Final held-out loss by that of the constant rate, seed by seed."""
    return [life["ways"][way]["final"] / life["ways"]["constant"]["final"] for life in lives]


def _standing(lives: list[dict[str, Any]], way: str) -> dict[str, Any]:
    standing: dict[str, Any] = {"title": WAYS[way]}
    for measure in MEASURES:
        values = [life["ways"][way][measure] for life in lives if measure in life["ways"][way]]
        if values:
            standing[measure] = {"median": median(values), "min": min(values), "max": max(values), "runs": values}
    return standing


def _live(folder: Path, seed: int, options: LearningOptions) -> dict[str, Any]:
    """The numbers of one seed. Raises RealmError."""
    config = Config(seed=seed, validation_fraction=0.15, eval_steps=1 << 30, save_steps=1 << 30)
    settings = freeze(config, Sidecar(cooldown_share=0.0))
    facts = {
        "root": str(folder),
        "seed": seed,
        "form": FORM,
        "settings": settings.model_dump(),
        "rate": RATE,
        "rest": config.training_defaults.cooldown_share,
        "fast": FAST,
        "branch_share": BRANCH_SHARE,
        "threads": options.threads,
        "quests": [_quest(folder, seed, number, options.rows) for number in range(options.quests)],
    }
    try:
        return lived("training.bench.entrants.stream", facts, folder, RUN_SECONDS)
    except RealmError as problem:
        raise RealmError(f"seed {seed}: {problem}; with fewer --rows it has less to do") from None


def _quest(folder: Path, seed: int, number: int, count: int) -> dict[str, str]:
    """Sums and chats take turns, and sums become harder: what is learned changes from quest to quest."""
    path = folder / f"quest-{number}.jsonl"
    rows = _sums(number // 2 + 1, seed * 100 + number, count) if number % 2 == 0 else _chats(seed * 100 + number, count)
    data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    path.write_bytes(data)
    return {"path": str(path), "sha256": hashlib.sha256(data).hexdigest()}


def _sums(level: int, seed: int, count: int) -> list[dict[str, Any]]:
    problems = skill("BIN").sample(level, seed, count)
    random.Random(seed).shuffle(problems)
    return [_row(problem.prompt, problem.answer) for problem in problems]


def _chats(seed: int, count: int) -> list[dict[str, Any]]:
    renderer = Renderer.load(BUNDLED_TOKENIZER, LONGEST * 2)

    def measure(row: dict[str, Any]) -> int:
        return len(renderer.render([to_row(form(FORM), row, {})])[0].sequences[0].input_ids)

    return list(chat_rows(count, LONGEST, seed, measure))


def _row(question: str, answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
