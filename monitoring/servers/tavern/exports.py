"""Exports that a visitor asked for: `vault export` in a process of its own, one at a time, ended with the Tavern.

It knows nothing about models: the command line does the work, and an event in the ledger tells the end.
"""

import subprocess
import sys
import threading
from pathlib import Path

from core.ledger import Ledger
from core.paths import CHECKOUT, RealmPaths


class Exports:
    """`start` one, unless one is on its way; `close` ends it."""

    def __init__(self, paths: RealmPaths):
        self._paths = paths
        self._lock = threading.Lock()
        self._child: subprocess.Popen | None = None

    def start(self, checkpoint: str) -> Path | None:
        """The folder that it makes; None while another is on its way."""
        with self._lock:
            if self._child is not None and self._child.poll() is None:
                return None
            self._child = subprocess.Popen(
                [sys.executable, "-m", "training", "vault", "export", checkpoint, "--root", str(self._paths.root)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                cwd=CHECKOUT,
            )
            threading.Thread(target=self._await, args=(self._child, checkpoint), daemon=True).start()
            return self._paths.exports / checkpoint

    def _await(self, child: subprocess.Popen, checkpoint: str) -> None:
        """A success tells of itself; a failure is told here."""
        said = child.communicate()[1].strip().splitlines()
        if child.returncode > 0:
            ledger = Ledger(self._paths.ledger)
            why = said[-1] if said else f"it ended with {child.returncode}"
            ledger.event("vault", "export_failed", f"{checkpoint} was not exported: {why}", "warning")
            ledger.close()

    def close(self) -> None:
        with self._lock:
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()
                self._child.wait()
