"""A running realm on a small file system that is filled to the brim, by bytes or by inodes, and freed again.

Promised: reading goes on, nothing is reported as done that is not, training goes on within a minute of there being room,
and nothing is lost or trained twice. It needs root for the file system (tmpfs), and says so where it may not have one.
"""

import contextlib
import errno
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core import checkpoints
from core.durable import write_json
from core.errors import CheckpointError, RealmError
from core.inbox import drop
from core.paths import CHECKOUT, QUEUE_STATES, RealmPaths
from core.quest import parse_name
from training.ports import next_free

DISK_BYTES, DISK_INODES = 512 << 20, 2000
KINDS = ("bytes", "inodes")
PROMISED_SECONDS = 60.0
PATIENCE = 120.0
PAGES = ("/api/status", "/", "/vault", "/quests", "/api/quests", "/healthz")
SETTINGS = {"idle_generation": {"enabled": False}, "batch_size": 16, "save_steps": 100, "eval_steps": 1000}


class Broken(RealmError):
    """The realm did not get as far as the trial needs it."""


@dataclass
class Round:
    """One filling. `resumed`: seconds from there being room to the first new step; `reads`: pages asked while it
    was full; `refused`: uploads that were told so."""

    kind: str
    full: float = 0.0
    resumed: float = 0.0
    reads: int = 0
    refused: int = 0
    findings: list[str] = field(default_factory=list)


def refusal() -> str | None:
    """Why no small file system can be had here, or None."""
    if os.geteuid() != 0:
        return "only root may make a small file system"
    with (
        tempfile.TemporaryDirectory(prefix="realm-disk-") as folder,
        contextlib.suppress(Broken),
        small_disk(Path(folder)),
    ):
        return None
    return "this machine lets nobody mount a tmpfs"


