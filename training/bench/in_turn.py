"""`bench forge --in-turn`: what the forge costs beyond a bare loop, told to a few percent on a machine that is not so quiet.

Runs that are minutes apart differ by more than is asked for here. So both are alive at once, and one is stopped, with
all its threads, while the other takes the same step of the same rows: each pair of times is from the same seconds. Who
begins alternates. The ratio is that of the sums, so that what happens only now and then counts as it should; its
interval is a bootstrap over the pairs (percentiles; Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13).
"""

import os
import shutil
import signal
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import RealmError
from training.bench.contestants import SIZES
from training.bench.forge import Options, Say
from training.bench.launch import Launched, peer_python
from training.bench.machine import describe_machine, versions
from training.bench.material import Material, make
from training.bench.page import keep, surroundings
from training.terminal import duration_text

OURS, BARE = "ours", "bare"
STEPS, WARM_UP, DRAWS = 120, 3, 10_000


def run_in_turn(options: Options, say: Say) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints. `ratio`: how many times as fast as the bare loop the forge is."""
    steps = options.steps or STEPS
    if steps <= WARM_UP + 1:
        raise RealmError(f"--steps {steps}: the first {WARM_UP} are not counted; give more")
    cases = []
    with tempfile.TemporaryDirectory(prefix="bench-in-turn-") as folder:
        for size in (SIZES[name] for name in options.sizes):
            say(f"{size.name}: weights and {size.rows * steps} rows")
            material = make(Path(folder) / size.name, size, steps)
            pair = _Pair(Path(folder), material, options.threads, say)
            pair.ask("weights", "fp32")
            cases += [_standing(size.name, precision, *pair.measure(precision)) for precision in options.precisions]
    return {
        "bench": "forge in turn",
        "cases": cases,
        "machine": describe_machine(options.threads),
        "versions": versions(peer_python()),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


@dataclass(frozen=True)
class _Pair:
    folder: Path
    material: Material
    threads: int
    say: Say

    def ask(self, entrant: str, precision: str) -> dict[str, Any]:
        """What a process without turns finds."""
        with self._launch(entrant, precision, self.material.paths.root) as launched:
            return launched.answer()

    def measure(self, precision: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the forge and the bare loop found, step by step in turn."""
        root = self.folder / f"realm-{self.material.size.name}-{precision}"
        shutil.copytree(self.material.paths.root, root, symlinks=True)  # the forge changes its realm
        with ExitStack() as ends:
            players = [ends.enter_context(_Player(self, entrant, precision, root)) for entrant in (OURS, BARE)]
            for player in players:
                player.await_done()
            began = time.monotonic()
            for step in range(self.material.steps):
                for player in players if step % 2 else reversed(players):
                    player.turn()
                if step % 20 == 19:
                    left = (time.monotonic() - began) / (step + 1) * (self.material.steps - step - 1)
                    self.say(f"{self.material.size.name} {precision}: step {step + 1}; {duration_text(left)} to go")
            found = [player.end() for player in players]
        return found[0], found[1]

    def _launch(self, entrant: str, precision: str, root: Path, turns: tuple[int, int] | None = None) -> Launched:
        task = {
            "entrant": entrant,
            "root": str(root),
            "size": self.material.size.name,
            "steps": self.material.steps,
            "precision": precision,
            "threads": self.threads,
            "turns": turns,
        }
        return Launched(self.folder / entrant, peer_python(), task, self.folder / "kernels", turns or ())


class _Player:
    """An entrant that runs only while it is its turn."""

    def __init__(self, pair: _Pair, entrant: str, precision: str, root: Path):
        theirs_go, self._go = os.pipe()
        self._done, theirs_done = os.pipe()
        self._launched = pair._launch(entrant, precision, root, (theirs_go, theirs_done))
        os.close(theirs_go)
        os.close(theirs_done)

    def __enter__(self) -> "_Player":
        return self

    def __exit__(self, *_) -> None:
        self._launched.__exit__()
        os.close(self._go)
        os.close(self._done)

    def await_done(self) -> None:
        """Until it has reached the end of its step; from then on it stands still."""
        if os.read(self._done, 1):
            os.killpg(self._launched.process.pid, signal.SIGSTOP)
        else:  # it has ended, and says why
            self._launched.answer()

    def turn(self) -> None:
        self._wake()
        self.await_done()

    def end(self) -> dict[str, Any]:
        self._wake()
        return self._launched.answer()

    def _wake(self) -> None:
        os.killpg(self._launched.process.pid, signal.SIGCONT)
        os.write(self._go, b".")


def _standing(size: str, precision: str, ours: dict[str, Any], bare: dict[str, Any]) -> dict[str, Any]:
    if ours["tokens"] != bare["tokens"]:
        raise RealmError("the forge and the bare loop did not train the same rows in the same steps")
    mine, its = (np.array(each["seconds"][WARM_UP:]) for each in (ours, bare))
    drawn = np.random.default_rng(0).integers(len(mine), size=(DRAWS, len(mine)))
    low, high = np.quantile(its[drawn].sum(axis=1) / mine[drawn].sum(axis=1), (0.025, 0.975))
    return {
        "size": size,
        "precision": precision,
        "steps": len(mine),
        "tokens": sum(ours["tokens"][WARM_UP:]),
        "ratio": float(its.sum() / mine.sum()),
        "interval": [float(low), float(high)],
        "median": float(np.median(its / mine)),
        "held_out_loss": {OURS: ours["held_out_loss"], BARE: bare["held_out_loss"]},
        "seconds": {OURS: mine.tolist(), BARE: its.tolist()},
    }


def in_turn_text(result: dict[str, Any]) -> str:
    return "\n".join(_sentence(case) for case in result["cases"])


def write_in_turn(result: dict[str, Any], docs: Path) -> list[Path]:
    """Keep the result on the page of benchmarks; answers what was written."""
    sizes = ",".join(dict.fromkeys(case["size"] for case in result["cases"]))
    precisions = ",".join(dict.fromkeys(case["precision"] for case in result["cases"]))
    steps = result["cases"][0]["steps"] + WARM_UP
    command = f"python -m training bench forge --in-turn --sizes {sizes} --precision {precisions} --steps {steps}"
    lines = ["## What the forge costs over a bare loop", "", *surroundings(result, command), "", METHOD, ""]
    return keep(docs, "forge in turn", "\n".join([*lines, *(f"- {_sentence(case)}" for case in result["cases"])]), {})


def _sentence(case: dict[str, Any]) -> str:
    low, high = case["interval"]
    return (
        f"{case['size']} {case['precision']}: the forge is {case['ratio']:.3f} x as fast as the bare loop "
        f"(95 % interval {low:.3f}-{high:.3f}; half of the steps {case['median']:.3f} x or more), "
        f"{case['steps']} steps, {case['tokens']:,} tokens"
    )


METHOD = """\
The forge as the product runs it (quest from the queue, guards, ledger, metrics, status page) and a loop of nothing but
its forward, backward, clipping and optimizer step, both alive at once: one is stopped while the other one takes the
same step of the same rows, and they take turns in who begins. The ratio is that of the summed times."""
