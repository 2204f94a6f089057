"""The trainer's process: parses its arguments, hands on how the last life ended, runs the resident hero."""

import argparse
import gc
import os
import sys
from pathlib import Path

from core.config import load_config
from core.dossier import Crash
from core.full_disk import Reserve
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from safety.lifeline import Lifeline
from training.patience import when_right

ROOM_SECONDS = 0.5
EXPENDABLE = 500  # when memory runs out: it goes on from its last checkpoint, others would lose more


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.trainer_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args(argv)
    paths = RealmPaths(options.root)
    lifeline = Lifeline(paths, "trainer", options.parent, EXPENDABLE)
    lifeline.enter("setup")
    start_logging(paths, "trainer")
    reserve = Reserve(paths)
    # The trainer shares its cores with its neighbours: a thread that waits for another must sleep, not spin.
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true", OMP_WAIT_POLICY="passive")
    # What torch.compile made is found again after a restart; it compiles here, not in a pool of processes.
    os.environ.update(TORCHINDUCTOR_CACHE_DIR=str(paths.kernels), TORCHINDUCTOR_COMPILE_THREADS="1")
    ledger = Ledger(paths.ledger, lambda: _make_room(reserve, lifeline))
    gc.disable()  # while modules are imported there is nothing to be found, and looking takes a fifth of the time
    from core.worker import Worker  # and torch with it, which takes seconds

    gc.freeze()
    gc.enable()

    def awaken():
        crash = Crash.told(os.environ.get("REALM_LAST_CRASH", ""))
        config = load_config(paths.config)
        worker = Worker(paths, config, ledger, lifeline.should_exit, lifeline.beat, crash, lifeline.enter)
        worker.awaken()
        return worker

    if worker := when_right(awaken, "hero_unclear", "trainer", ledger, lifeline):
        worker.run()
    return 0


def _make_room(reserve: Reserve, lifeline: Lifeline) -> bool:
    """For the ledger on a full disk: the reserve, and when that is used up, time. The hero waits where it is."""
    lifeline.beat()
    return reserve.release() or not lifeline.should_exit.wait(ROOM_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
