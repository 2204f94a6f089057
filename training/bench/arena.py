"""`bench arena`: what a step of the arena costs beyond a bare PyTorch loop over the same model, and over transformers' own.

All are alive in one process and take the same step of the same batch in turn, so that each set of times is from the same
seconds; who begins rotates. What counts is the processor's time: one thread does nothing but compute. The arena's step is the
whole of it: the batch is put together, the step taken, loss and norm kept; a bare one finds its batch ready. Ratios are those
of the summed times.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import Qwen3Config, Qwen3ForCausalLM

from core.arena.agent import BETAS, Agent
from core.arena.data import NO_LABEL, Batch, bundled
from core.arena.model import MicroModel
from core.arena.records import Record, Settings, State
from core.arena.shape import Shape
from training.bench.launch import peer_python
from training.bench.machine import describe_machine, versions

SHAPES = {"tiny": Shape(16, 1, 2), "hundred": Shape(64, 2, 4)}  # 4,000 and 100,000 parameters
STEPS, QUICK_STEPS, WARM_UP = 300, 60, 5
LEAST = 1 / 1.1  # within 10 % of the bare loop
Step = Callable[[np.ndarray, Batch], Any]


def run_arena(steps: int, names: tuple[str, ...] = tuple(SHAPES)) -> dict[str, Any]:
    """The whole bench, as the JSON that `--json` prints. `ratio`: how many times as fast as each peer the arena is."""
    cases = [_measured(name, SHAPES[name], steps) for name in names]
    return {
        "bench": "arena",
        "cases": cases,
        "ratio": {peer: min(case["ratio"][peer] for case in cases) for peer in cases[0]["ratio"]},
        "passed": all(case["ratio"]["bare"] >= LEAST for case in cases),
        "machine": describe_machine(1),
        "versions": versions(peer_python()),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _measured(name: str, shape: Shape, steps: int) -> dict[str, Any]:
    samples, settings = bundled(), Settings.for_shape(shape)
    agent = Agent(Record(name, shape, 0, State(settings, samples.key, samples.title, samples.letters)), Path())
    encoded, size = agent.alphabet.encoded(samples.trained), settings.batch_size
    model = MicroModel(shape, len(agent.alphabet), 0)
    theirs = Qwen3ForCausalLM(Qwen3Config(**shape.config(len(agent.alphabet))))
    runners: dict[str, Step] = {
        "ours": lambda lines, _: agent.train(encoded.batch(lines)),
        "bare": _bare(model, lambda tokens_BT: model(tokens_BT), settings),
        "transformers": _bare(theirs, lambda tokens_BT: theirs(tokens_BT).logits.flatten(0, 1), settings),
    }
    seconds: dict[str, list[float]] = {runner: [] for runner in runners}
    order = list(runners)
    for lines in samples.places(0, (steps + WARM_UP) * size, 0).reshape(-1, size):
        batch = encoded.batch(lines)
        for runner in order:
            began = time.process_time()
            runners[runner](lines, batch)
            seconds[runner].append(time.process_time() - began)
        order.append(order.pop(0))
    sums = {runner: sum(found[WARM_UP:]) for runner, found in seconds.items()}
    return {
        "shape": name,
        "parameters": shape.parameters(len(agent.alphabet)),
        "steps": steps,
        "milliseconds": {runner: 1000 * total / steps for runner, total in sums.items()},
        "ratio": {runner: sums[runner] / sums["ours"] for runner in ("bare", "transformers")},
    }


def _bare(model: torch.nn.Module, logits_of: Callable, settings: Settings) -> Step:
    """A loop as anybody writes it: forward, backward, AdamW, and nothing looked at."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=BETAS, fused=True)

    def step(_: np.ndarray, batch: Batch) -> None:
        logits_NV = logits_of(torch.from_numpy(batch.tokens_BT))
        loss = F.cross_entropy(logits_NV, torch.from_numpy(batch.labels_BT).view(-1), ignore_index=NO_LABEL)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def arena_text(result: dict[str, Any]) -> str:
    return "\n".join(
        f"{case['shape']}, {case['parameters']:,} parameters, {case['steps']} steps: the arena takes "
        f"{case['milliseconds']['ours']:.2f} ms a step, {case['ratio']['bare']:.3f} x as fast as a bare loop "
        f"({case['milliseconds']['bare']:.2f} ms), {case['ratio']['transformers']:.3f} x as fast as one over transformers' "
        f"Qwen3 ({case['milliseconds']['transformers']:.2f} ms)"
        for case in result["cases"]
    )
