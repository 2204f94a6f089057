"""The record of training (state/metrics.db): steps, validations, previews. One writer, the trainer; it may be lost
without harm.

Rows are keyed by hero and global step, so a step that is trained again after a crash replaces what was there. Each
block of 64 steps is summed up per quest as it is written, so that a million steps can be drawn without reading them.
"""

import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

import orjson

from core.broken_record import set_aside_if_broken
from core.full_disk import spared
from core.ledger import connect, migrate

BLOCK = 64
KEPT_OF_QUEST, KEPT_PREVIEWS = 4, 400  # looks of one quest, and of all
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
    INSERT INTO blocks SELECT {{key}} step / {BLOCK} AS block, quest, MIN(step), MAX(step), COUNT(*), {_SUMS}
    FROM steps WHERE {{chosen}} GROUP BY block, quest"""
_BLOCK_COLUMNS = f"""
    block INTEGER NOT NULL, quest INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
    count INTEGER NOT NULL, {", ".join(f"{part} REAL" for part in PARTS)}"""

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
    CREATE TABLE blocks ({_BLOCK_COLUMNS}, PRIMARY KEY (block, quest)) WITHOUT ROWID;
    CREATE INDEX blocks_by_quest ON blocks(quest, block);
    {_SUM_UP.format(key="", chosen="step >= 0")};
    """,
    # Heroes have records of their own; what is older belongs to the first that opens it, until then without a name.
    f"""
    CREATE TABLE heroes (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    INSERT INTO heroes SELECT 1, '' WHERE EXISTS (SELECT 1 FROM steps);
    DROP INDEX steps_by_quest; DROP INDEX blocks_by_quest;
    ALTER TABLE steps RENAME TO older_steps;
    ALTER TABLE blocks RENAME TO older_blocks;
    ALTER TABLE validations RENAME TO older_validations;
    CREATE TABLE steps (
        hero INTEGER NOT NULL, step INTEGER NOT NULL, quest INTEGER NOT NULL, time REAL NOT NULL, loss REAL,
        learning_rate REAL, gradient_norm REAL, tokens INTEGER NOT NULL, seconds REAL NOT NULL,
        PRIMARY KEY (hero, step)) WITHOUT ROWID;
    CREATE TABLE blocks (hero INTEGER NOT NULL, {_BLOCK_COLUMNS}, PRIMARY KEY (hero, block, quest)) WITHOUT ROWID;
    CREATE TABLE validations (
        hero INTEGER NOT NULL, step INTEGER NOT NULL, quest INTEGER NOT NULL, time REAL NOT NULL, loss REAL NOT NULL,
        PRIMARY KEY (hero, step)) WITHOUT ROWID;
    INSERT INTO steps SELECT 1, * FROM older_steps;
    INSERT INTO blocks SELECT 1, * FROM older_blocks;
    INSERT INTO validations SELECT 1, * FROM older_validations;
    DROP TABLE older_steps; DROP TABLE older_blocks; DROP TABLE older_validations;
    CREATE INDEX steps_by_quest ON steps(hero, quest, step);
    CREATE INDEX blocks_by_quest ON blocks(hero, quest, block);
    CREATE TABLE previews (
        id INTEGER PRIMARY KEY AUTOINCREMENT, hero INTEGER NOT NULL, quest INTEGER NOT NULL, step INTEGER NOT NULL,
        time REAL NOT NULL, answers TEXT NOT NULL);
    CREATE INDEX previews_by_quest ON previews(quest, id);
    """,
    "ALTER TABLE steps ADD COLUMN flags INTEGER NOT NULL DEFAULT 0;",
    """
    CREATE TABLE told (
        hero INTEGER NOT NULL, quest INTEGER NOT NULL, name TEXT NOT NULL, step INTEGER NOT NULL, value REAL,
        PRIMARY KEY (hero, quest, name, step)) WITHOUT ROWID;
    """,
)


@dataclass(frozen=True)
class Step:
    """One optimizer step: mean loss in nats per trained token, all tokens of its rows, seconds it took.

    `flags`: what core/forge/guard.py found; loss and gradient norm are None where they were no numbers.
    """

    step: int
    quest: int
    time: float
    loss: float | None
    learning_rate: float
    gradient_norm: float | None
    tokens: int
    seconds: float
    flags: int = 0


