"""`bench tavern`: a realm in battle with a long past, a crowd before its Tavern; what the Tavern takes, how soon it answers.

Everything is real: the supervisor and its services, a micro hero in battle, sockets. The realm is thrown away.
"""

import asyncio
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from core.durable import read_json
from training.bench.faults_realm import LiveRealm, until
from training.bench.machine import describe_machine
from training.bench.tavern_crowd import ASKED, Crowd, share
from training.bench.tavern_ground import fill_ledger, fill_record
from training.terminal import bytes_text, styled, table

HOME_TURNS = 20
FREE_SECONDS = 10.0
EVENT_SECONDS = 1.0
P95_SECONDS, CORES, HOME_SECONDS = 0.2, 0.15, 0.1


@dataclass(frozen=True)
class TavernOptions:
    """`stalled` of the `listeners` take nothing of what they are sent."""

    minutes: float = 5.0
    pollers: int = 20
    listeners: int = 200
    stalled: int = 20
    steps: int = 1_000_000
    quests: int = 10_000


QUICK = TavernOptions(minutes=1 / 6, pollers=5, listeners=30, stalled=5, steps=20_000, quests=500)


def run_tavern(options: TavernOptions, say: Callable[[str], None], threads: int = 1) -> dict[str, Any]:
    """The bench, as the JSON that `--json` prints."""
    with tempfile.TemporaryDirectory(prefix="bench-tavern-") as folder:
        realm = LiveRealm(Path(folder), trainer={"torch_compile": False})  # the first step comes at once
        say(f"a past of {options.steps:,} steps and {options.quests:,} quests is written, and the realm wakes up")
        fill_record(realm.paths, options.steps, time.time())
        realm.start()
        try:
            _begin_battle(realm)
            fill_ledger(realm.paths, realm.ledger, options.quests, options.steps, time.time())
            measured = _measured(realm, options, say)
        finally:
            realm.stop()
    return {
        "bench": "tavern",
        "options": asdict(options),
        **measured,
        "machine": describe_machine(threads),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _begin_battle(realm: LiveRealm) -> None:
    """A battle that lasts longer than the bench."""
    realm.drop("endless", rows=2000, words=24, rng=random.Random(1), epochs=1000)

    def in_battle() -> bool:
        return ((realm.snapshot().get("battle") or {}).get("step") or 0) > 2

    until(in_battle)


def _measured(realm: LiveRealm, options: TavernOptions, say: Callable[[str], None]) -> dict[str, Any]:
    services = read_json(realm.paths.services)["services"]
    tavern = psutil.Process(next(service["pid"] for service in services if service["name"] == "tavern"))
    home = _home(tavern, realm.port)
    asyncio.run(_burst(realm.port))
    time.sleep(1.0)
    files, resident, spent, step = tavern.num_fds(), tavern.memory_info().rss, _spent(tavern), _step(realm)
    began = time.monotonic()
    crowd = Crowd(realm.port, options.pollers, options.listeners - options.stalled, options.stalled)
    say(
        f"{options.pollers} clients poll, {options.listeners} listen ({options.stalled} stalled), {options.minutes:.3g} min"
    )
    with _herald(realm):
        asyncio.run(crowd.stay(60 * options.minutes))
    lasted, left = time.monotonic() - began, time.monotonic()
    cores, steps = (_spent(tavern) - spent) / lasted, _step(realm) - step
    while (files_after := tavern.num_fds()) > files and time.monotonic() - left < FREE_SECONDS:
        time.sleep(0.05)
    every = [seconds for path in crowd.took.values() for seconds in path]
    return {
        "seconds": lasted,
        "home": home,
        "requests": len(every),
        "latency": _latency(every),
        "paths": {path: _latency(took) for path, took in crowd.took.items()},
        "cores": cores,
        "messages": crowd.told,
        "events": crowd.events,
        "torn": crowd.torn,
        "lost": crowd.lost,
        "files_before": files,
        "files_after": files_after,  # one that is asked later may meet a request's own
        "files_back_seconds": time.monotonic() - left,
        "resident_bytes": [resident, tavern.memory_info().rss],
        "battle_steps": steps,
        "load": psutil.getloadavg()[0],
    }


@contextmanager
def _herald(realm: LiveRealm) -> Iterator[None]:
    """Something happens every second, beside what the realm does by itself."""
    over = threading.Event()

    def cry() -> None:
        while not over.wait(EVENT_SECONDS):
            realm.ledger.event("bench", "herald", "Hear, hear.")

    thread = threading.Thread(target=cry)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def _burst(port: int) -> None:
    """Every thread of the Tavern has work at once, and what it opens is open."""
    crowd = Crowd(port, 0, 0, 0)
    await asyncio.gather(*(crowd.once(path) for path in ASKED * 4))


def _home(tavern: psutil.Process, port: int) -> dict[str, float]:
    """The home page asked for by one client: seconds until it is there, seconds that the Tavern computed for it, bytes."""
    crowd = Crowd(port, 0, 0, 0)
    took, size, spent = [], len(asyncio.run(crowd.once("/"))), _spent(tavern)
    for _ in range(HOME_TURNS):
        began = time.monotonic()
        size = len(asyncio.run(crowd.once("/")))
        took.append(time.monotonic() - began)
    computed = (_spent(tavern) - spent) / HOME_TURNS
    return {"median": median(took), "max": max(took), "computed": computed, "bytes": size}


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def _step(realm: LiveRealm) -> int:
    return realm.snapshot()["hero"]["global_step"]


def _latency(took: list[float]) -> dict[str, float]:
    return {
        "median": median(took),
        "p95": share(took, 0.95),
        "p99": share(took, 0.99),
        "max": max(took),
        "count": len(took),
    }


def promises(result: dict[str, Any]) -> list[tuple[str, str, bool]]:
    """What was promised of a full run, what was measured, whether it holds."""
    latency, home = result["latency"], result["home"]
    told_home = (
        f"{1000 * home['median']:.0f} ms, {1000 * home['computed']:.0f} ms computed, {bytes_text(home['bytes'])}"
    )
    files = f"{result['files_before']} before, {result['files_after']} {result['files_back_seconds']:.1f} s after"
    return [
        ("API p95 at most 200 ms", f"{1000 * latency['p95']:.0f} ms", latency["p95"] <= P95_SECONDS),
        ("the Tavern uses at most 0.15 core", f"{result['cores']:.3f} core", result["cores"] <= CORES),
        ("file descriptors back within 10 s", files, result["files_after"] <= result["files_before"]),
        (
            "every event once, in order",
            f"{result['torn']} torn, {result['lost']} lost",
            not (result["torn"] or result["lost"]),
        ),
        ("home page within 100 ms", told_home, home["median"] <= HOME_SECONDS),
    ]


def tavern_text(result: dict[str, Any]) -> str:
    options, machine = result["options"], result["machine"]
    crowd = f"{options['pollers']} polling, {options['listeners']} listening ({options['stalled']} stalled)"
    past = f"{options['steps']:,} steps and {options['quests']:,} quests on record"
    rows = [
        (path, each["count"], *(f"{1000 * each[part]:.0f} ms" for part in ("median", "p95", "p99", "max")))
        for path, each in [*sorted(result["paths"].items()), ("all", result["latency"])]
    ]
    return "\n".join(
        [
            f"{machine['cpu']}, {machine['cores']} cores, load {result['load']:.1f}",
            f"{crowd}, {result['seconds']:.0f} s, {past}, {result['battle_steps']} steps trained meanwhile",
            "",
            table(("", "answers", "median", "p95", "p99", "max"), rows),
            "",
            table(
                ("promise", "measured", ""),
                [
                    (name, told, styled("held", "green") if held else styled("broken", "red"))
                    for name, told, held in promises(result)
                ],
            ),
            f"{result['messages']:,} messages reached listeners, {result['events']:,} of them events; memory "
            + " -> ".join(map(bytes_text, result["resident_bytes"])),
        ]
    )
