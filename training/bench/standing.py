"""From the runs of one case to its numbers: medians with their ranges, and ours against every peer. Pure arithmetic.

A ratio is taken within each round, between runs that were minutes apart, and the median of those is told: the rounds
of a noisy machine differ more than its minutes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median
from typing import Any

from core.flops import training_flops
from training.bench.contestants import CONTESTANTS, PEERS, Size

COMPILED = "ours_compiled"


def warm_up(steps: int) -> int:
    """How many of the first steps do not count as steady."""
    return min(2, steps - 1)


@dataclass(frozen=True)
class Case:
    """One size at one precision: what is common to its runs."""

    size: Size
    precision: str
    steps: int
    parameters: int
    lengths: tuple[int, ...]
    labels: int


@dataclass(frozen=True)
class Run:
    """What one process found in one round; `gemm`: floating-point operations a second that the machine did then."""

    round: int
    name: str
    gemm: float
    found: dict[str, Any]

    @property
    def done(self) -> bool:
        return "problem" not in self.found

    @property
    def whole(self) -> float:
        """Real tokens a second from the beginning of the loop to its last step."""
        return sum(self.found["tokens"]) / sum(self.found["seconds"])

    @property
    def steady(self) -> float:
        """The same without the first steps, in which memory is touched for the first time and kernels are chosen."""
        skipped = warm_up(len(self.found["tokens"]))
        return sum(self.found["tokens"][skipped:]) / sum(self.found["seconds"][skipped:])

    @property
    def thrift(self) -> float:
        """Real tokens a second of CPU time: what is left of a speed when neighbours take the cores away."""
        return sum(self.found["tokens"]) / self.found["cpu_seconds"]


def standing(case: Case, runs: list[Run], missing: Iterable[str]) -> dict[str, Any]:
    """One case of the bench's JSON."""
    needed = training_flops(case.size.shape, list(case.lengths), case.labels) / sum(case.lengths)
    roof = max(run.gemm for run in runs) / needed
    contestants = {
        name: _contestant(name, [run for run in runs if run.name == name], case, roof)
        for name in dict.fromkeys(run.name for run in runs)
    }
    contestants |= {name: {"title": CONTESTANTS[name].title, "state": "not installed"} for name in missing}
    others = [name for name in CONTESTANTS if name not in (*PEERS, "ours", COMPILED)]
    everybody = [*PEERS, *others]
    return {
        "size": case.size.name,
        "precision": case.precision,
        "parameters": case.parameters,
        "steps": case.steps,
        "rows": len(case.lengths),
        "tokens": sum(case.lengths),
        "labels": case.labels,
        "longest_row": max(case.lengths),
        "median_row": median(case.lengths),
        "rounds": 1 + max(run.round for run in runs),
        "gemm_flops": max(run.gemm for run in runs),
        "roofline_tokens_per_second": roof,
        "ratio": ratios(runs, PEERS, lambda run: run.whole),
        "ratio_steady": ratios(runs, PEERS, lambda run: run.steady),
        "ratio_range": ratios(runs, PEERS, lambda run: run.whole, _range),
        "ratio_steady_range": ratios(runs, PEERS, lambda run: run.steady, _range),
        "ratio_cpu": ratios(runs, PEERS, lambda run: run.thrift),
        "ratio_compiled": ratios(runs, everybody, lambda run: run.whole, mine=COMPILED),
        "ratio_compiled_steady": ratios(runs, everybody, lambda run: run.steady, mine=COMPILED),
        "ratio_others": ratios(runs, others, lambda run: run.whole),
        "ratio_others_steady": ratios(runs, others, lambda run: run.steady),
        "ratio_others_cpu": ratios(runs, others, lambda run: run.thrift),
        "contestants": {name: contestants[name] for name in CONTESTANTS if name in contestants},
    }


def _contestant(name: str, runs: list[Run], case: Case, roof: float) -> dict[str, Any]:
    known, done = CONTESTANTS[name], [run for run in runs if run.done]
    setting = (
        {"precision": case.precision, "checkpointing": False}
        if known.equal
        else {"precision": "bf16", "checkpointing": True}
    )
    about = {"title": known.title, "equal": known.equal, **setting}
    if not done:
        return {**about, "state": "failed", "problem": runs[-1].found["problem"]}
    steady = spread(run.steady for run in done)
    measures = {
        key: spread(run.found[key] for run in done)
        for key in ("peak_bytes", "device_peak_bytes", "ready_seconds", "first_step_seconds", "held_out_loss")
    }
    problems = [run.found["problem"] for run in runs if not run.done]
    return {
        **about,
        "state": "measured",
        **({"problem": problems[-1]} if problems else {}),
        "tokens_per_second": spread(run.whole for run in done),
        "steady_tokens_per_second": steady,
        "tokens_per_cpu_second": spread(run.thrift for run in done),
        "roofline_share": steady["median"] / roof,
        **measures,
        "runs": [{"round": run.round, "gemm_flops": run.gemm, **run.found} for run in runs],
    }


def spread(values: Iterable[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    return {"median": median(known), "min": min(known), "max": max(known)} if known else None


def _range(values: list[float]) -> list[float]:
    return [min(values), max(values)]


def ratios(
    runs: list[Run],
    peers: Iterable[str],
    speed: Callable[[Run], float],
    told: Callable[[list[float]], Any] = median,
    mine: str = "ours",
) -> dict[str, Any]:
    """`mine` over each peer, within the rounds in which both were done; null where there was none."""
    speeds = {(run.name, run.round): speed(run) for run in runs if run.done}
    rounds = sorted({run.round for run in runs})
    pairs = {
        peer: [
            speeds[mine, each] / speeds[peer, each]
            for each in rounds
            if (mine, each) in speeds and (peer, each) in speeds
        ]
        for peer in peers
    }
    return {peer: told(values) if values else None for peer, values in pairs.items()}
