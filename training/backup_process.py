"""A backup's process, and the daemon's part in it: start one when it is due, beside training and with less right to the machine."""

import argparse
import logging
import os
import subprocess
import sys
import time
from pathlib import Path

from core.config import Config, load_config
from core.errors import RealmError
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import CHECKOUT, RealmPaths
from management.backup_schedule import back_up_and_prune, due, fail, wanted
from management.backup_target import Target
from safety.lifeline import end_with_parent

log = logging.getLogger(__name__)
NICENESS = 15
TOLD = 3  # exit code of a backup that failed and said so


class Backups:
    """One backup at a time; `turn` is called now and then and never blocks, `close` gives up the one that runs."""

    def __init__(self, paths: RealmPaths, config: Config, ledger: Ledger):
        self.paths, self.policy, self.ledger = paths, config.backup, ledger
        self._child: subprocess.Popen | None = None

    def turn(self) -> None:
        if self._child is not None:
            if (code := self._child.poll()) is None:
                return
            self._child = None
            if code not in (0, TOLD):
                problem = RealmError(f"its process ended with {code}; `logs backup` says why")
                fail(self.ledger, self.policy.to, problem)
        if due(self.paths, self.ledger, self.policy, time.time()):
            command = [sys.executable, "-m", "training.backup_process"]
            self._child = subprocess.Popen(
                [*command, "--root", str(self.paths.root), "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                cwd=CHECKOUT,
            )

    def close(self) -> None:
        """What was sent stays there; the next backup goes on with it."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            self._child.wait()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.backup_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args(argv)
    if not end_with_parent(options.parent):
        return 1
    os.nice(NICENESS)
    paths = RealmPaths(options.root)
    start_logging(paths, "backup")
    ledger, policy = Ledger(paths.ledger), load_config(paths.config).backup
    try:
        with Target(policy.to) as target:
            back_up_and_prune(paths, ledger, wanted(paths, policy), target, policy)
        return 0
    except RealmError as problem:
        fail(ledger, policy.to, problem)
        return TOLD


if __name__ == "__main__":
    sys.exit(main())
