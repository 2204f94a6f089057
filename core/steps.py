"""The record of optimizer steps (state/metrics.db): one writer, the trainer; it may be lost without harm.

Rows are keyed by the hero's global step, so a step that is trained again after a crash replaces what was there. Each
block of 64 steps is summed up per quest as it is written, so that a million steps can be drawn without reading them.
"""

import sqlite3
from dataclasses import astuple, dataclass
from pathlib import Path

from core.ledger import connect, migrate

BLOCK = 64
SERIES = {  # name: (value of a step, its weight in a mean), as SQL over `steps`
    "loss": ("loss", "1"),
    "gradient_norm": ("gradient_norm", "1"),
    "learning_rate": ("learning_rate", "1"),
    "tokens_per_second": ("tokens / NULLIF(seconds, 0)", "seconds"),
}
PARTS = tuple(f"{name}_{part}" for name in SERIES for part in ("min", "max", "sum", "weight"))
_SUMS = ", ".join(
    f"MIN({value}), MAX({value}), SUM(({value}) * {weight}), SUM(IIF({value} IS NULL, 0, {weight}))"
    for value, weight in SERIES.values()
)
_SUM_UP = f"""
    INSERT INTO blocks SELECT step / {BLOCK} AS block, quest, MIN(step), MAX(step), COUNT(*), {_SUMS}
    FROM steps WHERE step BETWEEN ? AND ? GROUP BY block, quest"""

MIGRATIONS = (
    """
    CREATE TABLE steps (
        step INTEGER PRIMARY KEY, quest INTEGER NOT NULL, time REAL NOT NULL, loss REAL, learning_rate REAL,
        gradient_norm REAL, tokens INTEGER NOT NULL, seconds REAL NOT NULL);
    CREATE INDEX steps_by_quest ON steps(quest, step);
    CREATE TABLE validations (
        step INTEGER PRIMARY KEY, quest INTEGER NOT NULL, time REAL NOT NULL, loss REAL NOT NULL);
    """,
    f"""
    CREATE TABLE blocks (
        block INTEGER NOT NULL, quest INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
        count INTEGER NOT NULL, {", ".join(f"{part} REAL" for part in PARTS)},
        PRIMARY KEY (block, quest)) WITHOUT ROWID;
    CREATE INDEX blocks_by_quest ON blocks(quest, block);
    {_SUM_UP.replace("BETWEEN ? AND ?", ">= 0")};
    """,
)


@dataclass(frozen=True)
class Step:
    """One optimizer step: mean loss in nats per trained token, all tokens of its rows, seconds it took."""

    step: int
    quest: int
    time: float
    loss: float
    learning_rate: float
    gradient_norm: float | None
    tokens: int
    seconds: float


class StepRecord:
    """Appends steps; `flush` writes what was collected in one transaction."""

    def __init__(self, path: Path):
        self._connection = connect(path, durable=False)
        migrate(self._connection, MIGRATIONS)
        self._waiting: list[Step] = []

    def add(self, step: Step) -> None:
        self._waiting.append(step)

    def flush(self) -> None:
        if self._waiting:
            self._connection.execute("BEGIN")
            self._connection.executemany(
                "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", map(astuple, self._waiting)
            )
            for block in sorted({step.step // BLOCK for step in self._waiting}):
                self._connection.execute("DELETE FROM blocks WHERE block=?", (block,))
                self._connection.execute(_SUM_UP, (block * BLOCK, (block + 1) * BLOCK - 1))
            self._connection.execute("COMMIT")
            self._waiting.clear()

    def validation(self, step: int, quest: int, time: float, loss: float) -> None:
        """A held-out loss measured at `step`, nats per trained token."""
        self.flush()
        self._connection.execute("INSERT OR REPLACE INTO validations VALUES (?, ?, ?, ?)", (step, quest, time, loss))


def open_read_only(path: Path) -> sqlite3.Connection | None:
    """A connection that cannot write, or None where nothing was recorded yet."""
    if not path.is_file():
        return None
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection
