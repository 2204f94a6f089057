"""Lives of the trainer, each a process of its own that ends by SIGKILL where it is told to, or when all is trained.

`python tests/lives.py`, with the checkout in PYTHONPATH, reads one life a line, {"root", "threads", "end"}, and answers each
with its exit status. Torch is imported once, and nothing is computed before the fork.
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from resident import resident

from core import checkpoints
from core.between_steps import BetweenSteps
from core.forge.tensor_file import TensorFile
from core.ledger import Ledger
from core.paths import RealmPaths


def die_at(place: str, number: int) -> None:
    """Be killed at the `number`th step of a battle, file of a checkpoint (half of it written), or turn of the tip."""
    owner, name = {
        "step": (BetweenSteps, "after_step"),
        "file": (TensorFile, "write"),
        "tip": (checkpoints, "set_tip"),
    }[place]
    act, count = getattr(owner, name), 0

    def act_or_die(*args, **kwargs):
        nonlocal count
        count += 1
        if count == number:
            if place == "file":
                args[1].write_bytes(bytes(args[0]._memory[: args[0].length // 2]))
            os.kill(os.getpid(), signal.SIGKILL)
        return act(*args, **kwargs)

    setattr(owner, name, act_or_die)


def live(root: str, threads: int, end: list | None) -> None:
    torch.set_num_threads(threads)
    paths = RealmPaths(Path(root))
    worker = resident(paths, Ledger(paths.ledger), "-9")
    if end:
        die_at(*end)
    while worker.loop():
        pass
    worker.end_writing()


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            live(**json.loads(line))
            os._exit(0)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
