"""The local Oracle's process: binds a loopback port, answers with the realm's checkpoints, ends when nobody has asked for long.

It is a guest: low priority, few threads, the first to go when memory runs out.
"""

import argparse
import asyncio
import os
import socket
import sys
import time
from functools import partial
from pathlib import Path

import psutil
from starlette.applications import Starlette

from core.config import Config, Tavern, load_config
from core.durable import write_json
from core.errors import UserError
from core.full_disk import Reserve
from core.ledger import Ledger
from core.logs import start_logging
from core.paths import RealmPaths
from management.model_shelf import Shelf, VaultShelf
from monitoring.servers.oracle.app import Oracle, create_app
from monitoring.servers.tavern.security import Rules, read_or_make_token
from safety.lifeline import Lifeline
from training.patience import when_right
from training.web_server import Server, listen

NICENESS_AT_START, NICENESS = 5, 10  # somebody waits for its start, which is short; an answer may take long
FIRST_TO_GO = 900  # of the kernel's choice when memory runs out: an answer is soon asked for again
LOOPBACK = "127.0.0.1"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training.oracle_process", description=__doc__)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--parent", type=int)
    options = parser.parse_args(argv)
    paths = RealmPaths(options.root)
    lifeline = Lifeline(paths, "oracle", options.parent, FIRST_TO_GO)
    start_logging(paths, "oracle")
    os.nice(NICENESS_AT_START)
    ledger = Ledger(paths.ledger, Reserve(paths).release)
    config = when_right(lambda: load_config(paths.config), "config_wrong", "oracle", ledger, lifeline)
    if config is None:
        return 0
    app = _app(paths, config, VaultShelf(paths))
    os.nice(NICENESS - NICENESS_AT_START)
    listener = _listen(config.oracle.port)
    write_json(paths.oracle_place, _place(listener), durable=False)
    idle = partial(_end_when_idle, app.state.oracle, paths, lifeline, 60 * config.oracle.idle_minutes)
    asyncio.run(Server(app, lifeline, turn=idle).serve([listener]))
    return 0


def _end_when_idle(oracle: Oracle, paths: RealmPaths, lifeline: Lifeline, seconds: float) -> None:
    """Called once a second. The wish goes first: one that comes after it begins a new life."""
    if not oracle.busy and time.monotonic() - oracle.last > seconds:
        paths.oracle_wish.unlink(missing_ok=True)
        lifeline.should_exit.set()


def _app(paths: RealmPaths, config: Config, shelf: Shelf) -> Starlette:
    threads = str(config.oracle.threads)
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", CUDA_VISIBLE_DEVICES="")
    os.environ.update(OMP_NUM_THREADS=threads, MKL_NUM_THREADS=threads, OMP_WAIT_POLICY="passive")
    from core.forge.voices import Voices  # and torch with it, which takes seconds

    door = Tavern(host=LOOPBACK, port=config.tavern.port, require_token=config.tavern.require_token)
    rules = Rules.of(door, read_or_make_token(paths), frozenset())
    return create_app(shelf, Voices(config.oracle.memory_gib, profile=config.profile.name), rules)


def _listen(port: int) -> socket.socket:
    """On the port that is asked for, or on any where that is taken: the realm finds it by `state/oracle.json`."""
    try:
        return listen(LOOPBACK, port, "The Oracle", "oracle.port")
    except UserError:
        return listen(LOOPBACK, 0, "The Oracle", "oracle.port")


def _place(listener: socket.socket) -> dict[str, int | float]:
    me = psutil.Process()
    return {"pid": me.pid, "started": me.create_time(), "port": listener.getsockname()[1]}


if __name__ == "__main__":
    sys.exit(main())
