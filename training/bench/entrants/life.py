"""How a life begins and ends that is led in a process of its own: a task is read, what came of it is written. It knows no life."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import torch


def lead(life: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """`python -m MODULE TASK.json RESULT.json`, as `launch.lived` starts it; the task names the `threads`."""
    task = orjson.loads(Path(sys.argv[1]).read_bytes())
    torch.set_num_threads(task["threads"])
    gc.freeze()  # the Trainer collects garbage before every battle and need not look at what was loaded
    Path(sys.argv[2]).write_bytes(orjson.dumps(life(task)))
