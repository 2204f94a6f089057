"""The realm's memory (state/realm.db): quests, battles, checkpoints, evaluations, events. It decides nothing.

A quest's folder is its present state and the ledger its past; where they disagree after a crash, the folder wins.
Every commit is flushed to disk (synchronous=EXTRA): with NORMAL, acknowledged rows are lost in a power cut, and without a
write-ahead log even with FULL, which leaves the journal's removal unflushed. Write-ahead logging stays off below SQLite
3.51.3, whose WAL-reset bug needs just our shape: several processes that write.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from core.full_disk import is_no_space

log = logging.getLogger(__name__)
LOG_LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "alert": logging.ERROR}
SAFE_WAL = (3, 51, 3)

MIGRATIONS = (
    """
    CREATE TABLE quests (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        stem TEXT NOT NULL, origin TEXT NOT NULL, state TEXT NOT NULL, priority TEXT NOT NULL,
        sha256 TEXT, bytes INTEGER, rows INTEGER, bad_rows INTEGER, form TEXT, school TEXT, skill TEXT,
        reason TEXT, failures INTEGER NOT NULL DEFAULT 0,
        created REAL NOT NULL, updated REAL NOT NULL);
    CREATE INDEX quests_by_content ON quests(sha256);
    CREATE INDEX quests_by_state ON quests(state, id);
    CREATE TABLE battles (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        quest INTEGER NOT NULL, hero TEXT NOT NULL, school TEXT NOT NULL, state TEXT NOT NULL,
        start_step INTEGER NOT NULL, total_steps INTEGER NOT NULL, end_step INTEGER,
        loss REAL, validation_loss_before REAL, validation_loss REAL,
        held_out TEXT, tokens INTEGER NOT NULL DEFAULT 0, seconds REAL NOT NULL DEFAULT 0,
        effort REAL NOT NULL DEFAULT 0, xp REAL NOT NULL DEFAULT 0, reason TEXT,
        started REAL NOT NULL, finished REAL);
    CREATE INDEX battles_by_quest ON battles(quest);
    CREATE TABLE checkpoints (
        id TEXT PRIMARY KEY, hero TEXT NOT NULL, campaign TEXT NOT NULL, step INTEGER NOT NULL,
        parent TEXT, quest INTEGER, state TEXT NOT NULL, pinned INTEGER NOT NULL DEFAULT 0,
        bytes INTEGER NOT NULL, validation_loss REAL, created REAL NOT NULL, gone REAL);
    CREATE INDEX checkpoints_by_step ON checkpoints(hero, step);
    CREATE TABLE evaluations (
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, school TEXT, quest INTEGER,
        checkpoint TEXT, step INTEGER NOT NULL, value REAL NOT NULL, created REAL NOT NULL);
    CREATE INDEX evaluations_by_kind ON evaluations(kind, school, id);
    CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, service TEXT NOT NULL, level TEXT NOT NULL,
        code TEXT NOT NULL, text TEXT NOT NULL, data TEXT NOT NULL);
    CREATE TABLE control (
        id INTEGER PRIMARY KEY AUTOINCREMENT, verb TEXT NOT NULL, argument TEXT,
        created REAL NOT NULL, done REAL, result TEXT);
    """,
    "ALTER TABLE quests ADD COLUMN claimed INTEGER",
    """
    ALTER TABLE checkpoints ADD COLUMN rolled_back REAL;
    CREATE TABLE tags (
        id TEXT PRIMARY KEY, checkpoint TEXT NOT NULL, created REAL NOT NULL);
    """,
    # What every look at the realm asks for, however long its past is.
    """
    CREATE INDEX events_by_code ON events(code, id);
    CREATE INDEX events_by_level ON events(level, time);
    CREATE INDEX checkpoints_here ON checkpoints(bytes) WHERE gone IS NULL;
    CREATE INDEX battles_by_experience ON battles(xp);
    CREATE INDEX evaluations_by_age ON evaluations(kind, id);
    CREATE INDEX quests_by_skill ON quests(skill, state) WHERE skill IS NOT NULL;
    """,
    """
    ALTER TABLE quests ADD COLUMN place INTEGER;
    CREATE INDEX quests_by_change ON quests(updated);
    CREATE INDEX quests_by_end ON quests(state, updated);
    CREATE INDEX quests_in_line ON quests(priority, COALESCE(place, failures * 1099511627776 + id)) WHERE state='queued';
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, service TEXT NOT NULL, title TEXT NOT NULL,
        state TEXT NOT NULL, quest INTEGER, reason TEXT, pid INTEGER, process_started REAL,
        started REAL NOT NULL, finished REAL);
    CREATE INDEX jobs_by_start ON jobs(started);
    CREATE INDEX battles_by_start ON battles(started);
    CREATE INDEX events_by_time ON events(time);
    """,
    "CREATE TABLE marks (id TEXT PRIMARY KEY, value TEXT NOT NULL)",
    """
    ALTER TABLE battles ADD COLUMN quality REAL;
    ALTER TABLE battles ADD COLUMN verdict TEXT;
    """,
    """
    CREATE TABLE campaigns (
        id INTEGER PRIMARY KEY AUTOINCREMENT, hero TEXT NOT NULL, name TEXT NOT NULL, checkpoint TEXT,
        created REAL NOT NULL, archived REAL);
    CREATE UNIQUE INDEX campaigns_by_name ON campaigns(hero, name);
    """,
    # `seq`: the exam's place among those of its checkpoint.
    """
    CREATE TABLE exams (
        id INTEGER PRIMARY KEY AUTOINCREMENT, hero TEXT NOT NULL, campaign TEXT NOT NULL, checkpoint TEXT NOT NULL,
        seq INTEGER NOT NULL, quest INTEGER, step INTEGER NOT NULL, skill TEXT NOT NULL, level INTEGER NOT NULL,
        right INTEGER NOT NULL, asked INTEGER NOT NULL, look INTEGER, kind TEXT NOT NULL, outcome TEXT,
        created REAL NOT NULL, UNIQUE (checkpoint, seq));
    CREATE INDEX exams_by_level ON exams(hero, skill, level, id);
    """,
    "CREATE INDEX exams_by_skill ON exams(hero, skill, id)",
    # What was measured is a hero's, and so is what the realm wrote for it; `quests.hero` is null where anybody may train it.
    """
    ALTER TABLE evaluations ADD COLUMN hero TEXT;
    UPDATE evaluations SET hero=(SELECT battles.hero FROM battles WHERE battles.quest=evaluations.quest
        AND battles.started<=evaluations.created ORDER BY battles.id DESC LIMIT 1);
    DROP INDEX evaluations_by_kind;
    CREATE INDEX evaluations_by_kind ON evaluations(hero, kind, school, id);
    ALTER TABLE quests ADD COLUMN hero TEXT;
    UPDATE quests SET hero=COALESCE(
        (SELECT battles.hero FROM battles WHERE battles.quest=quests.id ORDER BY battles.id LIMIT 1),
        (SELECT battles.hero FROM battles ORDER BY battles.id DESC LIMIT 1)) WHERE origin='idle';
    CREATE INDEX quests_by_hero ON quests(hero, origin) WHERE hero IS NOT NULL;
    DROP INDEX battles_by_experience;
    CREATE INDEX battles_by_experience ON battles(hero, xp);
    CREATE INDEX battles_by_hero ON battles(hero, id);
    """,
)


def connect(path: Path, durable: bool = True) -> sqlite3.Connection:
    """An autocommitting connection with rows by name; `durable=False` trades safety in a power cut for speed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    journal = "WAL" if sqlite3.sqlite_version_info >= SAFE_WAL else "DELETE"
    connection.execute(f"PRAGMA journal_mode={journal}")
    connection.execute(f"PRAGMA synchronous={'EXTRA' if durable else 'OFF'}")
    return connection


