"""Real processes for tests: the command line on a realm, a free port, waiting for what they do. It knows nothing of what they are for."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

from core.paths import CHECKOUT, RealmPaths


def cli(root: Path, *words: str, check: bool = True) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "training", *words, "--root", str(root)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=150, check=check)


def status(root: Path) -> dict:
    return json.loads(cli(root, "status", "--json").stdout)


def in_state(paths: RealmPaths, state: str, stem: str) -> list[Path]:
    return [path for path in paths.queued(state).glob(f"{stem}*.jsonl") if not path.name.endswith(".bad.jsonl")]


def until(happens, seconds: float = 90.0):
    """The first true answer of `happens`, asked again and again; fails after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := happens():
            return answer
        time.sleep(0.05)
    raise AssertionError(f"it did not happen within {seconds} s")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
