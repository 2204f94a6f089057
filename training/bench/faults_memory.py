"""A realm in a control group that is too small for its battle: the kernel ends the trainer, and what comes of it.

It needs root, and control groups of memory of either version.
"""

import contextlib
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.durable import read_json
from core.errors import RealmError
from training.bench.faults_realm import LiveRealm, until

SETTINGS = {"batch_size": 64, "pack_tokens": 16384, "max_length": 256, "save_steps": 1000, "eval_steps": 1000}
ROWS, WORDS = 200, 110  # three steps, each one pass of nearly all the tokens there may be
TIGHT, HOPELESS = 0.7, 0.12  # of what the battle takes beyond the resting realm


@dataclass(frozen=True)
class Hit:
    """A battle under a limit: kills by the kernel, what its passes came down to, where its quest ended, what was wrong."""

    kills: int
    tokens: tuple[int, ...]
    state: str
    seconds: float
    wrong: tuple[str, ...]


class Group:
    """A control group of memory, of version 1 or 2."""

    def __init__(self, folder: Path, first: bool):
        self.folder, self.first = folder, first

    def limit(self, size: int | None) -> None:
        name, without = ("memory.limit_in_bytes", "-1") if self.first else ("memory.max", "max")
        (self.folder / name).write_text(without if size is None else str(size))

    def resident(self) -> int:
        """Bytes that cannot be given back: page cache aside."""
        facts = dict(line.split() for line in (self.folder / "memory.stat").read_text().splitlines())
        return int(facts["total_rss" if self.first else "anon"])


@contextmanager
def group() -> Iterator[Group]:
    """A new one, gone afterwards. Raises RealmError where none can be made."""
    for base, first in ((Path("/sys/fs/cgroup/memory"), True), (Path("/sys/fs/cgroup"), False)):
        folder = base / f"realm-faults-{os.getpid()}"
        with contextlib.suppress(OSError):
            folder.mkdir()
            made = Group(folder, first)
            made.resident()
            try:
                yield made
            finally:
                _remove(folder)
            return
    raise RealmError("no control group of memory can be made here; it takes root")


def _remove(folder: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            folder.rmdir()
            return
        time.sleep(0.05)


@dataclass(frozen=True)
class Measure:
    """What the battle takes where nothing is short: bytes at rest and at most, and its steps (step, loss, tokens)."""

    rest: int
    most: int
    steps: tuple[tuple[int, float, int], ...]


def measure(root: Path, seed: int) -> Measure:
    """Hatch a hero in `root`, keep a copy of the realm at rest beside it, and fight the battle once without a limit."""
    realm, most = LiveRealm(root, **SETTINGS), 0
    with group() as around:
        try:
            _rest(realm, around)
            realm.stop()
            shutil.copytree(root, root.with_name("template"), symlinks=True)
            rest = _rest(realm, around)
            realm.drop("heavy", ROWS, WORDS, random.Random(seed))
            while realm.place("heavy") != "recently_completed":
                most = max(most, around.resident())
                time.sleep(0.005)
        finally:
            realm.stop()
    return Measure(rest, most, _steps(realm))


def hit(root: Path, seed: int, measured: Measure, share: float = TIGHT) -> Hit:
    """The same battle in a copy of the template at `root`, with `share` of the memory that it takes beyond the rest."""
    shutil.copytree(root.with_name("template"), root, symlinks=True)
    realm, began = LiveRealm(root), time.monotonic()
    with group() as around:
        try:
            rest = _rest(realm, around)
            around.limit(int(rest + share * (measured.most - measured.rest)))
            realm.drop("heavy", ROWS, WORDS, random.Random(seed))
            state = until(lambda: (place := realm.place("heavy")) in ("recently_completed", "failed") and place, 180)
            if state == "failed":  # the others go on
                realm.drop("light", 16, 3, random.Random(seed))
                until(lambda: realm.place("light") == "recently_completed")
        finally:
            around.limit(None)
            realm.stop()
    return _judged(realm, state, measured, time.monotonic() - began)


def _judged(realm: LiveRealm, state: str, measured: Measure, seconds: float) -> Hit:
    crashes = realm.crashes()
    limits = next(iter(read_json(realm.paths.pack_limits, {}).values()), [])
    wrong = [
        f"{crash['name']}: {crash['kind']}"
        for crash in crashes
        if (crash["name"], crash["kind"]) != ("trainer", "oom_kill")
    ]
    if not crashes:
        wrong.append("no kill was told")
    if state == "recently_completed":
        if not 1 <= len(crashes) < 3 or not limits:
            wrong.append(f"{len(crashes)} kills and the limits {limits}, but trained")
        steps = _steps(realm)
        same = len(steps) == len(measured.steps) and all(
            a[0] == b[0] and a[2] == b[2] and math.isclose(a[1], b[1], rel_tol=1e-3)
            for a, b in zip(steps, measured.steps, strict=True)
        )
        if not same:
            wrong.append(f"steps {steps} are not those without a limit, {measured.steps}")
    elif len(crashes) != 3:
        wrong.append(f"failed after {len(crashes)} kills")
    return Hit(len(crashes), tuple(tokens for _, tokens in limits), state, seconds, tuple(wrong))


def _rest(realm: LiveRealm, around: Group) -> int:
    """Start the realm in the group; bytes when the hero is awake and nothing is to do."""
    realm.start(around.folder)
    until(lambda: realm.snapshot().get("state") == "idle" and realm.snapshot()["time"] > realm.supervisor.create_time())
    time.sleep(1.0)
    return around.resident()


def _steps(realm: LiveRealm) -> tuple[tuple[int, float, int], ...]:
    return tuple((step, loss, tokens) for step, _, loss, tokens in realm.steps())


def hit_often(root: Path, seed: int, count: int, say: Callable[[str], None] = print) -> list[Hit]:
    """Until the kernel has killed `count` times: battles that recover, and in the end one that cannot and is given up."""
    measured, hits = measure(root / "measured", seed), []
    say(f"at rest {measured.rest / 2**20:.0f} MiB, in battle {measured.most / 2**20:.0f} MiB at most")
    while (kills := sum(each.kills for each in hits)) < count:
        hopeless = kills + 3 >= count
        hits.append(hit(root / f"hit-{len(hits)}", seed, measured, HOPELESS if hopeless else TIGHT))
        done = hits[-1]
        say(
            f"{done.kills} kills, passes of {done.tokens}, {done.state} in {done.seconds:.0f} s {'; '.join(done.wrong)}"
        )
        if not done.kills:
            break
    return hits