class StepRecord:
    """Appends what one hero goes through; `flush` writes what was collected, or keeps it while the disk is full."""

    def __init__(self, path: Path, hero: str):
        set_aside_if_broken(path)
        self._connection = connect(path, durable=False)
        migrate(self._connection, MIGRATIONS)
        self._connection.execute("UPDATE OR IGNORE heroes SET name=? WHERE name=''", (hero,))
        self._connection.execute("INSERT OR IGNORE INTO heroes (name) VALUES (?)", (hero,))
        self._hero = self._connection.execute("SELECT id FROM heroes WHERE name=?", (hero,)).fetchone()[0]
        self._sum_up = _SUM_UP.format(key=f"{self._hero},", chosen=f"hero={self._hero} AND step BETWEEN ? AND ?")
        self._waiting: list[Step] = []
        self._told: list[tuple[int, int, str, int, float | None]] = []
        self._owed: list[Callable[[], None]] = []
        self._folder = path.parent

    def add(self, step: Step) -> None:
        self._waiting.append(step)

    def told(self, step: int, quest: int, values: Mapping[str, float]) -> None:
        """What the school reported of a step beside its loss."""
        finite = ((name, value if math.isfinite(value) else None) for name, value in values.items())
        self._told += [(self._hero, quest, name, step, value) for name, value in finite]

    def flush(self) -> None:
        with spared(self._folder):
            if self._waiting:
                with self._transaction():
                    self._write_steps()
                    self._connection.executemany("INSERT OR REPLACE INTO told VALUES (?, ?, ?, ?, ?)", self._told)
                self._waiting.clear()
                self._told.clear()
            while self._owed:
                with self._transaction():
                    self._owed[0]()
                self._owed.pop(0)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; what a full disk refuses is rolled back, by SQLite or here."""
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    def _write_steps(self) -> None:
        self._connection.executemany(
            f"INSERT OR REPLACE INTO steps VALUES ({self._hero}, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            map(astuple, self._waiting),
        )
        for block in sorted({step.step // BLOCK for step in self._waiting}):
            self._connection.execute("DELETE FROM blocks WHERE hero=? AND block=?", (self._hero, block))
            self._connection.execute(self._sum_up, (block * BLOCK, (block + 1) * BLOCK - 1))

    def validation(self, step: int, quest: int, time: float, loss: float) -> None:
        """A held-out loss measured at `step`, nats per trained token."""
        values = (self._hero, step, quest, time, loss)
        self._owed.append(
            lambda: self._connection.execute("INSERT OR REPLACE INTO validations VALUES (?, ?, ?, ?, ?)", values)
        )
        self.flush()

    def previews(self, step: int, quest: int, time: float, answers: Iterable[Any]) -> None:
        """The hero's answers at `step`, dataclasses; of each quest the newest few looks are kept, and of all."""
        text = orjson.dumps([asdict(answer) for answer in answers]).decode()
        self._owed.append(lambda: self._write_previews(step, quest, time, text))
        self.flush()

    def _write_previews(self, step: int, quest: int, time: float, text: str) -> None:
        execute = self._connection.execute
        execute("DELETE FROM previews WHERE hero=? AND quest=? AND step>=?", (self._hero, quest, step))
        execute(
            "INSERT INTO previews (hero, quest, step, time, answers) VALUES (?, ?, ?, ?, ?)",
            (self._hero, quest, step, time, text),
        )
        for of, count, values in (("WHERE quest=?", KEPT_OF_QUEST, (quest, quest)), ("", KEPT_PREVIEWS, ())):
            newest = f"SELECT id FROM previews {of} ORDER BY id DESC LIMIT {count}"
            execute(f"DELETE FROM previews {of or 'WHERE 1'} AND id NOT IN ({newest})", values)


def read_previews(
    path: Path, quest: int | None = None, limit: int = KEPT_OF_QUEST, hero: str | None = None
) -> list[dict[str, Any]]:
    """The newest looks at heroes' answers, of one quest or of all, of one hero or of all, newest first: quest, step, time,
    answers."""
    wanted = {"quest=?": quest, "hero=(SELECT id FROM heroes WHERE name=?)": hero}
    given = {term: value for term, value in wanted.items() if value is not None}
    where, values = f"WHERE {' AND '.join(given)}" if given else "", list(given.values())
    query = f"SELECT quest, step, time, answers FROM previews {where} ORDER BY id DESC LIMIT ?"
    try:
        connection = open_read_only(path)
        if connection is None:
            return []
        with closing(connection):
            rows = connection.execute(query, [*values, limit]).fetchall()
    except sqlite3.Error:  # not a database yet, or one of an older version
        return []
    return [dict(row) | {"answers": orjson.loads(row["answers"])} for row in rows]


_TOLD = "FROM told WHERE hero=(SELECT id FROM heroes WHERE name=:hero) AND quest=:quest"
# Each name, and each one's last value, is sought through the key, so that it does not matter how many steps there were.
LAST_TOLD = f"""
    WITH RECURSIVE
    names(name) AS (
        SELECT (SELECT name {_TOLD} ORDER BY name LIMIT 1)
        UNION ALL SELECT (SELECT name {_TOLD} AND name > names.name ORDER BY name LIMIT 1) FROM names WHERE name IS NOT NULL),
    last(name, value) AS (
        SELECT name, (SELECT value {_TOLD} AND name=names.name AND value IS NOT NULL ORDER BY step DESC LIMIT 1) FROM names)
    SELECT name, value FROM last WHERE value IS NOT NULL"""


def last_told(path: Path, hero: str, quest: int) -> dict[str, float]:
    """What the school of `quest` reported beside the loss, each as of the last step that it was reported of."""
    try:
        connection = open_read_only(path)
        if connection is None:
            return {}
        with closing(connection):
            return dict(map(tuple, connection.execute(LAST_TOLD, {"hero": hero, "quest": quest})))
    except sqlite3.Error:  # not a database yet, or one of an older version
        return {}


def open_read_only(path: Path) -> sqlite3.Connection | None:
    """A connection that cannot write, or None where nothing was recorded yet."""
    if not path.is_file():
        return None
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection
