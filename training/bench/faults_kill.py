"""Random processes of a realm killed, stopped and asked to end at random moments, over a queue of twenty quests."""

import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from core.invariants import Violation, nothing_half_built
from core.paths import RealmPaths
from training.bench import faults_ground as ground
from training.bench import stand_in
from training.bench.faults_ground import Driver, Outcome, Watch, joined, time_left
from training.bench.stand_in import Life

QUESTS, AGAIN = 20, 4  # quests of a queue; how often it is trained from the beginning
LANES = 2
WAKING_SHARE, LONGEST_WAKING, LONGEST_BATTLE = 0.25, 0.8, 0.8
DEATHS = {"kill": 8, "term": 1, "stop": 1}  # how often each; a stopped process goes on, or is killed where it stands
MOST_LIVES = 400


def run(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    """Two lanes at once, each with its own realms and its own randomness: a life mostly waits to be killed."""
    chances = [random.Random(rng.random()) for _ in range(LANES)]
    with ThreadPoolExecutor(LANES) as lanes:
        return joined(lanes.map(lambda lane: _lane(realm.root / f"lane-{lane}", chances[lane], until), range(LANES)))


def _lane(folder: Path, rng: random.Random, until: float) -> Outcome:
    outcome, turn = Outcome(), 0
    while time_left(until):
        root = folder / f"turn-{turn}"
        queued = ground.make(RealmPaths(root / "queued"))
        dropped = ground.fill(queued, rng, QUESTS)
        _intake(queued, dropped, rng, outcome, f"{folder.name}, turn {turn}, intake")
        straight = ground.copy(queued, root / "straight")
        ground.finish("train", straight)
        expected = ground.outcome_of(straight)
        for again in range(AGAIN):
            if time_left(until):
                paths = ground.copy(queued, root / "killed")
                _training(paths, expected, rng, until, outcome, f"{folder.name}, turn {turn}.{again}, training")
        turn += 1
    return outcome


def _intake(
    paths: RealmPaths, dropped: dict[str, str], rng: random.Random, outcome: Outcome, where: str, kills: int = 8
) -> None:
    """The daemon dies while it takes files in; then it takes in the rest."""
    for number in range(kills):
        daemon = stand_in.begin("serve", paths)
        time.sleep(rng.uniform(0.0, LONGEST_WAKING * 2))
        if not daemon.lives():
            daemon.end()
            break
        daemon.kill()
        outcome.add(f"{where}, kill {number}", [*ground.checked(paths), *ground.present(paths, dropped)])
        ground.grow_old(paths)
    ground.finish("serve", paths)
    found = [*ground.checked(paths), *ground.present(paths, dropped)]
    waiting = len(list(paths.queued("normal").glob("*.jsonl")))
    if waiting != len(dropped):
        found.append(Violation("I1", "normal", f"{waiting} of {len(dropped)} quests were accepted"))
    outcome.findings += [f"{where}, after all: {violation}" for violation in found]


def _training(
    paths: RealmPaths, expected: dict[str, Any], rng: random.Random, until: float, outcome: Outcome, where: str
) -> None:
    """Trainer and daemon die in turn until the queue is trained; then the weights are compared."""
    daemon = None
    with Watch(paths) as watch:
        for number in range(MOST_LIVES):
            trainer = stand_in.begin("train", paths)
            daemon = daemon if daemon and daemon.lives() else stand_in.begin("keep", paths)
            _await_moment(trainer, rng)
            kind = rng.choices(list(DEATHS), list(DEATHS.values()))[0]
            if not trainer.lives() or not time_left(until):
                break
            if rng.random() < 0.2:
                daemon.kill()
            _strike(trainer, kind, rng)
            if daemon.lives() and rng.random() < 0.2:
                daemon.kill()
            found = watch.take() if daemon.lives() else [*watch.take(), *ground.checked(paths)]
            outcome.add(f"{where}, {kind} {number}", found)
            ground.grow_old(paths)
        code = trainer.end(ground.PATIENCE)
        daemon.send(signal.SIGTERM)
        daemon.end()
        found = watch.take()
    if code != 0:
        found.append(Violation("I2", "trainer", f"the last life ended with {code} and not well"))
    found += [*ground.checked(paths), *nothing_half_built(paths), *ground.compared(paths, expected)]
    outcome.findings += [f"{where}, after all: {violation}" for violation in found]


def _await_moment(life: Life, rng: random.Random) -> None:
    """Some come while it wakes up, most in its battles, and all at a random moment."""
    if rng.random() < WAKING_SHARE:
        time.sleep(rng.uniform(0.0, LONGEST_WAKING))
        return
    deadline = time.monotonic() + ground.PATIENCE
    while not life.awake and life.lives() and time_left(deadline):
        time.sleep(0.005)
    time.sleep(rng.uniform(0.0, LONGEST_BATTLE))


def _strike(life: Life, kind: str, rng: random.Random) -> int | None:
    if kind == "term":
        life.send(signal.SIGTERM)
        return life.end()
    if kind == "stop":
        life.send(signal.SIGSTOP)
        time.sleep(rng.uniform(0.0, 0.3))
        if rng.random() < 0.5:
            life.send(signal.SIGCONT)
            time.sleep(rng.uniform(0.0, LONGEST_BATTLE))
    return life.kill()


DRIVERS = (Driver("kill", "killed at any moment, nothing is lost, doubled or different (I1-I5)", run, share=3.0),)
