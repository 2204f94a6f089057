"""`bench schools --peers`: each school beside TRL's trainer of the same method, on the same rows from the same weights.

Everybody runs in a fresh process, turn about, and the order is reversed with every round: ours, theirs, theirs, ours. It
starts processes and gathers numbers; how they look is `peers_page`'s.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from core.errors import RealmError
from core.paths import RealmPaths
from training.bench.contestants import SIZES
from training.bench.launch import Launched, peer_python
from training.bench.machine import describe_machine, installed, versions
from training.bench.material import SEED
from training.bench.school_work import LOADS, Load, write_work
from training.bench.standing import Run, ratios, spread
from training.terminal import duration_text

Say = Callable[[str], None]
OURS = "ours"


@dataclass(frozen=True)
class Peer:
    """A way to run TRL's trainer; `micro`: rows a pass, all of a step without; `options` go to the trainer as they are."""

    name: str
    title: str
    micro: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


_PRECOMPUTED = {"precompute_ref_log_probs": True}
PEERS = {
    "judge": (
        Peer("dpo", "TRL DPO, a second model", 4),
        Peer("dpo_precomputed", "TRL DPO, references precomputed", 4, _PRECOMPUTED),
        Peer("dpo_precomputed_one", "the same, one pair a pass", 1, _PRECOMPUTED),
    ),
    "champion": (
        Peer("grpo", "TRL GRPO, 16 answers a pass", 16),
        Peer("grpo_whole", "TRL GRPO, a step's answers in one pass"),
    ),
    "whisper": (
        Peer("gkd", "TRL GKD, off-policy, 8 rows a pass", 8),
        Peer("gkd_one", "TRL GKD, off-policy, one row a pass", 1),
    ),
    "oracle": (
        Peer("sft", "TRL SFT, unweighted", 8),
        Peer("sft_padding_free", "TRL SFT, unweighted, padding-free", 8, {"padding_free": True}),
    ),
}


@dataclass(frozen=True)
class PeerOptions:
    """`rounds`: an even number is fair to everybody."""

    schools: tuple[str, ...] = tuple(PEERS)
    quick: bool = False
    rounds: int = 2
    threads: int = len(os.sched_getaffinity(0))

    @property
    def size(self) -> str:
        return "mini" if self.quick else "4m"


def run_peers(options: PeerOptions, say: Say) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints."""
    began, python = time.time(), peer_python()
    present = installed(python, {"trl", "datasets"}) == {"trl", "datasets"}
    if not present:
        say("TRL: not installed; `bash scripts/bootstrap_bench.sh` brings the peers")
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as folder:
        bench = _Bench(options, Path(folder), python, say)
        bench.hatch()
        schools = {name: bench.measure(name, PEERS[name] if present else ()) for name in options.schools}
    return {
        "bench": "peers",
        "schools": schools,
        "ratio": {name: each["ratio_quickest"] for name, each in schools.items()},
        "size": options.size,
        "quick": options.quick,
        "machine": describe_machine(options.threads),
        "versions": versions(python),
        "date": time.strftime("%Y-%m-%d", time.gmtime(began)),
        "seconds": time.time() - began,
    }


def pace(run: Run) -> float:
    """Real tokens a second, from the first step's begin to the last one's end; computing references counts, too."""
    return sum(run.found["tokens"]) / (sum(run.found["seconds"]) + run.found["reference_seconds"])


def compared(school: str, load: Load, rows: int, runs: list[Run]) -> dict[str, Any]:
    """One school of the bench's JSON. Ratios are ours by theirs: above 1 of speed, below 1 of memory is ours the better."""
    peers = {peer.name: peer for peer in PEERS[school]}
    titles = {OURS: "The school"} | {name: peer.title for name, peer in peers.items()}
    contestants = {
        name: _contestant(title, [run for run in runs if run.name == name]) for name, title in titles.items()
    }
    speed, memory = (
        {name: value for name, value in ratios(runs, peers, measure).items() if value is not None}
        for measure in (pace, lambda run: run.found["peak_bytes"])
    )
    return {
        **asdict(load),
        "total_rows": rows,
        "rounds": 1 + max(run.round for run in runs),
        "ratio": speed,
        "ratio_quickest": min(speed.values(), default=None),
        "memory_ratio": memory,
        "memory_ratio_leanest": max(memory.values(), default=None),
        "contestants": contestants,
    }


