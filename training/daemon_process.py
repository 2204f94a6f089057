"""The daemon's process: parses its arguments, wires inbox and housekeeping together, runs until told to stop."""

import argparse
import shutil
import sys
import time
from pathlib import Path

from core.config import Config, load_config
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from core.training_daemon import TrainingDaemon
from management.retention import retain
from management.trash import empty
from safety.lifeline import Lifeline
from training.backup_process import Backups
from training.patience import when_right


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.daemon_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args(argv)
    paths = RealmPaths(options.root)
    lifeline = Lifeline(paths, "daemon", options.parent)
    start_logging(paths, "daemon")
    ledger = Ledger(paths.ledger)
    config = when_right(lambda: load_config(paths.config), "config_wrong", "daemon", ledger, lifeline)
    if config is None:
        return 0
    backups = Backups(paths, config, ledger)
    daemon = TrainingDaemon(
        paths,
        config,
        ledger,
        time.monotonic,
        lifeline.beat,
        housekeeping=lambda: _keep_house(paths, config, ledger, backups),
    )
    try:
        daemon.run(lifeline.should_exit)
    finally:
        backups.close()
    return 0


def _keep_house(paths: RealmPaths, config: Config, ledger: Ledger, backups: Backups) -> None:
    retain(paths, config.retention, ledger)
    empty(paths, room_is_short=shutil.disk_usage(paths.root).free < config.disk.reserve_bytes)
    backups.turn()


if __name__ == "__main__":
    sys.exit(main())
