"""The proving ground: throw-away realms, quests to drop into them, what an undisturbed run makes of them, and the check.

It knows no fault. Every random choice comes from the generator that it is given.
"""

import os
import random
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from core import checkpoints, invariants
from core.durable import leftovers, write_json
from core.errors import RealmError
from core.inbox import drop
from core.invariants import Violation
from core.paths import RealmPaths
from training.bench import stand_in

SETTINGS = {
    "idle_generation": {"enabled": False},
    "disk": {"reserve_bytes": 0},
    "batch_size": 4,
    "save_steps": 3,
    "eval_steps": 1000,
    "max_bad_rows": 0.1,
    "retention": {"keep_last": 3, "keep_promoted": 2},
}
PATIENCE = 120.0
WATCH_SECONDS = 0.02


@dataclass
class Outcome:
    """What a driver found. `worst`: in words, what came closest to a broken promise; `skipped`: why nothing was tried."""

    tried: int = 0
    held: int = 0
    findings: list[str] = field(default_factory=list)
    worst: str = ""
    skipped: str = ""

    def add(self, where: str, found: list[Violation]) -> None:
        """One more try, and what it broke."""
        self.tried += 1
        self.held += not found
        self.findings += [f"{where}: {violation}" for violation in found]


def joined(outcomes: Iterable[Outcome]) -> Outcome:
    """What several lanes found, as one."""
    every = list(outcomes)
    findings = [finding for each in every for finding in each.findings]
    return Outcome(sum(each.tried for each in every), sum(each.held for each in every), findings)


@dataclass(frozen=True)
class Driver:
    """One kind of fault. `run(realm, rng, until)`: a folder to work in, randomness, and `time.monotonic()` at which to
    begin nothing more. `share`: of the campaign's time."""

    name: str
    promise: str
    run: Callable[[RealmPaths, random.Random, float], Outcome]
    share: float = 1.0


def make(paths: RealmPaths, dwarf: bool = True, **settings: Any) -> RealmPaths:
    """An empty realm; its hero is a dwarf, or else the micro hero."""
    paths.make()
    write_json(paths.config, SETTINGS | settings)
    if dwarf:
        finish("dwarf", paths)
    return paths


def fill(paths: RealmPaths, rng: random.Random, count: int, rows: int = 24) -> dict[str, str]:
    """Drop `count` quests, and return the SHA-256 of each by its stem."""
    dropped = {}
    for number in range(count):
        stem = f"quest-{number:02d}"
        with drop(paths, f"{stem}.jsonl") as file:
            for _ in range(rows):
                first, second = rng.randrange(1000), rng.randrange(1000)
                row = {"question": f"What is {first} plus {second}?", "answer": f"It is {first + second}."}
                file.write(orjson.dumps(row) + b"\n")
        dropped[stem] = checkpoints.sha256_of(paths.inbox / f"{stem}.jsonl")
        moment = 1e9 + number
        os.utime(paths.inbox / f"{stem}.jsonl", (moment, moment))  # they came one after the other
    return dropped


def copy(paths: RealmPaths, root: Path) -> RealmPaths:
    """The realm once more at `root`, replacing what is there."""
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(paths.root, root, symlinks=True)
    return RealmPaths(root)


def finish(stage: str, paths: RealmPaths, seconds: float = PATIENCE) -> None:
    """One life that nobody disturbs. Raises RealmError where it does not end well."""
    code = stand_in.begin(stage, paths).end(seconds)
    if code != 0:
        told = "it stood still" if code is None else f"it ended with {code}"
        raise RealmError(f"an undisturbed life ({stage}) in {paths.root}: {told}")


def accepted(paths: RealmPaths, rng: random.Random, count: int, **settings: Any) -> RealmPaths:
    """A realm with a newborn hero and `count` quests that wait for it."""
    make(paths, **settings)
    fill(paths, rng, count)
    finish("serve", paths)
    return paths


def outcome_of(paths: RealmPaths) -> dict[str, Any]:
    """What must be the same with and without faults: the hashes of all tensors of the tip, its step, what it trained."""
    tip = checkpoints.read(paths.tip)
    sums = {name: facts["sha256"] for name, facts in tip.files.items() if name.endswith(".safetensors")}
    return {"step": tip.step, "trained": tip.trained, "open": tip.open, **sums}


def compared(paths: RealmPaths, expected: dict[str, Any]) -> list[Violation]:
    """I3: whether the realm came to what the undisturbed one came to."""
    found = outcome_of(paths)
    wrong = [name for name in expected if found.get(name) != expected[name]]
    text = f"{', '.join(wrong)} differ from an undisturbed run's (step {found['step']}, not {expected['step']})"
    return [Violation("I3", paths.tip.name, text)] if wrong else []


def checked(paths: RealmPaths, record: bool = True) -> list[Violation]:
    """A realm at rest; `record`: whether the record of steps is a promise, too, as it is unless the power failed."""
    return [*invariants.violations(paths), *(invariants.steps_recorded(paths) if record else ())]


def present(paths: RealmPaths, dropped: dict[str, str]) -> Iterator[Violation]:
    """I1 from the door on: each dropped file is in one place, its bytes unchanged."""
    places: dict[str, list[Path]] = {stem: [] for stem in dropped}
    for folder in (paths.inbox, paths.claims, *(paths.queued(state) for state in ("normal", "rejected"))):
        for path in folder.glob("*.jsonl"):
            if not path.name.endswith(".bad.jsonl"):
                places.setdefault(path.stem.rpartition("-q")[0] or path.stem, []).append(path)
    for stem, found in places.items():
        if len(found) != 1:
            yield Violation("I1", stem, f"lies in {len(found)} places: {', '.join(path.parent.name for path in found)}")
        elif checkpoints.sha256_of(found[0]) != dropped.get(stem):
            yield Violation("I1", stem, f"its bytes in {found[0].parent.name} are not those that were dropped")


def grow_old(paths: RealmPaths) -> None:
    """As if the next life came much later: what was half written is a leftover, and must be swept."""
    for folder in paths.written():
        for path in folder.glob(".*.tmp"):
            if not path.is_dir() or path.is_symlink():
                os.utime(path, (1, 1), follow_symlinks=False)
        assert all(path.lstat().st_mtime < 2 for path in leftovers(folder))


class Watch:
    """I4 at every instant: the pointers are followed all the time, from a thread; `found` is what was broken."""

    def __init__(self, paths: RealmPaths):
        self.found: list[Violation] = []
        self._paths, self._ended, self._known = paths, threading.Event(), set()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(WATCH_SECONDS) and not self.found:
            self.found += invariants.pointers_whole(self._paths, self._known)

    def take(self) -> list[Violation]:
        """What was found since, once."""
        found, self.found = self.found, []
        return [replace(violation, text=f"while it ran: {violation.text}") for violation in found]


def time_left(until: float) -> bool:
    return time.monotonic() < until
