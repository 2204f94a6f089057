"""Battles of the arena that a visitor asked for: `arena battle` in a process of its own, one at a time, ended with the Tavern.

It knows nothing about agents: the command line does the work, and how far it is stands in the arena's own folder.
"""

import os
import subprocess
import sys
import threading
from dataclasses import dataclass

from core.paths import CHECKOUT, RealmPaths

NICENESS = "19"  # whoever trains the hero goes first
SAID_CHARACTERS = 400
BROKEN_OFF = "The battle was broken off; nothing of it counts."


@dataclass(frozen=True)
class Challenge:
    """Who fights whom over how many steps."""

    one: str
    other: str
    steps: int
    equal_energy: bool = False

    @property
    def words(self) -> list[str]:
        return [self.one, self.other, str(self.steps), *(["--equal-energy"] if self.equal_energy else [])]


class ArenaBattles:
    """`start` one, unless one is fought; `problem` says why the last one came to nothing; `stop` and `close` end it."""

    def __init__(self, paths: RealmPaths):
        self._paths = paths
        self._lock = threading.Lock()
        self._child: subprocess.Popen | None = None
        self._closed = self._stopped = False
        self.challenge: Challenge | None = None
        self.problem = ""

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    @property
    def pid(self) -> int | None:
        """Of the process that fights, as it signs what it tells."""
        return self._child.pid if self.running else None

    def word(self) -> str:
        """It changes whenever there is something new to be told."""
        return f"{self.running} {self.problem}"

    def start(self, challenge: Challenge) -> bool:
        """Whether it begins; not while another is fought."""
        with self._lock:
            if self.running or self._closed:
                return False
            command = [sys.executable, "-m", "training", "arena", "battle", *challenge.words, "--json"]
            command += ["--root", str(self._paths.root), "--parent", str(os.getpid())]
            self._child = subprocess.Popen(
                ["nice", "-n", NICENESS, *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                cwd=CHECKOUT,
            )
            self.challenge, self.problem, self._stopped = challenge, "", False
            threading.Thread(target=self._await, args=(self._child,), daemon=True).start()
            return True

    def _await(self, child: subprocess.Popen) -> None:
        with child.stderr:
            said = [text for line in child.stderr if (text := line.strip())]
        if (code := child.wait()) == 0 or self._closed:
            return
        if self._stopped:
            self.problem = BROKEN_OFF
        else:
            self.problem = (said[-1] if said else f"It ended with {code}.")[:SAID_CHARACTERS]

    def stop(self) -> None:
        """Break the battle off, between two steps; nothing of it counts."""
        with self._lock:
            if self.running:
                self._stopped = True
                self._child.terminate()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self.running:
                self._child.terminate()
                try:
                    self._child.wait(10)
                except subprocess.TimeoutExpired:
                    self._child.kill()
                    self._child.wait()
