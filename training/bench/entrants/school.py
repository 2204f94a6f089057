"""One school as the product runs it: gate, queue, battle, on a hero that hatched from the weights that all begin with."""

import time
from pathlib import Path
from typing import Any

import core.references
from core import graders
from core.learning_rate import SHARES
from training.bench.entrants.ours import timed
from training.bench.entrants.stopwatch import Stopwatch
from training.bench.entrants.task import Task
from training.bench.hall import Hall
from training.bench.material import MAX_LENGTH, NEVER, OPTIMIZER, SEED
from training.bench.school_work import GRADER, read_rows, vowels


def run(task: Task) -> dict[str, Any]:
    school, load = task.options["school"], task.options["load"]
    graders.OWN[GRADER] = vowels
    stopwatch, references = Stopwatch(task.started, 0, task.steps), _References()
    hall = Hall(
        Path(task.root), SEED, batch_size=load["rows"], max_length=MAX_LENGTH, eval_steps=NEVER, validation_fraction=0.0,
        learning_rate=task.material.size.learning_rate * SHARES.get(school, 1.0),
        trainer={**OPTIMIZER, "warmup_steps": 0, "bf16": False, "torch_compile": False},
    )  # fmt: skip
    core.references.write_references = references
    timed(hall.worker, stopwatch)
    own = {
        "champion": {"num_generations": load["answers"], "max_new_tokens": load["answer_tokens"]},
        "whisper": {"teacher": "teacher"},
    }.get(school, {})
    hall.fight("bench", read_rows(hall.paths.root), school=school, schools={school: own} if own else {})
    return stopwatch.result() | {"reference_seconds": references.seconds}


class _References:
    """Writes the parent's log-probabilities as ever, and says how long that took."""

    seconds = 0.0
    _write = staticmethod(core.references.write_references)

    def __call__(self, *args: Any) -> None:
        began = time.monotonic()
        self._write(*args)
        self.seconds += time.monotonic() - began
