"""The real trainer process with the micro hero, killed at random moments; the tensors at the end are compared."""

import random
import time

from core.errors import RealmError
from core.invariants import Violation, nothing_half_built
from core.paths import RealmPaths
from training.bench import faults_ground as ground
from training.bench.faults_ground import PATIENCE, Driver, Outcome, Watch, time_left
from training.bench.real_trainer import RealTrainer

QUESTS, ROWS = 4, 60
LOADING_SHARE = 0.15  # of the kills come while torch and the hero are loaded
LOADING_SECONDS, AWAKE_SECONDS = 4.0, 3.0
MOST_LIVES = 200


def queue(paths: RealmPaths, rng: random.Random) -> RealmPaths:
    """A realm of the micro hero with quests that wait."""
    ground.make(paths, dwarf=False)
    ground.fill(paths, rng, QUESTS, ROWS)
    ground.finish("serve", paths)
    return paths


def straight(paths: RealmPaths) -> dict:
    """What an undisturbed life makes of it."""
    trainer = RealTrainer(paths)
    if not until_trained(trainer, time.monotonic() + PATIENCE) or trainer.end() != 0:
        raise RealmError(f"an undisturbed trainer did not end well in {paths.root}")
    return ground.outcome_of(paths)


def until_trained(trainer: RealTrainer, deadline: float) -> bool:
    """Wait until nothing is left to train; False where it died or time was up."""
    while time_left(deadline) and trainer.lives():
        if trainer.idle():
            return True
        time.sleep(0.05)
    return False


def moment(trainer: RealTrainer, rng: random.Random) -> None:
    """Wait for a random moment of a life: some while it loads, most in its battles."""
    if rng.random() < LOADING_SHARE:
        time.sleep(rng.uniform(0.0, LOADING_SECONDS))
        return
    deadline = time.monotonic() + PATIENCE
    while not trainer.awake and trainer.lives() and time_left(deadline):
        time.sleep(0.02)
    end = time.monotonic() + rng.uniform(0.0, AWAKE_SECONDS)
    while time_left(end):
        time.sleep(0.02)
        trainer.look()


def run(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    outcome, turn = Outcome(), 0
    while time_left(until):
        queued = queue(RealmPaths(realm.root / f"queued-{turn}"), rng)
        expected = straight(ground.copy(queued, realm.root / f"straight-{turn}"))
        paths = ground.copy(queued, realm.root / f"killed-{turn}")
        _turn(paths, expected, rng, until, outcome, f"turn {turn}")
        turn += 1
    return outcome


def _turn(paths: RealmPaths, expected: dict, rng: random.Random, until: float, outcome: Outcome, where: str) -> None:
    with Watch(paths) as watch:
        for number in range(MOST_LIVES):
            trainer = RealTrainer(paths)
            if not time_left(until):
                break
            moment(trainer, rng)
            if trainer.idle():
                break
            trainer.kill()
            outcome.add(f"{where}, kill {number}", [*watch.take(), *ground.checked(paths)])
            ground.grow_old(paths)
        trained = until_trained(trainer, time.monotonic() + PATIENCE)
        code = trainer.end()
        found = watch.take()
    if not trained or code != 0:
        found.append(Violation("I2", "trainer", f"the last life did not train the rest and end well ({code})"))
    found += [*ground.checked(paths), *nothing_half_built(paths), *ground.compared(paths, expected)]
    outcome.findings += [f"{where}, after all: {violation}" for violation in found]


DRIVERS = (
    Driver("trainer", "the real trainer killed at any moment: the same tensors in the end (I1-I5)", run, share=2.0),
)
