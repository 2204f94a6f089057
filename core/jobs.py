"""Work that takes a while and is no battle, on record: what, by whom, since when, and what came of it. It does none of it.

A row says `running` until its end is told. Of a process that was killed it goes on saying so; `state_of` knows better.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psutil

from core.ledger import Ledger
from core.realm_lock import same_process

KINDS = ("preparation", "sparring", "asking", "generation", "backup", "export", "cooldown")


def begin(ledger: Ledger, kind: str, service: str, title: str, quest: int | None = None) -> int:
    """This process begins a piece of work; `end` is owed."""
    assert kind in KINDS, kind
    process_started, now = psutil.Process().create_time(), time.time()
    facts = {"quest": quest, "pid": os.getpid(), "process_started": process_started, "started": now}
    return ledger.add("jobs", kind=kind, service=service, title=title, state="running", **facts)


def end(ledger: Ledger, job: int, problem: str | None = None) -> None:
    """It is done, or failed for that reason."""
    ledger.change("jobs", job, state="failed" if problem else "done", reason=problem, finished=time.time())


@contextmanager
def job(ledger: Ledger, kind: str, service: str, title: str, quest: int | None = None) -> Iterator[None]:
    """The block is a piece of work; an exception that leaves it is the reason of its failure."""
    key = begin(ledger, kind, service, title, quest)
    try:
        yield
    except BaseException as problem:
        with suppress(sqlite3.Error):  # what went wrong is told, not that it could not be written down
            end(ledger, key, str(problem) or type(problem).__name__)
        raise
    end(ledger, key)


def state_of(row: dict[str, Any]) -> str:
    """A row's state; `interrupted` where its process is gone without a word."""
    gone = row["state"] == "running" and not same_process(row["pid"], row["process_started"])
    return "interrupted" if gone else row["state"]
