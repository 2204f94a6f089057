"""Harm done to a whole running realm: a full disk, too little memory, a trainer killed in battle, an end at any moment.

It only hands on what faults_disk, faults_memory and faults_stop find, in the shape of their siblings.
"""

import random
import time

from core.errors import RealmError
from core.paths import RealmPaths
from training.bench import faults_disk, faults_memory, faults_stop
from training.bench.faults_ground import Driver, Outcome

ENDINGS, KILLS, MEMORY_KILLS = 10, 5, 10  # at a time: one realm each
AGAIN_SECONDS = 15.0


def fill_disk(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    if why := faults_disk.refusal():
        return Outcome(skipped=why)
    rounds, lost = faults_disk.fill_and_free(["bytes", "inodes"] * 50, rng, rows=1500, end=until)
    outcome = Outcome(len(rounds), sum(not each.findings for each in rounds))
    outcome.findings = [
        f"round {number}: {text}" for number, each in enumerate(rounds) for text in each.findings
    ] + lost
    slowest = max((each.resumed for each in rounds), default=0.0)
    outcome.worst = f"a new step {slowest:.1f} s after there was room"
    return outcome


def take_memory(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    try:
        with faults_memory.group():
            pass
    except RealmError as problem:
        return Outcome(skipped=str(problem))
    realm.root.mkdir(parents=True, exist_ok=True)
    hits = faults_memory.hit_often(realm.root, rng.randrange(1 << 30), MEMORY_KILLS, say=lambda text: None)
    outcome = Outcome(sum(hit.kills for hit in hits), sum(hit.kills for hit in hits if not hit.wrong))
    outcome.findings = [f"battle {number}: {text}" for number, hit in enumerate(hits) for text in hit.wrong]
    outcome.worst = f"{sum(hit.state == 'failed' for hit in hits)} of {len(hits)} quests given up, as they had to be"
    return outcome


def end_anywhere(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    outcome, slowest = Outcome(), 0.0
    while time.monotonic() < until:
        root = realm.root / f"ended-{outcome.tried}"
        for ending in faults_stop.end_at_random_moments(root, rng, ENDINGS, say=lambda text: None):
            outcome.tried += 1
            outcome.held += ending.held
            slowest = max(slowest, ending.seconds)
            if not ending.held:
                outcome.findings.append(
                    f"told after {ending.moment:.1f} s ({ending.doing}): {ending.seconds:.0f} s, left {ending.left}"
                )
    outcome.worst = f"ended after {slowest:.1f} s"
    return outcome


def kill_and_wait(realm: RealmPaths, rng: random.Random, until: float) -> Outcome:
    outcome, seconds = Outcome(), []
    while time.monotonic() < until:
        root = realm.root / f"killed-{outcome.tried}"
        found = faults_stop.kill_in_battle(root, rng, KILLS, say=lambda text: None)
        seconds += [each.new for each in found]
        outcome.tried += len(found)
    outcome.held = sum(each <= AGAIN_SECONDS for each in seconds)
    slow = sorted(seconds)[-1 - len(seconds) // 20 :][:1]
    outcome.worst = "".join(f"p95 {each:.1f} s to a step that is new" for each in slow)
    if slow and slow[0] > AGAIN_SECONDS:
        outcome.findings.append(f"{outcome.worst}, more than {AGAIN_SECONDS:.0f} s")
    return outcome


DRIVERS = (
    Driver("disk", "a full disk, by bytes or inodes, is a pause: reads stay up, nothing is lost", fill_disk, share=2.0),
    Driver("memory", "a trainer that the kernel kills goes on in smaller passes; the third time ends it", take_memory),
    Driver("stop", "told to end at any moment, pages listening: all gone within a minute", end_anywhere),
    Driver("recovery", "a killed trainer does a new step within 15 seconds (p95)", kill_and_wait),
)
