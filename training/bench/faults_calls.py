"""The n-th call of rename, fsync, write, unlink ... killed or refused, for every n, on the ways of a quest and a checkpoint.

strace injects the fault into one thread from the moment at which it tells its id, so that the checkpoint's thread has
its own count. An undisturbed life is traced first: it says how many calls there are, and what comes of them.
"""

import collections
import os
import random
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core import checkpoints
from core.durable import write_json
from core.inbox import SIDECAR
from core.invariants import Violation, nothing_half_built
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import COMPANIONS
from training.bench import faults_ground as ground
from training.bench import stand_in
from training.bench.faults_ground import Driver, Outcome, time_left

CALLS = ("rename", "renameat2", "fsync", "fdatasync", "write", "pwrite64", "unlink", "unlinkat", "rmdir", "symlink", "mkdir",
         "ftruncate")  # fmt: skip
HARM = {"killed": "signal=KILL", "eio": "error=EIO", "enospc": "error=ENOSPC"}
LANES, SECONDS = 2, 150.0  # a file that cannot be taken is tried again after a minute
_CALL = re.compile(r"^(\w+)\(")


@dataclass(frozen=True)
class Point:
    """The call number `index` of `call` in the thread of a stage."""

    stage: str
    call: str
    index: int

    def __str__(self) -> str:
        return f"{self.stage}: {self.call} {self.index}"


@dataclass(frozen=True)
class Course:
    """One way to be disturbed: a life of `stage` from a copy of `start`; `after` brings it to an end; `expected` then."""

    stage: str
    start: RealmPaths
    after: tuple[str, ...]
    expected: dict[str, Any]


def drivers(calls: tuple[str, ...] = CALLS) -> Iterator[Driver]:
    for name, harm in HARM.items():
        told = "kills the process" if name == "killed" else f"fails with {name.upper()}"
        promise = f"whichever call {told}, I1-I5 hold and the weights are the same"
        yield Driver(f"calls-{name}", promise, _run(harm, calls), share=1.0)


def _run(harm: str, calls: tuple[str, ...]) -> Callable[[RealmPaths, random.Random, float], Outcome]:
    def run(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
        if reason := missing():
            return Outcome(skipped=reason)
        outcome, lock = Outcome(), threading.Lock()
        courses = {course.stage: course for course in _courses(realm.root, rng)}
        points = [
            Point(stage, call, index + 1)
            for stage, course in courses.items()
            for call, count in counted(course, realm.root / "counted", calls).items()
            for index in range(count)
        ]
        rng.shuffle(points)

        def attempt(lane_and_point: tuple[int, Point]) -> None:
            lane, point = lane_and_point
            if time_left(until):
                found = disturbed(courses[point.stage], point, harm, realm.root / f"lane-{lane}-{point.index}")
                with lock:
                    outcome.add(str(point), found)

        with ThreadPoolExecutor(LANES) as lanes:
            list(lanes.map(attempt, enumerate(points)))
        outcome.worst = f"{outcome.tried:,} of {len(points):,} calls"
        return outcome

    return run


def missing() -> str:
    """Why nothing can be injected here, or an empty string."""
    if not shutil.which("strace"):
        return "strace is not installed"
    probe = subprocess.run(["strace", "-o", "/dev/null", "-e", "trace=none", "true"], capture_output=True)
    return "" if probe.returncode == 0 else "strace may not trace here"


def _courses(root: Path, rng: random.Random) -> Iterator[Course]:
    """The ways, each from a realm made ready for it."""
    fresh = ground.make(RealmPaths(root / "birth"))
    yield course_of("birth", "waking", fresh, ("train",), root)
    dropped = ground.copy(fresh, root / "intake")
    ground.finish("train", dropped)
    ground.fill(dropped, rng, 1)
    path = next(dropped.inbox.glob("*.jsonl"))
    with open(path, "ab") as file:  # a row that is set aside, and a sidecar: more files to be moved
        file.write(b"no row\n")
    write_json(path.with_name(path.stem + SIDECAR), {"priority": "normal"})
    yield course_of("intake", "intake", dropped, ("serve", "train"), root)
    queued = ground.copy(dropped, root / "queued")
    ground.finish("serve", queued)
    assert any(queued.queued("normal").iterdir())
    yield course_of("claim", "claim", queued, ("train",), root)
    yield course_of("commit", "commit", queued, ("train",), root)
    unfinished = ground.copy(queued, root / "unfinished")
    ground.finish("train", unfinished)
    _unfinish(unfinished)
    yield course_of("waking", "waking", unfinished, ("train",), root)


def course_of(name: str, stage: str, start: RealmPaths, after: tuple[str, ...], root: Path) -> Course:
    straight = ground.copy(start, root / "straight")
    for each in after:
        ground.finish(each, straight)
    expected = ground.outcome_of(straight)
    if name == "intake":
        del expected["trained"]  # a crash may spend an id before the file has it
    return Course(f"{stage}" if name == stage else f"{name} {stage}", start, after, expected)


def _unfinish(paths: RealmPaths) -> None:
    """As a crash leaves it between the moving of the tip and the verdict."""
    ledger = Ledger(paths.ledger)
    for path in list(paths.queued("recently_completed").iterdir()):
        os.rename(path, paths.queued("processing") / path.name)
        if path.suffix == ".jsonl" and not path.name.endswith(COMPANIONS):
            quest = int(path.stem.rpartition("-q")[2])
            ledger.change("quests", quest, state="processing")
            ledger.connection.execute("UPDATE battles SET state='saving' WHERE quest=?", (quest,))
    ledger.close()
    first = min(checkpoints.manifests(paths), key=lambda manifest: manifest.step)
    checkpoints.set_current(paths, first.id)


def counted(course: Course, root: Path, calls: tuple[str, ...]) -> dict[str, int]:
    """How often each of `calls` comes in an undisturbed life."""
    paths, log = ground.copy(course.start, root), root.with_suffix(".trace")
    _traced(course, paths, log, [f"trace={','.join(calls)}"])
    found = collections.Counter(match[1] for line in log.read_text().splitlines() if (match := _CALL.match(line)))
    return {call: found[call] for call in calls if found[call]}


def disturbed(course: Course, point: Point, harm: str, root: Path) -> list[Violation]:
    """One life in which the call `point` comes to harm, the check, and the lives after it."""
    paths, log = ground.copy(course.start, root), root.with_suffix(".trace")
    injected = f"inject={point.call}:{harm}:when={point.index}"
    code = _traced(course, paths, log, [f"trace={point.call}", injected])
    found = ground.checked(paths, record=False) if code is not None else [Violation("I2", course.stage, "stood still")]
    ground.grow_old(paths)
    try:
        for stage in course.after:
            ground.finish(stage, paths)
        found += [*ground.checked(paths), *nothing_half_built(paths), *ground.compared(paths, course.expected)]
    except ground.RealmError as problem:
        found.append(Violation("I2", course.stage, str(problem)))
    if not found:
        shutil.rmtree(root)
        log.unlink()
    return found


def _traced(course: Course, paths: RealmPaths, log: Path, options: list[str]) -> int | None:
    """The exit code of a life of the course's stage, one thread of it under strace; None: it stood still."""
    life = stand_in.begin(course.stage.rpartition(" ")[2], paths, traced=True)
    thread = life.tracee.recv()
    words = [word for option in options for word in ("-e", option)]
    command = ["strace", "-q", "-o", str(log), *words, "-e", "signal=none", "-p", str(thread)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tracer:
        code = life.end(SECONDS)
        tracer.wait()
    return code


DRIVERS = tuple(drivers())
