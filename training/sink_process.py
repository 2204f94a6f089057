"""A sink's process: parses its arguments, copies the numbers until told to stop, shows that it lives."""

import argparse
import os
import sys
import time
from pathlib import Path

from core.config import load_config
from core.full_disk import Reserve, spared
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from monitoring.sinks import SINKS, open_sink
from monitoring.sinks.copier import Copier
from safety.lifeline import Lifeline
from training.patience import when_right

OOM_SCORE, NICENESS = 900, 15  # the first to go when memory runs out, the last to be given a processor
LOOK_SECONDS = 2.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.sink_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    parser.add_argument("--sink", choices=SINKS, required=True)
    options = parser.parse_args(argv)
    paths, service = RealmPaths(options.root), f"sink_{options.sink}"
    lifeline = Lifeline(paths, service, options.parent, OOM_SCORE)
    os.nice(NICENESS)
    start_logging(paths, service)
    ledger = Ledger(paths.ledger, Reserve(paths).release)

    def begin() -> Copier:
        hero = load_config(paths.config).hero.name
        return Copier(paths, options.sink, hero, ledger, lambda after: open_sink(options.sink, paths.runs, hero, after))

    copier = when_right(begin, "sink_wrong", service, ledger, lifeline)
    if copier is None:
        return 0
    while not lifeline.should_exit.is_set():
        lifeline.beat()
        more = False
        with spared(paths.state):
            more = copier.turn(time.monotonic())
        lifeline.should_exit.wait(0.0 if more else LOOK_SECONDS)
    copier.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
