"""`bench learning --acceptance`: what an idle hero has learnt by itself in half an hour, asked by somebody from outside.

Each seed is a realm of its own, started as a user starts it and left alone. Its standings are polled; when they say that the
goals are reached, or when time is up, its newest promoted checkpoint is asked through the Oracle's API: problems of seeds
that it never saw, graded here. Then the hero is given garbage, and a good quest (garbage.py). It trains nothing itself.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.durable import write_json
from core.errors import RealmError
from core.mastery import BAR, Score
from core.skills import distinct, skill
from monitoring.tavern_client import TavernClient
from training.bench import garbage
from training.bench.machine import describe_machine, versions
from training.bench.page import keep, surroundings
from training.ports import next_free
from training.terminal import interval_text

GOALS = {"BIN": 3, "REV": 2}  # a closed world whole, and a level of 456,976 problems
FIRST_PORT, POLL_SECONDS, ORACLE_SECONDS = 18_900, 10.0, 120.0
OUTSIDE = 7_000_000  # seeds from here on are nobody's in a realm
MOST_TOKENS = 128
Say = Callable[[str], None]


@dataclass(frozen=True)
class IdleOptions:
    """`first` of so many `seeds`; `minutes` that a hero has; `questions` that it is asked of each goal; `config`: of the realms,
    defaults otherwise."""

    seeds: int = 3
    first: int = 1
    minutes: float = 30.0
    questions: int = 400
    goals: dict[str, int] = field(default_factory=lambda: dict(GOALS))
    config: dict[str, Any] = field(default_factory=dict)
    threads: int = len(os.sched_getaffinity(0))


def run_idle_hero(options: IdleOptions, say: Say) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints."""
    began, lives = time.time(), []
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory(prefix="bench-idle-hero-") as folder:
            lives.append(_live(Path(folder) / "realm", seed, options, say))
        say(f"seed {seed}: asked after {lives[-1]['minutes']:.1f} min: {_told(lives[-1]['scores'])}")
    return {
        "bench": "idle_hero",
        "passed": all(life["learnt"] and life["verdicts"]["passed"] for life in lives),
        "bar": BAR,
        "goals": options.goals,
        "minutes": options.minutes,
        "questions": options.questions,
        "lives": lives,
        "seeds": len(lives),
        "machine": describe_machine(options.threads),
        "versions": versions(sys.executable),
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": time.time() - began,
    }


def _live(root: Path, seed: int, options: IdleOptions, say: Say) -> dict[str, Any]:
    """One hero's half hour."""
    port = next_free("127.0.0.1", FIRST_PORT)
    root.mkdir()
    write_json(root / "config.json", options.config | {"seed": seed, "tavern": {"port": port}})
    client = TavernClient(f"http://127.0.0.1:{port}")
    _run(root, "start-all")
    began = time.monotonic()
    try:
        way = _watch(client, began, seed, options, say)
        reached = (time.monotonic() - began) / 60
        model = _promoted(client)
        _run(root, "vault", "pin", model)  # the hero trains on, and retention would take it away while it is asked
        asked = {
            name: _ask(client, model, name, level, seed, options.questions) for name, level in options.goals.items()
        }
        scores = {name: {"level": options.goals[name]} | score.facts() for name, score in asked.items()}
        verdicts = _judged(root, client, options.goals, seed, say)
        return {
            "seed": seed,
            "minutes": reached,
            "scores": scores,
            "learnt": reached <= options.minutes + 1 and all(each["low"] > BAR for each in scores.values()),
            "verdicts": verdicts,
            "way": way,
        }
    finally:
        _run(root, "stop-all")  # first: a connection that Ctrl-C broke off may refuse to be closed
        client.close()


def _judged(root: Path, client: TavernClient, goals: dict[str, int], seed: int, say: Say) -> dict[str, Any]:
    """Garbage and a good quest for the hero, which no longer writes quests by itself."""
    hero = client.get("/api/status")["hero"]["name"]
    _run(root, "stop-all")
    _run(root, "config", "set", "idle_generation.enabled", "false")
    _run(root, "start-all")
    return garbage.trial(root, hero, goals, seed, say)


