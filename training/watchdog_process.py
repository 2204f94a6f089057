"""The supervisor's process: takes the realm's lock, says which services there are and how each begins, watches them."""

import argparse
import logging
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from core.checkpoints import pointed
from core.config import load_config
from core.durable import read_json, write_json
from core.errors import RealmError, UserError
from core.full_disk import Reserve
from core.heartbeat import SILENCE, read_beat
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import CHECKOUT, RealmPaths
from core.realm_lock import Holder, held
from safety.child import Child, await_orphans
from safety.daemon_watchdog import Service, Watchdog
from safety.evidence import KernelLog
from safety.lifeline import Lifeline

log = logging.getLogger("watchdog")

TRAINER_GRACE = 55.0  # the realm has ended a minute after it was told to
SPARED = -500  # of the kernel's choice when memory runs out; a service says its own
BEAT_SECONDS = 1.0


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.watchdog_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, help="the Tavern's port instead of config.json's")
    options = parser.parse_args(argv)
    paths = RealmPaths(options.root)
    start_logging(paths, "watchdog")
    try:
        supervise(paths, options.port)
    except RealmError as problem:
        log.error("%s", problem)
        return 1
    return 0


def supervise(
    paths: RealmPaths,
    port: int | None = None,
    observe: Callable[[], None] = lambda: None,
    kept: list[Service] | None = None,
) -> None:
    """Run the realm in this process until SIGTERM, SIGINT or SIGHUP; `observe` is called every turn.

    `kept`: other services than a realm's own. Raises RealmBusy where the realm runs already.
    """
    port = port or load_config(paths.config).tavern.port
    with held(paths, port) as me:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever began us may have ignored it, and exit codes with it
        lifeline = Lifeline(paths, "watchdog", oom_score=SPARED)
        signal.signal(signal.SIGHUP, lambda *_: lifeline.should_exit.set())
        await_orphans(paths.services, TRAINER_GRACE)
        paths.oracle_wish.unlink(missing_ok=True)  # of a life before: nobody waits for it any more
        ledger = Ledger(paths.ledger, Reserve(paths).release)
        table = _Table(paths, me)
        watchdog = Watchdog(
            kept or services(paths, port),
            _beginner(paths),
            lambda name: read_beat(paths.heartbeats / name),
            table.publish,
            lambda code, text, level, **data: _tell(ledger, code, text, level, data),
        )
        beat = _every(BEAT_SECONDS, lifeline.beat)

        def rest(seconds: float) -> bool:
            beat()
            observe()
            return lifeline.should_exit.wait(seconds)

        try:
            watchdog.run(rest)
        finally:
            watchdog.stop(time.sleep)
            table.close()


def services(paths: RealmPaths, port: int) -> list[Service]:
    """What a realm is made of, besides its supervisor; the local Oracle only when somebody wants it."""
    common = ("--root", str(paths.root), "--parent", str(os.getpid()))

    def command(name: str, *more: str) -> tuple[str, ...]:
        return (sys.executable, "-m", f"training.{name}_process", *common, *more)

    furthest = 0

    def got_on() -> tuple:
        nonlocal furthest  # steps that are trained again are no progress
        hero = read_json(paths.status, {}).get("hero") or {}
        furthest = max(furthest, hero.get("global_step") or 0)
        return furthest, pointed(paths.tip)

    return [
        Service("tavern", command("tavern", "--port", str(port))),
        Service("daemon", command("daemon")),
        Service("trainer", command("trainer"), silence=SILENCE["setup"], grace=TRAINER_GRACE, progress=got_on),
        Service("oracle", command("oracle"), silence=SILENCE["evaluation"], wanted=paths.oracle_wish.exists),
        *_tellers(paths, command),
    ]


def _tellers(paths: RealmPaths, command: Callable[..., tuple[str, ...]]) -> list[Service]:
    """Services that tell others what happens here; they have processes of their own, so that none can hurt the rest."""
    try:
        config = load_config(paths.config)
    except UserError:  # whoever needs it waits for it, and says so; nobody is told before the next start
        return []
    sinks = [name for name, wanted in config.sinks.model_dump().items() if wanted]
    herald = [Service("herald", command("herald"))] if config.alerts.anybody else []
    # Only a long life is progress of a sink: one that hangs, and is ended for it, is given up after a few lives, too.
    return herald + [Service(f"sink_{name}", command("sink", "--sink", name), progress=lambda: 0) for name in sinks]


def _beginner(paths: RealmPaths) -> Callable[[Service, dict[str, str]], Child]:
    kernel = KernelLog()
    return lambda service, environment: Child(
        list(service.command), paths.logs / f"{service.name}.out", environment, CHECKOUT, kernel
    )


def _tell(ledger: Ledger, code: str, text: str, level: str, data: dict[str, Any]) -> None:
    """History is worth less than the services: a full disk or a locked ledger is logged, and the watch goes on."""
    log.log(logging.INFO if level == "info" else logging.WARNING, "%s", text)
    try:
        ledger.event("watchdog", code, text, level, **data)
    except sqlite3.Error as problem:
        log.error("the ledger did not take %r: %s", text, problem)


def _every(
    seconds: float, action: Callable[[], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[], None]:
    """`action`, at most once in so many seconds."""
    due = clock()

    def turn() -> None:
        nonlocal due
        if clock() >= due:
            due = clock() + seconds
            action()

    return turn


class _Table:
    """state/services.json: the supervisor itself and its services."""

    def __init__(self, paths: RealmPaths, me: Holder):
        self._path, self._me, self._since = paths.services, me, time.time()
        self._rows: list[dict[str, Any]] = []

    def publish(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows
        self._write("running")

    def close(self) -> None:
        self._since = time.time()
        self._write("stopped")

    def _write(self, state: str) -> None:
        alive = state == "running"
        supervisor = {"pid": self._me.pid if alive else None, "started": self._me.started if alive else None}
        own = {"name": "watchdog", **supervisor, "state": state, "restarts": 0, "last_exit": "", "since": self._since}
        try:
            write_json(self._path, {"supervisor": supervisor, "services": [own, *self._rows]}, durable=False)
        except OSError as problem:
            log.error("%s was not written: %s", self._path, problem)


if __name__ == "__main__":
    sys.exit(main())
