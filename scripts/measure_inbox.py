"""Measures what a realm does with a flood of files, or with one large file, in a throw-away realm without a trainer.

PYTHONPATH=. python scripts/measure_inbox.py --files 100000 [--seconds 400], or with --gigabytes 10

It prints how long the files take to leave the inbox and to be judged, the memory of the daemon with its readers, and how
quickly status and the page of quests answer meanwhile; with --prepared N also until the first N quests are tokenised.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import psutil

from core.paths import CHECKOUT, RealmPaths
from training.bench.chat_rows import rows


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def resident(process: psutil.Process) -> int:
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            total += each.memory_info().rss
    return total


def flood(folder: Path, count: int) -> None:
    """`count` files of one or two rows, made beside the inbox so that they come at once."""
    for number in range(count):
        row = {"question": f"What comes after {number}?", "answer": f"{number + 1} does."}
        (folder / f"flood {number:06d}.jsonl").write_text((json.dumps(row) + "\n") * (1 + number % 2))


def large(path: Path, size: float) -> None:
    """One file of chat rows, no two of them alike."""
    base = [json.dumps(row).encode()[:-1] for row in rows(1500, 1006, 7, lambda row: len(str(row)) // 4)]
    number = written = 0
    with open(path, "wb") as file:
        while written < size:
            block = b"".join(b'%s, "id": %d}\n' % (row, number + place) for place, row in enumerate(base))
            number += len(base)
            written += file.write(block)


def answer(port: int, path: str) -> float:
    began = time.monotonic()
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=60) as reply:
        reply.read()
    return time.monotonic() - began


def watch(paths: RealmPaths, daemon: psutil.Process, port: int, seconds: float, done) -> dict:
    """Ask and weigh twice a second until `done` or the time is over."""
    began, most, taken, last = time.monotonic(), 0, None, 0.0
    times: dict[str, list[float]] = {"/api/status": [], "/quests": []}
    while (now := time.monotonic() - began) < seconds and not done():
        most = max(most, resident(daemon))
        if taken is None and not any(name.endswith(".jsonl") for name in os.listdir(paths.inbox)):
            taken = now
            print(f"inbox empty after {taken:.1f} s", flush=True)
        for path, spent in times.items():
            spent.append(answer(port, path))
        if now - last > 20:
            last = now
            counts = {folder.name: len(os.listdir(folder)) for folder in (paths.claims, paths.queued("normal"))}
            print(f"{now:5.0f} s {most >> 20} MiB {counts}", flush=True)
        time.sleep(0.3)
    p95 = {path: round(sorted(spent)[int(0.95 * (len(spent) - 1))], 3) for path, spent in times.items() if spent}
    return {"seconds": now, "inbox_empty_after": taken, "most_mib": most >> 20, "p95": p95}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--files", type=int, default=0)
    parser.add_argument("--gigabytes", type=float, default=0)
    parser.add_argument("--prepared", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=400)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="measure-inbox-") as folder:
        paths, outside = RealmPaths(Path(folder) / "realm"), Path(folder) / "outside"
        paths.make()
        outside.mkdir()
        paths.config.write_text('{"idle_generation": {"enabled": false}}')
        if args.files:
            flood(outside, args.files)
        else:
            large(outside / "large.jsonl", args.gigabytes * 1e9)
        wanted, port = len(os.listdir(outside)), free_port()
        start = [sys.executable, "-m"]
        root = ["--root", str(paths.root)]
        with contextlib.ExitStack() as stack:
            daemon = subprocess.Popen([*start, "training.daemon_process", *root], cwd=CHECKOUT)
            stack.callback(daemon.kill)
            tavern = subprocess.Popen([*start, "training.tavern_process", *root, "--port", str(port)], cwd=CHECKOUT)
            stack.callback(tavern.kill)
            time.sleep(4)
            for path in outside.iterdir():
                os.rename(path, paths.inbox / path.name)
            found = watch(
                paths, psutil.Process(daemon.pid), port, args.seconds,
                lambda: len(list(os.scandir(paths.queued("normal")))) >= 3 * wanted,
            )  # fmt: skip
            found["accepted"] = len(list(paths.queued("normal").glob("*.report.json")))
            if args.prepared:
                print(json.dumps(found), flush=True)
                ready = lambda: len([*paths.prepared.glob("[!.]*")]) >= args.prepared  # noqa: E731
                found["prepared"] = watch(paths, psutil.Process(daemon.pid), port, args.seconds, ready)
        print(json.dumps(found))
        shutil.rmtree(paths.root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