def _run(root: Path, *words: str) -> None:
    command = [sys.executable, "-m", "training", *words, "--root", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        raise RealmError(f"{' '.join(words)} failed: {done.stderr.strip() or done.stdout.strip()}")


def _watch(client: TavernClient, began: float, seed: int, options: IdleOptions, say: Say) -> list[dict[str, Any]]:
    """The standings by the minute until the goals are reached or time is up."""
    way: list[dict[str, Any]] = []
    while True:
        minutes = (time.monotonic() - began) / 60
        now = {"minutes": round(minutes, 2), "step": client.get("/api/status")["hero"]["global_step"]}
        for one in client.rows("/api/skills"):
            if one["name"] in options.goals:
                now[one["name"]] = {key: one[key] for key in ("mastered", "frontier", "score")}
        if not way or any(now[name] != way[-1][name] for name in options.goals):
            say(f"seed {seed}, {minutes:4.1f} min, step {now['step']:,}: {_standings(now, options)}")
            way.append(now)
        is_there = all(level in now[name]["mastered"] for name, level in options.goals.items())
        if is_there or minutes >= options.minutes:
            return way
        time.sleep(POLL_SECONDS)


def _promoted(client: TavernClient) -> str:
    """The newest promoted checkpoint; a slow machine's newborn hero may have to be waited for. Raises RealmError."""
    end = time.monotonic() + garbage.PATIENCE_SECONDS
    while (model := client.get("/api/status")["current_model"]) is None:
        if time.monotonic() > end:
            raise RealmError(f"no checkpoint was promoted within {garbage.PATIENCE_SECONDS:.0f} s")
        time.sleep(0.5)
    return model


def _standings(now: dict[str, Any], options: IdleOptions) -> str:
    parts = []
    for name in options.goals:
        score = now[name]["score"]
        accuracy = f", {score['right']}/{score['asked']} at {now[name]['frontier']}" if score else ""
        parts.append(f"{name} {max(now[name]['mastered'], default=0)}{accuracy}")
    return "; ".join(parts)


def _ask(client: TavernClient, model: str, name: str, level: int, seed: int, count: int) -> Score:
    """A checkpoint's answers to problems of a seed from outside."""
    problems = distinct(skill(name).evaluation(level, OUTSIDE + seed, count))
    said = (client.ask(model, problem.prompt, MOST_TOKENS, ORACLE_SECONDS) for problem in problems)
    right = sum(skill(name).grade(problem, answer) == 1.0 for problem, answer in zip(problems, said, strict=True))
    return Score(right, len(problems))


def _told(scores: dict[str, dict[str, Any]]) -> str:
    return "; ".join(f"{name} level {score['level']} {interval_text(score)}" for name, score in scores.items())


def idle_hero_text(result: dict[str, Any]) -> str:
    """How it looks on a terminal."""
    lines = [f"Asked with {result['questions']} problems each; the lower bound has to be above {100 * BAR:.0f} %."]
    for life in result["lives"]:
        word = "passed" if life["learnt"] else "NOT passed"
        lines.append(f"seed {life['seed']}: {life['minutes']:.1f} min, {_told(life['scores'])}: {word}")
        found = life["verdicts"]
        way = "taken back" if found["taken_back"] else "NOT taken back"
        lines.append(
            f"  {garbage.ROWS} rows of garbage: {found['garbage']}, {way}; a good quest after it: {found['good']}"
        )
    return "\n".join(lines)


def write_idle_hero(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write the bench's part of docs/benchmarks.md; answers what was written."""
    command = f"python -m training bench learning --acceptance --seeds {result['seeds']}"
    goals = (f"{name} level {level}" for name, level in result["goals"].items())
    head = ("seed", "minutes", *goals, "garbage", "good quest")
    lines = ["## The idle hero", "", *surroundings(result, command), ""]
    lines += [METHOD.format(**result, rows=garbage.ROWS, good_rows=garbage.GOOD_ROWS), ""]
    table = (head, ["---:"] * len(head), *map(_cells, result["lives"]))
    lines += ["|".join(["", *cells, ""]) for cells in table]
    return keep(docs, "idle_hero", "\n".join(lines), {})


def _cells(life: dict[str, Any]) -> list[str]:
    found = life["verdicts"]
    back = "taken back" if found["taken_back"] and found["canaries_kept"] else "not taken back"
    scores = map(interval_text, life["scores"].values())
    good = f"{found['good']} ({found['good_quality']:.2f})"
    return [str(life["seed"]), f"{life['minutes']:.1f}", *scores, f"{found['garbage']}, {back}", good]


METHOD = """\
A newborn micro hero in a realm as it comes is left alone until its own exams say that these levels are mastered, or for
{minutes:g} minutes. Then its newest promoted checkpoint is asked {questions} problems of each through the Oracle's API, of seeds that no
realm uses: the lower bound has to be above {bar:.0%}. Of what it was asked at BIN level 3, a closed world, it may have seen all; of REV
level 2 there are 456,976. Then {rows:,} of the same problems with each other's answers are dropped, and {good_rows} with their own."""
