"""Each file of the newest checkpoint deleted, cut short, zeroed, one bit of it flipped; the one before takes its place."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from core import checkpoints
from core.errors import CheckpointError, RealmError
from core.invariants import Violation, nothing_half_built
from core.ledger import Ledger
from core.paths import RealmPaths
from training.bench import faults_ground as ground
from training.bench.faults_ground import Driver, Outcome, time_left

QUESTS = 3


def _cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(path.stat().st_size))


def _zero(path: Path, rng: random.Random) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


HARM: dict[str, Callable[[Path, random.Random], None]] = {
    "deleted": lambda path, rng: path.unlink(),
    "cut short": _cut,
    "zeroed": _zero,
    "one bit flipped": _flip,
}


def run(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    """Every file and every harm; as long as there is time, also of the checkpoint before it, at the same time."""
    outcome = Outcome()
    queued = ground.accepted(RealmPaths(realm.root / "queued"), rng, QUESTS)
    whole = ground.copy(queued, realm.root / "whole")
    ground.finish("train", whole)
    expected, files = ground.outcome_of(whole), sorted(path.name for path in whole.tip.iterdir())
    points = [(name, harm, depth) for depth in (1, 2) for name in files for harm in HARM]
    for name, harm, depth in points:
        if not time_left(until):
            break
        broken = ground.copy(whole, realm.root / "broken")
        outcome.add(f"{name} {harm}, {depth} deep", attempt(broken, name, harm, depth, rng, expected))
    outcome.worst = f"{outcome.tried} of {len(points)} ways"
    return outcome


def attempt(paths: RealmPaths, name: str, harm: str, depth: int, rng: random.Random, expected: dict) -> list[Violation]:
    newest = [manifest.id for manifest in checkpoints.manifests(paths)]
    for checkpoint in newest[:depth]:
        HARM[harm](paths.vault / checkpoint / name, rng)
    found = []
    try:
        checkpoints.verify(paths.vault / newest[0])
        found.append(Violation("I4", name, "the harm was not noticed"))
    except CheckpointError:
        pass
    try:
        ground.finish("train", paths)
    except RealmError as problem:
        return [*found, Violation("I2", name, str(problem))]
    ledger = Ledger(paths.ledger)
    events = {event["code"]: event["data"].get("checkpoint") for event in ledger.events(limit=1000)}
    ledger.close()
    if not events.get("checkpoint_corrupt"):
        found.append(Violation("I4", name, "no event tells of it"))
    if events.get("hero_awake") != newest[depth]:
        found.append(Violation("I4", name, f"woke up as {events.get('hero_awake')} and not as {newest[depth]}"))
    for checkpoint in newest[:depth]:
        shutil.rmtree(paths.vault / checkpoint)
    return [*found, *ground.checked(paths), *nothing_half_built(paths), *ground.compared(paths, expected)]


DRIVERS = (
    Driver("corruption", "a harmed checkpoint is noticed and the one before takes its place, at once", run, share=1.0),
)
