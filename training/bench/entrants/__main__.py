"""One contestant in a process of its own: `python -m training.bench.entrants TASK.json RESULT.json`."""

import sys
from importlib import import_module
from pathlib import Path

import orjson
import torch

from training.bench.entrants.score import held_out_loss
from training.bench.entrants.stopwatch import Stopwatch
from training.bench.entrants.task import Task
from training.bench.standing import warm_up

UNSCORED = ("weights", "roofline", "school", "trl_school")  # they answer by themselves


def main() -> None:
    task = Task(**orjson.loads(Path(sys.argv[1]).read_bytes()))
    torch.set_num_threads(task.threads)
    entrant = import_module(f"{__package__}.{task.entrant}")
    if task.entrant in UNSCORED:
        result = entrant.run(task)
    else:
        stopwatch = Stopwatch(task.started, warm_up(task.steps), task.steps, task.turns)
        model = entrant.run(task, stopwatch)
        result = stopwatch.result() | {"held_out_loss": held_out_loss(task, model)}
    Path(sys.argv[2]).write_bytes(orjson.dumps(result))


main()
