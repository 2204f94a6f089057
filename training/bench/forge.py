"""`bench forge`: every contestant trains the same rows from the same weights, in turn, each in a fresh process.

It starts processes and gathers numbers; what they mean is `standing`'s, how they look `table`'s and `page`'s. Whoever
is not installed is reported as such. Contestants alternate, and the order turns with every round, so that a machine
that slows down or warms up is unfair to nobody.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import RealmError
from training.bench.contestants import CONTESTANTS, SIZES, Contestant, Size
from training.bench.launch import Launched, peer_python
from training.bench.machine import describe_machine, installed, versions
from training.bench.material import Material, make
from training.bench.standing import Case, Run, standing
from training.terminal import duration_text

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What is measured. `seconds`: no further round is begun that would not end within them."""

    sizes: tuple[str, ...]
    precisions: tuple[str, ...]
    contestants: tuple[str, ...]
    repeats: int
    quick: bool = False
    steps: int | None = None
    threads: int = len(os.sched_getaffinity(0))
    seconds: float | None = None

    def steps_of(self, size: Size) -> int:
        return self.steps or (size.quick_steps if self.quick else size.steps)


def run_forge(options: Options, say: Say) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints."""
    began = time.time()
    python = peer_python()
    found = installed(python, {package for name in options.contestants for package in CONTESTANTS[name].needs})
    missing = [name for name in options.contestants if not found.issuperset(CONTESTANTS[name].needs)]
    for name in missing:
        say(f"{CONTESTANTS[name].title}: not installed; `bash scripts/bootstrap_bench.sh` brings the peers")
    present = [CONTESTANTS[name] for name in options.contestants if name not in missing]
    cases = []
    with tempfile.TemporaryDirectory(prefix="bench-forge-") as folder:
        bench = _Bench(options, Path(folder), python, present, say)
        for name in options.sizes:
            cases += bench.measure(SIZES[name])
    described = [standing(case, runs, missing) for case, runs in cases]
    return {
        "bench": "forge",
        "ratio": described[0]["ratio"],
        "cases": described,
        "quick": options.quick,
        "machine": describe_machine(options.threads),
        "versions": versions(python),
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": time.time() - began,
    }


class _Bench:
    """Makes what is trained, and runs the rounds."""

    def __init__(self, options: Options, folder: Path, python: str, present: list[Contestant], say: Say):
        self.options, self.folder, self.python, self.present, self.say = options, folder, python, present, say
        self._began = time.monotonic()
        self._spent: dict[str, list[float]] = {}
        self._left = len(options.sizes) * len(options.precisions) * options.repeats * len(present)

    def measure(self, size: Size) -> list[tuple[Case, list[Run]]]:
        """All rounds of one size, its precisions alternating too."""
        steps = self.options.steps_of(size)
        self.say(f"{size.name}: weights and {size.rows * steps} rows")
        material = make(self.folder / size.name, size, steps)
        parameters = self._ask("weights", material, "fp32", {})["parameters"]
        sequences = [each for step in range(steps) for each in material.plan.sequences_of(material.plan.rows_of(step))]
        facts = tuple(len(tokens) for tokens, _ in sequences), sum(int(trained[1:].sum()) for _, trained in sequences)
        cases = [(Case(size, precision, steps, parameters, *facts), []) for precision in self.options.precisions]
        for number in range(self.options.repeats):
            if number and not self._time_for_another(cases):
                self.say("no time for another round")
                break
            self._round(number, material, cases)
        shutil.rmtree(material.paths.root)
        return cases

    def _round(self, number: int, material: Material, cases: list[tuple[Case, list[Run]]]) -> None:
        rates = self._ask("roofline", material, "fp32", {})
        turn = number % len(self.present)
        for contestant in self.present[turn:] + self.present[:turn]:
            for case, runs in cases:
                run = self._run(contestant, material, case.precision, number)
                runs.append(Run(number, contestant.name, rates[case.precision], run))
                self._tell(contestant, case, number, run)

    def _run(self, contestant: Contestant, material: Material, precision: str, number: int) -> dict[str, Any]:
        """The numbers of one process; `problem` instead where it failed."""
        root = material.paths.root
        if contestant.entrant == "ours":  # it changes its realm, so each time it gets a new one
            root = self.folder / f"realm-{number}-{precision}"
            shutil.copytree(material.paths.root, root, symlinks=True)
        mine = Material(type(material.paths)(root), material.size, material.steps)
        began, load = time.monotonic(), os.getloadavg()[0]
        try:
            found = self._ask(
                contestant.entrant, mine, precision, {"equal": contestant.equal, "options": contestant.options}
            )
        except RealmError as problem:
            found = {"problem": str(problem)}
        if root != material.paths.root:
            shutil.rmtree(root)
        self._spent.setdefault(material.size.name + contestant.name, []).append(time.monotonic() - began)
        self._left -= 1
        return {**found, "load": load}

    def _ask(self, entrant: str, material: Material, precision: str, more: dict[str, Any]) -> dict[str, Any]:
        task = {
            "entrant": entrant,
            "root": str(material.paths.root),
            "size": material.size.name,
            "steps": material.steps,
            "precision": precision,
            "threads": self.options.threads,
            **more,
        }
        with Launched(self.folder / "entrant", self.python, task, self.folder / "kernels") as launched:
            return launched.answer()

    # Time

    def _tell(self, contestant: Contestant, case: Case, number: int, run: dict[str, Any]) -> None:
        problem = run.get("problem")
        told = f"failed: {problem}" if problem else f"{sum(run['tokens']) / sum(run['seconds']):,.0f} tokens/s"
        left = duration_text(self._remaining())
        self.say(f"{case.size.name} {case.precision}, round {number + 1}: {contestant.title}: {told}; {left} to go")

    def _remaining(self) -> float:
        """Seconds that the runs to come will take, as long as those before on average."""
        spent = [seconds for each in self._spent.values() for seconds in each]
        return self._left * sum(spent) / len(spent)

    def _time_for_another(self, cases: list[tuple[Case, list[Run]]]) -> bool:
        if self.options.seconds is None:
            return True
        size = cases[0][0].size.name
        one = sum(max(spent) for name, spent in self._spent.items() if name.startswith(size)) * len(cases)
        return time.monotonic() - self._began + one < self.options.seconds
