"""What `bench learning --acceptance` does to a hero that has learnt: a garbage quest, and a good one right after it.

Garbage are the goals' own problems with each other's answers. The Temple has to curse it and the hero has to be what it was;
the good quest has to be blessed.
"""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from core.checkpoints import pointed, read
from core.errors import RealmError
from core.inbox import drop
from core.ledger import Ledger
from core.paths import PRIORITIES, RealmPaths
from core.skills import skill
from management.verdicts import verdicts

ROWS, GOOD_ROWS = 2000, 600
PATIENCE_SECONDS = 900.0
Say = Callable[[str], None]


def trial(root: Path, hero: str, goals: dict[str, int], seed: int, say: Say) -> dict[str, Any]:
    """Drop both on a realm that runs and writes no quests of its own; what the Temple said of them."""
    paths = RealmPaths(root)
    _until_quiet(paths)
    before = read(paths.vault / pointed(paths.tip))
    bad = _verdict(paths, hero, "garbage", _shuffled(_rows(goals, seed, ROWS), seed))
    after = read(paths.vault / pointed(paths.tip))
    say(f"seed {seed}: garbage is {bad['verdict']}, quality {bad['quality']:.2f}")
    good = _verdict(paths, hero, "good", _rows(goals, seed + 1, GOOD_ROWS))
    say(f"seed {seed}: a good quest is {good['verdict']}, quality {good['quality']:.2f}")
    return {
        "garbage": bad["verdict"],
        "garbage_quality": bad["quality"],
        "rituals": bad["rituals"],
        "canaries": bad["canaries"],
        "taken_back": after.id == before.id,
        "canaries_kept": after.canaries == before.canaries,
        "good": good["verdict"],
        "good_quality": good["quality"],
        "passed": (bad["verdict"], after.id, good["verdict"]) == ("cursed", before.id, "blessed"),
    }


def _until_quiet(paths: RealmPaths) -> None:
    """The quest that was in battle, and one that the hero had written already, come first. Raises RealmError where they never end."""
    end = time.monotonic() + PATIENCE_SECONDS
    folders = [paths.inbox_for("low"), paths.claims, *map(paths.queued, (*PRIORITIES, "processing"))]
    while any(any(folder.glob("*.jsonl")) for folder in folders):
        if time.monotonic() > end:
            raise RealmError(f"the realm was not at rest within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.5)


def _rows(goals: dict[str, int], seed: int, count: int) -> list[dict[str, Any]]:
    shares = [skill(name).quest_rows(level, seed, count // len(goals)) for name, level in goals.items()]
    return [row for share in shares for row in share]


def _shuffled(rows: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Each problem with another's answer."""
    answers = [row["messages"][-1] for row in rows]
    random.Random(seed).shuffle(answers)
    return [{"messages": [*row["messages"][:-1], answer]} for row, answer in zip(rows, answers, strict=True)]


def _verdict(paths: RealmPaths, hero: str, name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the Temple says when the quest is done. Raises RealmError where it never is."""
    with drop(paths, name) as file:
        file.writelines(orjson.dumps(row) + b"\n" for row in rows)
    ledger, end = Ledger(paths.ledger), time.monotonic() + PATIENCE_SECONDS
    try:
        while time.monotonic() < end:
            found = [battle for battle in verdicts(ledger, hero) if battle["stem"] == name]
            if found and found[0]["verdict"]:
                return found[0]
            time.sleep(0.5)
        raise RealmError(f"{name} was not judged within {PATIENCE_SECONDS:.0f} s")
    finally:
        ledger.close()
