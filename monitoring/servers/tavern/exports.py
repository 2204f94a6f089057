"""Exports that a visitor asked for: `vault export` in a process of its own, one at a time, ended with the Tavern.

It knows nothing about models: the command line does the work and says how far it is, and an event in the ledger tells the end.
"""

import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError
from core.ledger import Ledger
from core.paths import CHECKOUT, RealmPaths
from management.export import LONG_NAMES

COOLDOWNS = ("auto", "0")
SAID_CHARACTERS = 300


@dataclass(frozen=True)
class Wanted:
    """How a checkpoint is exported; `dtype` None: the hero's own kind of numbers."""

    cooldown: str = "auto"
    dtype: str | None = None

    def __post_init__(self) -> None:
        if self.cooldown not in COOLDOWNS and not (self.cooldown.isascii() and self.cooldown.isdecimal()):
            raise UserError(f"cooldown = {self.cooldown[:40]!r}: give a number of steps, auto, or 0 for none")
        if self.dtype not in (None, *LONG_NAMES):
            raise UserError(f"dtype = {self.dtype[:40]!r}: known are {', '.join(LONG_NAMES)}")

    @property
    def flags(self) -> list[str]:
        return ["--cooldown", self.cooldown[:9], *(("--dtype", self.dtype) if self.dtype else ())]


class Exports:
    """`start` one, unless one is on its way; `running` says which, `said` how far it is; `close` ends it."""

    def __init__(self, paths: RealmPaths):
        self._paths = paths
        self._lock = threading.Lock()
        self._child: subprocess.Popen | None = None
        self._checkpoint: str | None = None
        self._closed = False
        self.said = ""

    @property
    def running(self) -> str | None:
        """The checkpoint that is being exported."""
        return self._checkpoint if self._child is not None and self._child.poll() is None else None

    def word(self) -> str:
        """It changes whenever there is something new to be told."""
        return f"{self.running} {self.said}" if self.running else "none"

    def start(self, checkpoint: str, wanted: Wanted | None = None) -> Path | None:
        """The folder that it makes; None while another is on its way."""
        flags = (wanted or Wanted()).flags
        with self._lock:
            if self.running or self._closed:
                return None
            command = [sys.executable, "-m", "training", "vault", "export", checkpoint, "--root", str(self._paths.root)]
            self._child = subprocess.Popen(
                [*command, *flags],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=CHECKOUT,
            )
            self._checkpoint, self.said = checkpoint, "begins"
            threading.Thread(target=self._await, args=(self._child, checkpoint), daemon=True).start()
            return self._paths.exports / checkpoint

    def _await(self, child: subprocess.Popen, checkpoint: str) -> None:
        """A success tells of itself; a failure is told here."""
        last = ""
        with child.stderr:
            for line in child.stderr:
                if text := line.strip():
                    last = self.said = text[:SAID_CHARACTERS]
        if child.wait() != 0 and not self._closed:
            ledger = Ledger(self._paths.ledger)
            why = last or f"it ended with {child.returncode}"
            ledger.event(
                "vault", "export_failed", f"{checkpoint} was not exported: {why}", "warning", checkpoint=checkpoint
            )
            ledger.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._child is not None and self._child.poll() is None:
                self._child.terminate()
                self._child.wait()
