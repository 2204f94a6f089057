"""`bench dice`: what rolling for updates costs or gains, beside a control twin that trains the same rows without dice.

Each seed has its own newborn hero, rows and rolls; its life is lived once for each way, in one process. It gathers numbers and
tells their ratios to the twin's with intervals over seeds; it trains nothing itself.
"""

import hashlib
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import orjson

from core.config import Config
from core.errors import RealmError
from core.quest import Sidecar, freeze
from core.skills import skill
from training.bench.launch import lived
from training.bench.machine import describe_machine, versions
from training.terminal import duration_text

TWIN = "twin"
SKILL, LEVELS, RATE, RUN_SECONDS = "BIN", (1, 2, 3), 1e-3, 1800
ROWS, QUICK_ROWS = 900, 240
PACK_TOKENS = 128  # so that a step has several passes, which `per_mini_batch` rolls for one by one
T95 = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
)  # Student's, two-sided, by degrees of freedom from 1 on
CALM = {"enabled": True, "encounter_chance": 0.0, "use_xp_system": False}


@dataclass(frozen=True)
class Way:
    """How a battle is rolled: `dice` as in config.json."""

    title: str
    dice: dict[str, Any]


def _of_class(name: str, **more: Any) -> Way:
    return Way(
        f"{name}, level 3{''.join(f', {value}' for value in more.values())}",
        CALM | {"character_class": name, "level": 3} | more,
    )


WAYS = {
    TWIN: Way("no dice: the twin", {}),
    "gentle": Way("gentle", CALM),
    "methodology": Way("methodology", CALM | {"rules": "methodology"}),
    "readme": Way("readme", CALM | {"rules": "readme"}),
    "readme_dc5": Way("readme, DC 5", CALM | {"rules": "readme", "dc": 5}),
    "per_mini_batch": Way("gentle, per mini-batch", CALM | {"mode": "per_mini_batch"}),
    "experience": Way("gentle, with experience", CALM | {"use_xp_system": True}),
    "monsters": Way("gentle, with monsters", CALM | {"encounter_chance": 0.2}),
    **{name: _of_class(name) for name in ("wizard", "rogue", "fighter", "cleric", "barbarian", "paladin")},
    "cleric_readme": _of_class("cleric", rules="readme"),
    "paladin_readme": _of_class("paladin", rules="readme"),
}
CURVES = (TWIN, "gentle", "methodology", "readme", "readme_dc5")  # drawn
Say = Callable[[str], None]


@dataclass(frozen=True)
class DiceOptions:
    """`rows` of the quest; `ways`: which, the twin always among them."""

    seeds: int = 5
    rows: int = ROWS
    quick: bool = False
    ways: tuple[str, ...] = tuple(WAYS)
    threads: int = len(os.sched_getaffinity(0))


def run_dice(options: DiceOptions, say: Say) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints."""
    began, lives = time.time(), []
    for seed in range(1, options.seeds + 1):
        lives.append(_live(seed, options))
        left = (time.time() - began) / seed * (options.seeds - seed)
        twin = lives[-1]["ways"][TWIN]["held_out"]
        worst = max(lives[-1]["ways"].items(), key=lambda pair: pair[1]["held_out"])
        say(
            f"seed {seed}: twin {twin:.4f}, most {WAYS[worst[0]].title} {worst[1]['held_out']:.4f}; {duration_text(left)} to go"
        )
    names = [name for name in WAYS if name in lives[0]["ways"]]
    ways = {name: _standing(name, lives) for name in names}
    return {
        "bench": "dice",
        "ratio": {name: each["ratio"] for name, each in ways.items() if name != TWIN},
        "ways": ways,
        "steps": lives[0]["steps"],
        "rows": options.rows,
        "seeds": options.seeds,
        "quick": options.quick,
        "machine": describe_machine(options.threads),
        "versions": versions(sys.executable),
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": time.time() - began,
    }


def _standing(name: str, lives: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A way's numbers over the seeds. `ratio`: held-out loss by the twin's, geometric mean, `low` and `high` its 95 % interval."""
    own, twin = ([life["ways"][which] for life in lives] for which in (name, TWIN))
    ratio, low, high = interval([one["held_out"] / other["held_out"] for one, other in zip(own, twin, strict=True)])
    curves = zip(*(one["losses"] for one in own), strict=True)
    return {
        "title": WAYS[name].title,
        "dice": WAYS[name].dice,
        "held_out": fmean(one["held_out"] for one in own),
        "ratio": ratio,
        "low": low,
        "high": high,
        "mean_scale": fmean(one["mean_scale"] for one in own),
        "moved": fmean(one["moved"] for one in own),
        "runs": [one["held_out"] for one in own],
        "curve": [fmean(losses) for losses in curves] if name in CURVES else [],
    }


def interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Geometric mean of `ratios` and its 95 % interval by Student's t on their logarithms; of one alone no interval is known."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = fmean(logs)
    if len(logs) < 2:
        return math.exp(middle), 0.0, math.inf
    reach = T95[min(len(logs) - 1, len(T95)) - 1] * stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def verdict(each: dict[str, Any]) -> str:
    """What a way's interval says of it."""
    if each["low"] > 1:
        return "costs"
    return "gains" if each["high"] < 1 else "no difference told"


def _live(seed: int, options: DiceOptions) -> dict[str, Any]:
    """All ways of one seed. Raises RealmError."""
    with tempfile.TemporaryDirectory(prefix="bench-dice-") as folder:
        config = Config(
            seed=seed, validation_fraction=0.2, eval_steps=1 << 30, save_steps=1 << 30, pack_tokens=PACK_TOKENS
        )
        task = {
            "root": folder,
            "seed": seed,
            "form": "messages",
            "settings": freeze(config, Sidecar(cooldown_share=0.0)).model_dump(),
            "rate": RATE,
            "threads": options.threads,
            "quest": _quest(Path(folder), seed, options.rows),
            "ways": {name: WAYS[name].dice for name in dict.fromkeys((TWIN, *options.ways))},
        }
        try:
            return lived("training.bench.entrants.dice_life", task, Path(folder), RUN_SECONDS)
        except RealmError as problem:
            raise RealmError(f"seed {seed}: {problem}") from None


def _quest(folder: Path, seed: int, count: int) -> dict[str, str]:
    """Sums of three levels, shuffled."""
    problems = [each for level in LEVELS for each in skill(SKILL).sample(level, seed, count // len(LEVELS))]
    random.Random(seed).shuffle(problems)
    rows = (
        {"messages": [{"role": "user", "content": each.prompt}, {"role": "assistant", "content": each.answer}]}
        for each in problems
    )
    data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    path = folder / "quest.jsonl"
    path.write_bytes(data)
    return {"path": str(path), "sha256": hashlib.sha256(data).hexdigest()}
