"""The product itself: the resident hero wakes up in its realm, finds the quest, fights it, and reports as ever."""

import threading
from collections.abc import Callable
from typing import Any

import torch

from training.bench.entrants.stopwatch import Stopwatch
from training.bench.entrants.task import Task


def run(task: Task, stopwatch: Stopwatch) -> torch.nn.Module:
    from core.config import load_config
    from core.ledger import Ledger
    from core.worker import Worker

    paths = task.material.paths
    config = load_config(paths.config)
    config = config.model_copy(update={"trainer": config.trainer | {"bf16": task.precision == "bf16"}})
    worker = Worker(paths, config, Ledger(paths.ledger), threading.Event(), lambda: None)
    worker.awaken()
    trainer = worker.trainer
    fight, compiled = trainer.fight, task.options.get("compiled", False)
    trainer.fight = lambda *battle, **options: fight(*battle, **options | {"compiled": compiled})
    timed(worker, stopwatch)
    worker.loop()
    worker.end_writing()
    return trainer.model


def timed(worker: Any, stopwatch: Stopwatch) -> None:
    """The next battle of `worker` is timed from its begin on."""
    worker.report.begin = _then(stopwatch.begin, worker.report.begin)
    worker.report.step = _also(worker.report.step, lambda facts: stopwatch.step(facts.tokens))


def _then(first: Callable[[], None], second: Callable[..., Any]) -> Callable[..., Any]:
    """Calls `first`, then `second` with what it is given."""

    def both(*args: Any) -> Any:
        first()
        return second(*args)

    return both


def _also(first: Callable[..., Any], second: Callable[..., None]) -> Callable[..., Any]:
    """Calls both with what it is given, and answers what `first` does."""

    def both(*args: Any) -> Any:
        answer = first(*args)
        second(*args)
        return answer

    return both
