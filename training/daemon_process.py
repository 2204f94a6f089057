"""The daemon's process: parses its arguments, wires inbox and housekeeping together, runs until told to stop."""

import argparse
import sys
import time
from pathlib import Path

from core.config import Config, load_config
from core.full_disk import Reserve
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from core.training_daemon import TrainingDaemon
from management.auto_disk_manager import AutoDiskManager, InBackground
from management.retention import Whole, retain
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
    ledger = Ledger(paths.ledger, Reserve(paths).release)
    config = when_right(lambda: load_config(paths.config), "config_wrong", "daemon", ledger, lifeline)
    if config is None:
        return 0
    whole = Whole(paths)
    prune = InBackground(paths, lambda room: _make_room(paths, config, ledger, whole, room))
    disk = AutoDiskManager(paths, config.disk, ledger, prune)
    backups = Backups(paths, config, ledger)

    def keep_house() -> None:
        prune()
        backups.turn()

    daemon = TrainingDaemon(paths, config, ledger, time.monotonic, lifeline.beat, keep_house, disk.turn)
    try:
        daemon.run(lifeline.should_exit)
    finally:
        backups.close()
    return 0


def _make_room(paths: RealmPaths, config: Config, ledger: Ledger, whole: Whole, room: int) -> None:
    """What lay in the trash long enough goes, all of it where `room` bytes are wanted, and then old checkpoints."""
    empty(paths, room_is_short=room > 0)
    retain(paths, config.retention, ledger, whole=whole, room=room)


if __name__ == "__main__":
    sys.exit(main())
