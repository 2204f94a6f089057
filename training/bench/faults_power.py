"""The power cut at random moments, under the stand-in and under the real trainer: an ext4 shut down, mounted, woken up."""

import os
import random
import time
from typing import Any

from core import checkpoints
from core.invariants import Violation, nothing_half_built
from core.paths import RealmPaths
from training.bench import faults_ground as ground
from training.bench import faults_trainer, stand_in
from training.bench.faults_ground import PATIENCE, Driver, Outcome, time_left
from training.bench.power_cut import FLAGS, PoweredDisk, missing
from training.bench.real_trainer import RealTrainer

QUESTS, INTAKE_CUTS = 12, 4
LONGEST_LIFE, LOADING_SHARE = 1.5, 0.15
MOST_CUTS = 60
INTERVAL = ground.SETTINGS["save_steps"]


def run(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    """The stand-in: cuts while files are taken in, then while they are trained, until all are; and from the beginning."""
    if reason := missing(realm.root):
        return Outcome(skipped=reason)
    outcome, losses, turn = Outcome(), [], 0
    while time_left(until):
        folder = realm.root / f"turn-{turn}"
        with PoweredDisk(folder / "first", 96) as disk:
            paths = ground.make(RealmPaths(disk.place / "realm"))
            dropped = ground.fill(paths, rng, QUESTS)
            os.sync()  # the base model was brought long ago
            _intake(disk, paths, dropped, rng, outcome, f"turn {turn}, intake")
            ground.finish("serve", paths)
            straight = ground.copy(paths, folder / "straight")
            ground.finish("train", straight)
            expected = ground.outcome_of(straight)
            _training(disk, paths, expected, rng, until, outcome, f"turn {turn}", losses)
        turn += 1
    outcome.worst = _told(losses)
    return outcome


def _intake(
    disk: PoweredDisk, paths: RealmPaths, dropped: dict[str, str], rng: random.Random, outcome: Outcome, where: str
) -> None:
    for number in range(INTAKE_CUTS):
        daemon = stand_in.begin("serve", paths)
        time.sleep(rng.uniform(0.0, LONGEST_LIFE))
        if not daemon.lives():
            daemon.end()
            return
        _cut(disk, daemon, rng)
        found = [*ground.checked(paths, record=False), *ground.present(paths, dropped)]
        outcome.add(f"{where}, cut {number}", found)


def _training(
    disk: PoweredDisk,
    paths: RealmPaths,
    expected: dict[str, Any],
    rng: random.Random,
    until: float,
    outcome: Outcome,
    where: str,
    losses: list[int],
) -> None:
    for number in range(MOST_CUTS):
        trainer = stand_in.begin("train", paths)
        _moment(trainer, rng)
        if not trainer.lives() or not time_left(until):
            break
        outcome.add(f"{where}, cut {number}", struck(disk, paths, trainer, rng, losses))
        ground.grow_old(paths)
    code = trainer.end(PATIENCE)
    found = [] if code == 0 else [Violation("I2", "trainer", f"the last life ended with {code} and not well")]
    _finally(paths, expected, outcome, where, found)


def struck(
    disk: PoweredDisk, paths: RealmPaths, trainer: Any, rng: random.Random, losses: list[int]
) -> list[Violation]:
    """Cut, start the machine, look: what was said to be on the disk is there."""
    safe, done = _safe(trainer), trainer.step
    _cut(disk, trainer, rng)
    found = ground.checked(paths, record=False)
    tip = checkpoints.pointed(paths.tip)
    step = checkpoints.read(paths.vault / tip).step if tip and not found else 0
    losses.append(max(0, done - step))
    if step < safe and not found:
        found.append(Violation("I2", "tip", f"step {safe} was on the disk, and the tip is at {step}"))
    if losses[-1] > INTERVAL and not found:
        found.append(Violation("I2", "tip", f"{losses[-1]} steps were on no disk, {INTERVAL} may be"))
    return found


def _safe(trainer: Any) -> int:
    """The step that the trainer itself took for saved; the link alone may be seen before it is on the disk."""
    return trainer.tip if isinstance(trainer, stand_in.Life) else 0


def _moment(trainer: stand_in.Life, rng: random.Random) -> None:
    """Most cuts come after waking up, in battle; some before."""
    deadline = time.monotonic() + (PATIENCE if rng.random() > LOADING_SHARE else 0.0)
    while not trainer.awake and trainer.lives() and time_left(deadline):
        time.sleep(0.005)
    time.sleep(rng.uniform(0.0, LONGEST_LIFE))


def _cut(disk: PoweredDisk, life: Any, rng: random.Random) -> None:
    disk.cut(rng.choice(FLAGS))
    life.kill()
    disk.restore()


def _finally(paths: RealmPaths, expected: dict[str, Any], outcome: Outcome, where: str, found: list[Violation]) -> None:
    found += [*ground.checked(paths, record=False), *nothing_half_built(paths), *ground.compared(paths, expected)]
    outcome.findings += [f"{where}, after all: {violation}" for violation in found]


def _told(losses: list[int]) -> str:
    return f"{max(losses)} steps lost, {INTERVAL} between checkpoints" if losses else ""


def run_real(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    """The real trainer: the power is cut until all is trained."""
    if reason := missing(realm.root):
        return Outcome(skipped=reason)
    outcome, losses, turn = Outcome(), [], 0
    while time_left(until):
        with PoweredDisk(realm.root / f"turn-{turn}", 1200) as disk:
            paths = faults_trainer.queue(RealmPaths(disk.place / "realm"), rng)
            expected = faults_trainer.straight(ground.copy(paths, realm.root / "straight"))
            _real_turn(disk, paths, expected, rng, until, outcome, f"turn {turn}", losses)
        turn += 1
    outcome.worst = _told(losses)
    return outcome


def _real_turn(
    disk: PoweredDisk,
    paths: RealmPaths,
    expected: dict[str, Any],
    rng: random.Random,
    until: float,
    outcome: Outcome,
    where: str,
    losses: list[int],
) -> None:
    for number in range(MOST_CUTS):
        trainer = RealTrainer(paths)
        if not time_left(until):
            break
        faults_trainer.moment(trainer, rng)
        if trainer.idle():
            break
        outcome.add(f"{where}, cut {number}", struck(disk, paths, trainer, rng, losses))
        ground.grow_old(paths)
    trained = faults_trainer.until_trained(trainer, time.monotonic() + PATIENCE)
    code = trainer.end()
    found = [] if trained and code == 0 else [Violation("I2", "trainer", f"the last life did not end well ({code})")]
    _finally(paths, expected, outcome, where, found)


PROMISE = "whenever the power fails, all that was said to be safe is there (I1-I5), and no more work is lost than one interval"
DRIVERS = (
    Driver("power", PROMISE, run, share=2.0),
    Driver("power-trainer", PROMISE, run_real, share=1.0),
)
