"""`bench faults`: harm done to throw-away realms on purpose, and whether what a realm promises held.

To add a kind of fault, write a module beside its siblings with `DRIVERS` and name it in `KINDS`.
"""

import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.errors import RealmError, UserError, nearest
from core.paths import RealmPaths
from training.bench import faults_calls, faults_corrupt, faults_kill, faults_live, faults_power, faults_trainer
from training.bench.faults_ground import Driver, Outcome
from training.bench.machine import describe_machine
from training.terminal import duration_text, styled, table

KINDS = (faults_kill, faults_trainer, faults_calls, faults_corrupt, faults_power, faults_live)
DRIVERS: dict[str, Driver] = {driver.name: driver for kind in KINDS for driver in kind.DRIVERS}
QUICK = ("corruption", "calls-killed", "power", "kill")  # what runs over its time comes last
QUICK_MINUTES = 1.4  # what was begun is brought to its end, which takes some time more


@dataclass(frozen=True)
class FaultOptions:
    """`kinds`: names of drivers; they share `minutes` by their weights."""

    seed: int
    minutes: float
    kinds: tuple[str, ...] = tuple(DRIVERS)


def chosen(given: str | None, quick: bool) -> tuple[str, ...]:
    """The drivers asked for. Raises UserError for a name that is none."""
    if given is None:
        return QUICK if quick else tuple(DRIVERS)
    names = tuple(dict.fromkeys(name.strip() for name in given.split(",")))
    for name in names:
        if name not in DRIVERS:
            raise UserError(f"unknown kind {name!r}{nearest(name, DRIVERS) or '.'} Known: {', '.join(DRIVERS)}")
    return names


def run_faults(options: FaultOptions, say: Callable[[str], None], threads: int = 1) -> dict[str, Any]:
    """The campaign, as the JSON that `--json` prints."""
    began, left = time.monotonic(), sum(DRIVERS[name].share for name in options.kinds)
    end = began + 60 * options.minutes
    promises = []
    for name in options.kinds:
        driver = DRIVERS[name]
        to_go = max(0.0, end - time.monotonic())
        until = time.monotonic() + to_go * driver.share / left
        left -= driver.share
        say(f"{name}: {duration_text(to_go * driver.share / (left + driver.share))} of {duration_text(to_go)} to go")
        outcome, seconds = _tried(driver, options.seed, until)
        promises.append({"name": name, "promise": driver.promise, "seconds": seconds, **asdict(outcome)})
        say(f"{name}: {outcome.skipped or f'{outcome.tried} tried, {outcome.held} held'}")
        for finding in outcome.findings:
            say(f"  seed {options.seed}, {name}, {finding}")
    return {
        "bench": "faults",
        "seed": options.seed,
        "minutes": options.minutes,
        "promises": promises,
        "violations": sum(len(each["findings"]) for each in promises),
        "machine": describe_machine(threads),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _tried(driver: Driver, seed: int, until: float) -> tuple[Outcome, float]:
    """A driver in a folder of its own."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="realm-faults-", ignore_cleanup_errors=True) as folder:
        try:
            outcome = driver.run(RealmPaths(Path(folder)), random.Random(f"{seed}/{driver.name}"), until)
        except RealmError as problem:  # an undisturbed life failed: the campaign goes on and tells it
            outcome = Outcome(findings=[str(problem)])
    if not (outcome.tried or outcome.findings or outcome.skipped):
        outcome.skipped = "its share of the time was too short"
    return outcome, time.monotonic() - began


def faults_text(result: dict[str, Any]) -> str:
    rows = [
        (each["name"], each["tried"], each["held"], len(each["findings"]), each["skipped"] or each["worst"])
        for each in result["promises"]
    ]
    lines = [f"  {each['name']}: {each['promise']}" for each in result["promises"]]
    told = [
        f"seed {result['seed']}, {each['name']}, {finding}"
        for each in result["promises"]
        for finding in each["findings"]
    ]
    verdict = styled(f"{result['violations']} violations", "red" if told else "green")
    head = ("fault", "tried", "held", "violations", "worst, or why not tried")
    return "\n".join([table(head, rows), "", *lines, "", verdict, *told])
