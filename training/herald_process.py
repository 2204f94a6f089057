"""The herald's process: parses its arguments, has alerts told to others until told to stop, shows that it lives."""

import argparse
import sys
import time
from pathlib import Path

from core.config import load_config
from core.full_disk import Reserve, spared
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from monitoring.herald import Herald
from safety.lifeline import Lifeline
from training.patience import when_right

OOM_SCORE = 800  # when memory runs out, before the trainer
LOOK_SECONDS = 1.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.herald_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args(argv)
    paths = RealmPaths(options.root)
    lifeline = Lifeline(paths, "herald", options.parent, OOM_SCORE)
    start_logging(paths, "herald")
    ledger = Ledger(paths.ledger, Reserve(paths).release)
    config = when_right(lambda: load_config(paths.config), "config_wrong", "herald", ledger, lifeline)
    if config is None:
        return 0
    herald = Herald(paths, config.alerts, config.hero.name, ledger)
    while not lifeline.should_exit.is_set():
        lifeline.beat()
        with spared(paths.state):
            herald.turn(time.monotonic())
        lifeline.should_exit.wait(LOOK_SECONDS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
