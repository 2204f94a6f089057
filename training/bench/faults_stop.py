"""A realm told to end at random moments while pages listen to it; and a trainer that is killed, timed to its next new step."""

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from core.paths import CHECKOUT
from training.bench.faults_realm import LiveRealm, until

STREAMS = 5
LIMIT_SECONDS = 60.0
AWAKE_SECONDS = 8.0
SETTINGS = {"save_steps": 20, "eval_steps": 50, "batch_size": 8}


@dataclass(frozen=True)
class Ending:
    """One realm that was told to end. `doing`: what its trainer showed then; `left`: who still lived after a minute."""

    moment: float
    doing: str
    seconds: float
    left: tuple[str, ...]

    @property
    def held(self) -> bool:
        return not self.left and self.seconds <= LIMIT_SECONDS


def end_at_random_moments(
    root: Path, rng: random.Random, count: int, say: Callable[[str], None] = print, latest: float = AWAKE_SECONDS
) -> list[Ending]:
    """`count` times: start the realm in `root`, open streams, tell its supervisor to end (every fifth time by `stop-all`)."""
    realm, endings = LiveRealm(root, **SETTINGS), []
    for turn in range(count):
        if turn % 10 == 0:
            realm.drop(f"long-{turn}", 4000, 30, rng)
        moment = rng.uniform(0.0, latest)
        ending = ended(realm, lambda moment=moment: time.sleep(moment), by_verb=turn % 5 == 4)
        endings.append(ending)
        left = f", left: {'; '.join(ending.left)}" if ending.left else ""
        say(f"{turn + 1}: told after {moment:.1f} s ({ending.doing}), ended in {ending.seconds:.2f} s{left}")
    return endings


def ended(realm: LiveRealm, wait: Callable[[], object], by_verb: bool = False) -> Ending:
    """Start the realm, open streams, and tell it to end after `wait()`."""
    realm.start()
    started = time.monotonic()
    streams = [listen(realm.port, deaf=number == 0) for number in range(STREAMS)]
    wait()
    family, shown = realm.family(), realm.snapshot()
    doing = shown["state"] if shown and shown["time"] > realm.supervisor.create_time() else "starting"
    began = time.monotonic()
    moment = began - started
    if by_verb:
        command = [sys.executable, "-m", "training", "stop-all", "--root", str(realm.paths.root)]
        subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True)
    else:
        realm.supervisor.send_signal(signal.SIGTERM)
    while (left := realm.living(family)) and time.monotonic() - began < LIMIT_SECONDS + 5:
        realm.process.poll()
        time.sleep(0.02)
    seconds = time.monotonic() - began
    for stream in streams:
        stream.close()
    realm.process.wait(LIMIT_SECONDS)
    return Ending(moment, doing, seconds, tuple(left))


def listen(port: int, deaf: bool = False) -> socket.socket:
    """An open stream of events, its head read; `deaf`: one that takes nothing after that."""
    stream = socket.socket()
    if deaf:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    stream.settimeout(30)
    stream.connect(("127.0.0.1", port))
    stream.sendall(f"GET /api/events?after=0 HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    answer = stream.recv(64)
    assert answer.startswith(b"HTTP/1.1 200"), answer
    return stream


@dataclass(frozen=True)
class Recovery:
    """Seconds from the kill of a trainer to the first step it did again, and to the first that is new."""

    again: float
    new: float


def kill_in_battle(root: Path, rng: random.Random, count: int, say: Callable[[str], None] = print) -> list[Recovery]:
    """`count` times: SIGKILL the trainer in its battle, and wait for a step that was never done before."""
    realm, found = LiveRealm(root, **SETTINGS), []
    realm.drop("kills", 40_000, 10, rng)
    realm.start()
    try:
        until(lambda: realm.snapshot().get("state") == "battle" and realm.paths.metrics.exists() and realm.steps())
        for turn in range(count):
            time.sleep(rng.uniform(0.5, 4.0))
            done, killed = realm.steps()[-1][0], time.time()
            realm.trainer().kill()
            until(lambda done=done: realm.steps()[-1][0] > done)
            since = [(step, moment - killed) for step, moment, _, _ in realm.steps() if moment > killed]
            again, new = since[0][1], next(seconds for step, seconds in since if step > done)
            found.append(Recovery(again, new))
            say(f"{turn + 1}: a step again after {found[-1].again:.2f} s, a new one after {found[-1].new:.2f} s")
    finally:
        realm.stop()
    return found


def p95(seconds: list[float]) -> float:
    return sorted(seconds)[max(0, -(-95 * len(seconds) // 100) - 1)]
