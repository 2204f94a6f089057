"""Copies what is recorded in state/metrics.db into a sink, from where it was left. It writes nothing of the realm but its mark.

The trainer knows nothing of it: it reads the record as the pages do, in a process of its own that may hang or die.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from core.durable import read_json
from core.ledger import Ledger
from core.paths import RealmPaths
from core.steps import open_read_only
from monitoring.sinks import Sink

ROWS = 2000  # at a time
MARK_SECONDS = 30.0
STEPS = """SELECT step, time, loss, learning_rate, gradient_norm, tokens / NULLIF(seconds, 0) AS tokens_per_second
    FROM steps WHERE hero=? AND step>? ORDER BY step LIMIT ?"""
NAMES = ("loss", "learning_rate", "gradient_norm", "tokens_per_second")


class Copier:
    """`turn(now)` copies some rows and says whether more wait. `opened(after)` opens the sink behind that step.

    The mark: the newest step that was copied, when that was trained, and the newest held-out loss.
    """

    def __init__(self, paths: RealmPaths, name: str, hero: str, ledger: Ledger, opened: Callable[[int], Sink]):
        self._paths, self._hero, self._ledger, self._opened = paths, hero, ledger, opened
        self._key = f"sink:{name}:{hero}"
        self._mark: dict[str, Any] = ledger.mark(self._key) or {"step": 0, "time": 0.0, "validation": 0}
        self._marked, self._due = dict(self._mark), 0.0
        self._sink = opened(self._mark["step"])

    def turn(self, now: float) -> bool:
        try:
            copied = self._copy()
        except sqlite3.Error:  # not a database yet, or in its writer's hands; the next look finds it
            copied = 0
        if copied:
            self._sink.flush()
        if self._mark != self._marked and now >= self._due:
            self._remember()
            self._due = now + MARK_SECONDS
        return copied >= ROWS

    def close(self) -> None:
        self._sink.close()
        self._remember()

    def _remember(self) -> None:
        if self._mark != self._marked:
            self._ledger.set_mark(self._key, self._mark)
            self._marked = dict(self._mark)

    def _copy(self) -> int:
        """Rows that were copied."""
        connection = open_read_only(self._paths.metrics)
        if connection is None:
            return 0
        with closing(connection):
            row = connection.execute("SELECT id FROM heroes WHERE name=?", (self._hero,)).fetchone()
            if row is None:
                return 0
            self._go_back(connection, row[0])
            return self._copy_steps(connection, row[0]) + self._copy_validations(connection, row[0])

    def _copy_steps(self, connection: sqlite3.Connection, hero: int) -> int:
        rows = connection.execute(STEPS, (hero, self._mark["step"], ROWS)).fetchall()
        for row in rows:
            values = {f"train/{name}": row[name] for name in NAMES if row[name] is not None}
            self._sink.write(row["step"], row["time"], values)
        if rows:
            newest = max(self._mark["time"], *(row["time"] for row in rows))
            self._mark |= {"step": rows[-1]["step"], "time": newest}
        return len(rows)

    def _copy_validations(self, connection: sqlite3.Connection, hero: int) -> int:
        query = "SELECT step, time, loss FROM validations WHERE hero=? AND step>? AND step<=? ORDER BY step LIMIT ?"
        rows = connection.execute(query, (hero, self._mark["validation"], self._mark["step"], ROWS)).fetchall()
        for row in rows:
            self._sink.write(row["step"], row["time"], {"validation/loss": row["loss"]})
        if rows:
            self._mark["validation"] = rows[-1]["step"]
        return len(rows)

    def _go_back(self, connection: sqlite3.Connection, hero: int) -> None:
        """Where steps that were copied have been trained again, after a crash or a rollback, the sink goes back to them."""
        reached = (read_json(self._paths.status, {}).get("hero") or {}).get("global_step") or 0
        for step in {min(reached, self._mark["step"]), self._mark["step"]}:
            row = connection.execute("SELECT time FROM steps WHERE hero=? AND step=?", (hero, step)).fetchone()
            if row is not None and row[0] > self._mark["time"]:
                break
        else:
            return
        query = "SELECT MIN(step) FROM steps WHERE hero=? AND step<=? AND time>?"
        first = connection.execute(query, (hero, self._mark["step"], self._mark["time"])).fetchone()[0]
        self._mark |= {"step": first - 1, "validation": min(first - 1, self._mark["validation"])}
        self._sink.close()
        self._sink = self._opened(first - 1)