def _contestant(title: str, runs: list[Run]) -> dict[str, Any]:
    done = [run for run in runs if run.done]
    if not runs:
        return {"title": title, "state": "not installed"}
    if not done:
        return {"title": title, "state": "failed", "problem": runs[-1].found["problem"]}
    return {
        "title": title,
        "state": "measured",
        "tokens_per_second": spread(pace(run) for run in done),
        "tokens": spread(sum(run.found["tokens"]) for run in done),
        "step_seconds": spread(sum(run.found["seconds"]) for run in done),
        "reference_seconds": spread(run.found["reference_seconds"] for run in done),
        "peak_bytes": spread(run.found["peak_bytes"] for run in done),
        "runs": [{"round": run.round, **run.found} for run in runs],
    }


class _Bench:
    def __init__(self, options: PeerOptions, folder: Path, python: str, say: Say):
        self.options, self.folder, self.python, self.say = options, folder, python, say
        self._spent: list[float] = []
        self._left = sum(1 + len(PEERS[name]) for name in options.schools) * options.rounds

    def hatch(self) -> None:
        """Everybody's weights in a realm that is copied for each run, and the Whisper's teacher, of other weights, beside them."""
        seeds = {"realm": SEED} | ({"teacher": SEED + 1} if "whisper" in self.options.schools else {})
        for name, seed in seeds.items():
            paths = RealmPaths(self.folder / name)
            paths.make()
            paths.config.write_bytes(orjson.dumps({"seed": seed, "disk": {"reserve_bytes": 0}}))
            self._ask("weights", paths.root, 1, {"seed": seed})
        if "teacher" in seeds:
            own, other = (RealmPaths(self.folder / name).models for name in ("realm", "teacher"))
            shutil.copytree(other / "bench", own / "teacher")

    def measure(self, school: str, peers: tuple[Peer, ...]) -> dict[str, Any]:
        """All rounds of one school."""
        load = LOADS[self.options.size][school]
        rows, runs = write_work(self.folder / "realm", school, load), []
        for number in range(self.options.rounds):
            turn = (Peer(OURS, "The school"), *peers)
            for each in reversed(turn) if number % 2 else turn:
                runs.append(Run(number, each.name, 0.0, self._run(school, load, each)))
                self._tell(school, each, runs[-1])
        return compared(school, load, rows, runs)

    def _run(self, school: str, load: Load, peer: Peer) -> dict[str, Any]:
        """The numbers of one process; `problem` instead where it failed."""
        root, began = self.folder / "life", time.monotonic()
        shutil.copytree(self.folder / "realm", root, symlinks=True)
        entrant = "school" if peer.name == OURS else "trl_school"
        own = {} if peer.name == OURS else {"micro": peer.micro, **peer.options}
        try:
            return self._ask(entrant, root, load.steps, {"school": school, "load": asdict(load), **own})
        except RealmError as problem:
            return {"problem": str(problem)}
        finally:
            shutil.rmtree(root)
            self._spent.append(time.monotonic() - began)

    def _ask(self, entrant: str, root: Path, steps: int, options: dict[str, Any]) -> dict[str, Any]:
        size = SIZES[self.options.size]
        task = {"entrant": entrant, "root": str(root), "size": size.name, "steps": steps, "precision": "fp32",
                "threads": self.options.threads, "options": options}  # fmt: skip
        with Launched(self.folder / "entrant", self.python, task, self.folder / "kernels") as launched:
            return launched.answer()

    def _tell(self, school: str, peer: Peer, run: Run) -> None:
        told = f"{pace(run):,.0f} tokens/s" if run.done else f"failed: {run.found['problem']}"
        left = (self._left - len(self._spent)) * sum(self._spent) / len(self._spent)
        self.say(f"{school}, round {run.round + 1}: {peer.title}: {told}; {duration_text(max(0.0, left))} to go")