@contextlib.contextmanager
def small_disk(folder: Path, size: int = DISK_BYTES, inodes: int = DISK_INODES) -> Iterator[Path]:
    """A tmpfs of so many bytes and inodes at `folder`. Raises Broken where that is refused."""
    options = f"size={size},nr_inodes={inodes}"
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True)
    if made.returncode != 0:
        raise Broken(f"a tmpfs was refused: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path, kind: str) -> None:
    """Take all bytes, or all inodes, that are left."""
    folder.mkdir(exist_ok=True)
    try:
        if kind == "inodes":
            for _ in range(1 << 20):
                os.close(os.open(folder / os.urandom(8).hex(), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        with open(folder / "filling", "ab", buffering=0) as file:
            for piece in (1 << 20, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(piece)) == piece:
                        pass
    except OSError as problem:
        if problem.errno != errno.ENOSPC:
            raise


class RunningRealm:
    """A realm with its real processes, and what a visitor sees of it."""

    def __init__(self, paths: RealmPaths):
        self.paths, self.port = paths, next_free("127.0.0.1", random.randrange(20000, 50000))
        self.dropped: list[bytes] = []

    def command(self, *words: str) -> str:
        line = [sys.executable, "-m", "training", *words, "--root", str(self.paths.root)]
        done = subprocess.run(line, cwd=CHECKOUT, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode != 0:
            raise Broken(
                f"{' '.join(words)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()[-500:]}"
            )
        return done.stdout

    def ask(self, path: str, data: bytes | None = None) -> tuple[int, bytes]:
        """Status and body of what the Tavern answers; 0 where it does not."""
        address = f"http://127.0.0.1:{self.port}{path}"
        try:
            with urllib.request.urlopen(urllib.request.Request(address, data), timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as refused:
            return refused.code, refused.read()
        except OSError as problem:
            return 0, str(problem).encode()

    def status(self) -> dict[str, Any]:
        code, body = self.ask("/api/status")
        return json.loads(body) if code == 200 else {}

    def services(self) -> dict[str, Any]:
        return {each["name"]: (each["pid"], each["restarts"]) for each in self.status().get("services", [])}

    def step(self) -> int:
        return self.status().get("hero", {}).get("global_step") or 0

    def drop_quest(self, content: bytes) -> None:
        """Drop a quest, and wait until it is claimed, so that quests are numbered as they come."""
        with drop(self.paths, f"quest-{len(self.dropped):03d}") as file:
            file.write(content)
        self.dropped.append(content)
        until(lambda: len(self.quests()) >= len(self.dropped), "the quest's being claimed")

    def quests(self) -> dict[int, list[str]]:
        """In which folders each quest lies."""
        found: dict[int, list[str]] = {}
        for folder in (self.paths.claims, *map(self.paths.queued, QUEUE_STATES)):
            for path in folder.iterdir():
                if parsed := parse_name(path):
                    found.setdefault(parsed[1], []).append(folder.name)
        return found

    def is_done(self) -> bool:
        queue = self.status().get("queue", {})
        return bool(queue) and queue["recently_completed"] == len(self.dropped)


def sums(number: int, rows: int) -> bytes:
    """Quest `number`: sums in words."""
    chance, lines = random.Random(number), []
    for _ in range(rows):
        one, two = chance.randrange(1000), chance.randrange(1000)
        row = {"question": f"{number}: what is {one} plus {two}?", "answer": f"It is {one + two}."}
        lines.append(json.dumps(row).encode() + b"\n")
    return b"".join(lines)


def until(happens: Callable[[], Any], what: str, seconds: float = PATIENCE) -> float:
    """Wait for it; how many seconds it took. Raises Broken."""
    began = time.monotonic()
    while not happens():
        if time.monotonic() - began > seconds:
            raise Broken(f"{what} did not come within {seconds:.0f} s")
        time.sleep(0.1)
    return time.monotonic() - began


@contextlib.contextmanager
def running(root: Path) -> Iterator[RunningRealm]:
    """A realm in `root`, started, and stopped at the end."""
    paths = RealmPaths(root)
    paths.make()
    write_json(paths.config, SETTINGS)
    realm = RunningRealm(paths)
    realm.command("start-all", "--port", str(realm.port))
    try:
        yield realm
    finally:
        realm.command("stop-all")


def one_round(realm: RunningRealm, kind: str, hold: float, rows: int) -> Round:
    """Have a battle going, fill the disk, keep it full for a while, free it, and see the battle go on."""
    result, filling = Round(kind), realm.paths.root / "filling"
    if not (realm.status().get("queue") or {}).get("normal"):
        realm.drop_quest(sums(len(realm.dropped), rows))
    first, services = realm.step(), realm.services()
    until(lambda: realm.step() > first and realm.status().get("battle"), "a step before the filling")
    began = time.monotonic()
    fill(filling, kind)
    while (
        (held_up := realm.status().get("state")) != "blocked" or not result.refused or time.monotonic() - began < hold
    ):
        _look(realm, result)
        fill(filling, kind)  # what the reserve gave back, too
        if time.monotonic() - began > PROMISED_SECONDS:
            result.findings.append(f"state {held_up}, {result.refused} uploads refused: the battle did not wait")
            break
    result.full = time.monotonic() - began
    last = realm.step()
    for file in filling.iterdir():
        file.unlink()
    result.resumed = until(lambda: realm.step() > last, "a step after the filling")
    if result.resumed > PROMISED_SECONDS:
        result.findings.append(f"training went on only after {result.resumed:.0f} s")
    if (after := realm.services()) != services:
        result.findings.append(f"services were {services} and are {after}")
    return result


def _look(realm: RunningRealm, result: Round) -> None:
    """Read everything, and try to bring something in."""
    for page in PAGES:
        code, body = realm.ask(page)
        result.reads += 1
        if code != 200:
            result.findings.append(f"{page} answered {code}: {body[:200]!r}")
    more = sums(len(realm.dropped), 12)
    code, body = realm.ask("/api/quests?name=more.jsonl", more)
    result.refused += code == 507
    if code == 201:  # old checkpoints went just then, and there was room
        realm.dropped.append(more)
    elif code != 507:
        result.findings.append(f"an upload was answered with {code}: {body[:200]!r}")
    status = realm.status()
    if status.get("state") == "blocked" and not any(alert["code"] == "disk_low" for alert in status["alerts"]):
        result.findings.append("blocked, and no alert says why")


def losses(realm: RunningRealm) -> list[str]:
    """What of a realm that was stopped is lost, twice, or broken."""
    found = [f"quest {quest} lies in {places}" for quest, places in realm.quests().items() if len(places) != 1]
    if len(realm.quests()) != len(realm.dropped):
        found.append(f"{len(realm.dropped)} quests were dropped, {len(realm.quests())} are there")
    try:
        tip = checkpoints.verify(realm.paths.vault / (checkpoints.pointed(realm.paths.tip) or "none"))
    except CheckpointError as problem:
        return [*found, str(problem)]
    for quest, places in realm.quests().items():
        if (places == ["recently_completed"]) != checkpoints.holds(tip.trained, quest):
            found.append(f"quest {quest} lies in {places}, and the tip has trained {tip.trained}")
    with contextlib.closing(sqlite3.connect(realm.paths.metrics)) as metrics:
        count, low, high = metrics.execute("SELECT COUNT(*), MIN(step), MAX(step) FROM steps").fetchone()
        found += [f"{count} steps are recorded from {low} to {high}"] if count != high - low + 1 else []
    for path in (realm.paths.ledger, realm.paths.metrics):
        with contextlib.closing(sqlite3.connect(path)) as database:
            told = database.execute("PRAGMA integrity_check").fetchone()[0]
            found += [f"{path.name}: {told}"] if told != "ok" else []
    return found


def weights(paths: RealmPaths) -> str:
    return checkpoints.sha256_of(paths.current_model / "model.safetensors")


def fill_and_free(
    kinds: list[str],
    chance: random.Random,
    say: Callable[[str], None] = lambda text: None,
    rows: int = 3000,
    end: float = float("inf"),
    compare: bool = True,
) -> tuple[list[Round], list[str]]:
    """A round for each of `kinds` on one realm, until `end` (monotonic); then what was lost in all.

    `compare`: train everything to its end, and once more on a disk that nobody fills; the weights must be the same.
    """
    rounds: list[Round] = []
    with tempfile.TemporaryDirectory(prefix="realm-disk-") as folder, small_disk(Path(folder)) as root:
        with running(root / "realm") as realm:
            for kind in kinds:
                if time.monotonic() > end:
                    break
                rounds.append(one_round(realm, kind, chance.uniform(1.0, 8.0), rows))
                last = rounds[-1]
                say(
                    f"{kind}: full for {last.full:.1f} s, a new step {last.resumed:.1f} s after; {last.findings or 'held'}"
                )
            if compare:
                until(realm.is_done, "the end of all quests", 20 * PATIENCE)
        lost, trained = losses(realm), weights(realm.paths)
    if compare and trained != _undisturbed(realm.dropped):
        lost.append("the weights are not those of an undisturbed run")
    return rounds, lost


def _undisturbed(quests: list[bytes]) -> str:
    with tempfile.TemporaryDirectory(prefix="realm-disk-") as folder:
        with running(Path(folder)) as realm:
            for content in quests:
                realm.drop_quest(content)
            until(realm.is_done, "the end of all quests", 20 * PATIENCE)
        return weights(realm.paths)
