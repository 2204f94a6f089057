"""A throw-away realm with its real processes: started, watched from outside as a user would, ended. It harms nothing."""

import json
import os
import random
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import psutil

from core.durable import read_json, write_json
from core.errors import RealmError
from core.inbox import drop
from core.ledger import Ledger
from core.paths import CHECKOUT, RealmPaths
from core.training_queue import TrainingQueue
from training import ports

PATIENCE = 120.0
Found = TypeVar("Found")


def until(found: Callable[[], Found], seconds: float = PATIENCE) -> Found:
    """The first true answer. Raises RealmError after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := found():
            return answer
        time.sleep(0.02)
    raise RealmError(f"{found.__qualname__} did not come true within {seconds:.0f} s")


class LiveRealm:
    """The realm in `root`; `inside`: a control group that all of it runs in."""

    def __init__(self, root: Path, **settings: Any):
        self.paths, self.supervisor = RealmPaths(root), None
        self.paths.make()
        if not self.paths.config.exists():
            write_json(self.paths.config, {"idle_generation": {"enabled": False}, **settings})
        self.ledger = Ledger(self.paths.ledger)

    def start(self, inside: Path | None = None) -> psutil.Process:
        """Its supervisor; returns when the Tavern answers."""
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        command = [sys.executable, "-m", "training.watchdog_process", "--root", str(self.paths.root)]
        enter = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(inside)] if inside else []
        with open(self.paths.logs / "watchdog.out", "ab") as output:
            self.process = subprocess.Popen(
                [*enter, *command, "--port", str(self.port)], cwd=CHECKOUT, stdout=output, stderr=output
            )
        self.supervisor = psutil.Process(self.process.pid)
        until(lambda: ports.answers("127.0.0.1", self.port, "/healthz"))
        return self.supervisor

    def drop(self, stem: str, rows: int, words: int, rng: random.Random, **sidecar: Any) -> None:
        """A quest of `rows` rows, whose answers have `words` numbers."""
        with drop(self.paths, f"{stem}.jsonl", sidecar=sidecar or None) as file:
            for _ in range(rows):
                answer = " ".join(str(rng.randrange(10)) for _ in range(words))
                row = {"question": f"What comes after {rng.randrange(10**9)}?", "answer": answer}
                file.write(json.dumps(row).encode() + b"\n")

    def snapshot(self) -> dict[str, Any]:
        """What the trainer shows of itself."""
        return read_json(self.paths.status, {})

    def place(self, stem: str) -> str | None:
        """The folder that a quest lies in."""
        queue = TrainingQueue(self.paths, self.ledger)
        row = self.ledger.one("SELECT id FROM quests WHERE stem=? ORDER BY id DESC", (stem,))
        try:
            return queue.find(row["id"]).state if row else None
        except RealmError:
            return None

    def trainer(self) -> psutil.Process | None:
        """The trainer's process, as the supervisor's table has it."""
        for service in (read_json(self.paths.services) or {"services": []})["services"]:
            if service["name"] == "trainer" and service["pid"] and psutil.pid_exists(service["pid"]):
                return psutil.Process(service["pid"])
        return None

    def steps(self) -> list[sqlite3.Row]:
        """Recorded steps (step, time, loss, tokens) in their order."""
        with closing(sqlite3.connect(f"file:{self.paths.metrics}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT step, time, loss, tokens FROM steps ORDER BY step").fetchall()

    def crashes(self) -> list[dict[str, Any]]:
        return [event["data"] for event in self.ledger.events(limit=10_000) if event["code"] == "crash"]

    def family(self) -> list[psutil.Process]:
        """Its supervisor and all that it, or its services, began."""
        try:
            return [self.supervisor, *self.supervisor.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def living(self, family: list[psutil.Process]) -> list[str]:
        """Who of `family` still runs, and who else says that this realm is its own."""
        words = " ".join(("--root", str(self.paths.root), ""))
        mine = [
            each for each in psutil.process_iter(["cmdline"]) if words in " ".join([*(each.info["cmdline"] or []), ""])
        ]
        return sorted(
            {_name(process) for process in (*family, *mine) if process.pid != os.getpid() and _lives(process)}
        )

    def stop(self) -> None:
        """As `stop-all` does it."""
        if self.supervisor is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(PATIENCE)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _name(process: psutil.Process) -> str:
    try:
        return f"{process.pid}: {' '.join(process.cmdline()[1:4])}"
    except psutil.Error:
        return str(process.pid)
