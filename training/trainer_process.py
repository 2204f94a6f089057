"""The trainer's process: parses its arguments, shows that it lives while torch loads, runs the resident hero."""

import argparse
import os
import sys
import threading
from pathlib import Path

from core.config import load_config
from core.full_disk import Reserve
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from safety.lifeline import Lifeline
from training.patience import when_right

ROOM_SECONDS = 0.5


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.trainer_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args(argv)
    paths = RealmPaths(options.root)
    lifeline = Lifeline(paths, "trainer", options.parent)
    start_logging(paths, "trainer")
    lifeline.beat()
    reserve = Reserve(paths)
    # The trainer shares its cores with its neighbours: a thread that waits for another must sleep, not spin.
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="true", OMP_WAIT_POLICY="passive")
    # What torch.compile made is found again after a restart; it compiles here, not in a pool of processes.
    os.environ.update(TORCHINDUCTOR_CACHE_DIR=str(paths.kernels), TORCHINDUCTOR_COMPILE_THREADS="1")
    ledger = Ledger(paths.ledger, lambda: _make_room(reserve, lifeline))
    worker_class = _load(lifeline)

    def awaken():
        worker = worker_class(
            paths,
            load_config(paths.config),
            ledger,
            lifeline.should_exit,
            lifeline.beat,
            os.environ.get("REALM_LAST_EXIT", ""),
        )
        worker.awaken()
        return worker

    if worker := when_right(awaken, "hero_unclear", "trainer", ledger, lifeline):
        worker.run()
    return 0


def _make_room(reserve: Reserve, lifeline: Lifeline) -> bool:
    """For the ledger on a full disk: the reserve, and when that is used up, time. The hero waits where it is."""
    lifeline.beat()
    return reserve.release() or not lifeline.should_exit.wait(ROOM_SECONDS)


def _load(lifeline: Lifeline) -> type:
    """The Worker's class, and torch with it; the import takes seconds, in which the heartbeat must not stand still."""
    loaded = threading.Event()

    def beat_meanwhile() -> None:
        while not loaded.wait(1.0):
            lifeline.beat()

    threading.Thread(target=beat_meanwhile, daemon=True).start()
    try:
        from core.worker import Worker

        return Worker
    finally:
        loaded.set()


if __name__ == "__main__":
    sys.exit(main())