def migrate(connection: sqlite3.Connection, migrations: tuple[str, ...]) -> None:
    """Bring the schema up to date; several processes may try at once."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == len(migrations):
        return
    connection.execute("BEGIN EXCLUSIVE")
    try:
        done = connection.execute("PRAGMA user_version").fetchone()[0]
        for script in migrations[done:]:
            for statement in filter(str.strip, script.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA user_version={len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


class Ledger:
    """One realm's ledger, usable from any thread (a connection each).

    `make_room` is called when the disk is full and says whether a row is to be written again; a row of which nobody was
    told that it is there is not there.
    """

    def __init__(self, path: Path, make_room: Callable[[], bool] = lambda: False):
        self.path, self._make_room = path, make_room
        self._threads = threading.local()
        migrate(self.connection, MIGRATIONS)

    @property
    def connection(self) -> sqlite3.Connection:
        if not hasattr(self._threads, "connection"):
            self._threads.connection = connect(self.path)
        return self._threads.connection

    def close(self) -> None:
        """Close this thread's connection."""
        if hasattr(self._threads, "connection"):
            self._threads.connection.close()
            del self._threads.connection

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """What is written meanwhile is one transaction, on disk at its end or not at all."""
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.connection.execute("COMMIT")
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise

    def all(self, query: str, parameters: Iterable = ()) -> list[dict[str, Any]]:
        return [dict(row) for row in self.connection.execute(query, tuple(parameters))]

    def one(self, query: str, parameters: Iterable = ()) -> dict[str, Any] | None:
        row = self.connection.execute(query, tuple(parameters)).fetchone()
        return dict(row) if row else None

    def add(self, table: str, **values: Any) -> int:
        """Insert a row and return its id."""
        names, marks = ", ".join(values), ", ".join("?" * len(values))
        return self._write(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(values.values())).lastrowid

    def change(self, table: str, key: int | str, **values: Any) -> bool:
        """Update the row with id `key`; False where there is none."""
        names = ", ".join(f"{name}=?" for name in values)
        return self._write(f"UPDATE {table} SET {names} WHERE id=?", (*values.values(), key)).rowcount == 1

    def _write(self, statement: str, values: tuple) -> sqlite3.Cursor:
        within = self.connection.in_transaction  # then only all of it can be tried again
        while True:
            try:
                return self.connection.execute(statement, values)
            except sqlite3.Error as problem:
                if within or not (is_no_space(problem, self.path.parent) and self._make_room()):
                    raise

    def event(self, service: str, code: str, text: str, level: str = "info", **data: Any) -> int:
        """Record what happened, for the battle log and the pages; the service's own log says it, too."""
        log.log(LOG_LEVELS[level], "%s", text, extra={"code": code})
        return self.add(
            "events",
            time=time.time(),
            service=service,
            level=level,
            code=code,
            text=text,
            data=orjson.dumps(data, default=str).decode(),
        )

    def mark(self, name: str) -> Any:
        """What `set_mark` has kept under `name`, or None."""
        row = self.one("SELECT value FROM marks WHERE id=?", (name,))
        return orjson.loads(row["value"]) if row else None

    def set_mark(self, name: str, value: Any) -> None:
        """Keep how far a reader of the past has come, for after a restart."""
        self._write("INSERT OR REPLACE INTO marks (id, value) VALUES (?, ?)", (name, orjson.dumps(value).decode()))

    def events_of(self, code: str, limit: int = 20) -> list[dict[str, Any]]:
        """The newest `limit` events of one kind, oldest first."""
        rows = self.all("SELECT * FROM events WHERE code=? ORDER BY id DESC LIMIT ?", (code, limit))
        return [row | {"data": orjson.loads(row["data"])} for row in reversed(rows)]

    def events(self, after: int = 0, limit: int = 100) -> list[dict[str, Any]]:
        """The newest `limit` events with an id above `after`, oldest first."""
        rows = self.all("SELECT * FROM events WHERE id>? ORDER BY id DESC LIMIT ?", (after, limit))
        return [row | {"data": orjson.loads(row["data"])} for row in reversed(rows)]
