"""What a realm promises of its queue, weights and databases (I1 to I5), checked by reading alone. It mends nothing.

I1 every accepted quest in exactly one folder, its bytes unchanged; I2 trained exactly once in the weights of the tip;
I4 pointers lead to checkpoints whose hashes are right, at every instant; I5 databases whole, nothing half-built stays.
I3, that the weights are those of an uninterrupted run, needs such a run beside it: `bench faults` compares them.
"""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from core import checkpoints
from core.durable import leftovers, read_json
from core.errors import CheckpointError
from core.paths import PRIORITIES, QUEUE_STATES, RealmPaths
from core.quest import COMPANIONS, parse_name

ACCEPTED = ("queued", "processing", "recently_completed", "failed")  # as the ledger calls them
CARD = COMPANIONS[0]
SECOND_LOOK_SECONDS = 2.0
JOURNALS = ("-journal", "-wal", "-shm")


@dataclass(frozen=True, order=True)
class Violation:
    """A promise that is not kept, and where."""

    promise: str
    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.promise} {self.place}: {self.text}"


def violations(paths: RealmPaths) -> list[Violation]:
    """What is broken in a realm that does not run, whether it was stopped, killed or cut from its power."""
    checks = (databases_whole, accepted_once, trained_once, pointers_whole)
    return [violation for check in checks for violation in check(paths)]


def violations_while_it_runs(paths: RealmPaths, sleep: Callable[[float], None] = time.sleep) -> list[Violation]:
    """The same of a realm that runs: only what two looks find alike, since its files move meanwhile."""
    first = set(violations(paths))
    if not first:
        return []
    sleep(SECOND_LOOK_SECONDS)
    return sorted(first & set(violations(paths)))


# I1


def accepted_once(paths: RealmPaths) -> Iterator[Violation]:
    rows = _rows(paths.ledger, "SELECT id, stem, state, sha256 FROM quests WHERE sha256 IS NOT NULL")
    accepted = {row["id"]: row for row in rows if row["state"] in ACCEPTED}
    places = quest_files(paths)
    for quest, row in accepted.items():
        if quest not in places:
            yield Violation("I1", f"quest {quest}", f"{row['stem']} was accepted and is in no folder of queue/")
    for quest, found in sorted(places.items()):
        if len(found) > 1:
            folders = ", ".join(path.parent.name for path in found)
            yield Violation("I1", f"quest {quest}", f"lies in {len(found)} folders: {folders}")
        for path in found:
            yield from _unchanged(paths, quest, path, accepted.get(quest))


def _unchanged(paths: RealmPaths, quest: int, path: Path, row: sqlite3.Row | None) -> Iterator[Violation]:
    """Compare the bytes of `path` with what was accepted."""
    if path.parent == paths.claims:  # not judged yet, or judged and not moved: then the ledger knows its hash
        expected = row["sha256"] if row else None
    else:
        cards = [read_json(paths.queued(state) / f"{path.stem}{CARD}") for state in QUEUE_STATES]
        card = next((card for card in cards if isinstance(card, dict)), {})
        expected = row["sha256"] if row else card.get("sha256")
        if not card:
            yield Violation("I1", f"quest {quest}", f"{path.name} has no card ({path.stem}{CARD}) that can be read")
        elif row and card.get("sha256") != expected:
            yield Violation("I1", f"quest {quest}", f"the card and the ledger disagree about the hash of {path.name}")
    try:
        if expected and checkpoints.sha256_of(path) != expected:
            yield Violation("I1", f"quest {quest}", f"the bytes of {path.parent.name}/{path.name} were altered")
    except FileNotFoundError:
        pass  # it moved on; a second look finds it elsewhere


def quest_files(paths: RealmPaths) -> dict[int, list[Path]]:
    """The data files of claimed and accepted quests by id, wherever they lie; rejected ones are nobody's promise."""
    found: dict[int, list[Path]] = {}
    folders = [paths.claims, *(paths.queued(state) for state in QUEUE_STATES if state != "rejected")]
    for folder in filter(Path.is_dir, folders):
        for path in folder.iterdir():
            if parsed := parse_name(path):
                found.setdefault(parsed[1], []).append(path)
    return found


# I2


def trained_once(paths: RealmPaths) -> Iterator[Violation]:
    """The tip's list of trained quests and the folders say the same."""
    if (tip := _tip(paths)) is None:
        return
    fought = "SELECT DISTINCT quest FROM battles WHERE hero=? AND state='done'"
    done = {row["quest"] for row in _rows(paths.ledger, fought, (tip.hero,))}
    for quest, found in sorted(quest_files(paths).items()):
        folder, trained = found[0].parent.name, checkpoints.holds(tip.trained, quest)
        if folder in PRIORITIES and trained:
            yield Violation("I2", f"quest {quest}", f"waits in {folder} to be trained, and {tip.id} holds it already")
        if folder == "recently_completed" and quest in done and not trained:
            yield Violation("I2", f"quest {quest}", f"counts as completed, and {tip.id} does not hold it")


def steps_recorded(paths: RealmPaths) -> Iterator[Violation]:
    """Each step that the tip holds stands in the record once. The record is no promise where the power fails."""
    if (tip := _tip(paths)) is None or not paths.metrics.exists():
        return
    hero = "hero=(SELECT id FROM heroes WHERE name=?)"
    query = f"SELECT COUNT(*) AS n, MIN(step) AS first FROM steps WHERE {hero} AND step<=?"
    for row in _rows(paths.metrics, query, (tip.hero, tip.step)):
        if tip.step and row["n"] != tip.step - (row["first"] or 1) + 1:
            yield Violation("I2", paths.metrics.name, f"{row['n']} steps are recorded of {tip.step}, the tip's step")
    totals = """SELECT quest, total_steps FROM battles WHERE id IN
        (SELECT MAX(id) FROM battles WHERE hero=? AND state='done' GROUP BY quest)"""
    counted = f"SELECT quest, COUNT(*) AS n FROM steps WHERE {hero} AND step<=? GROUP BY quest"
    recorded = {row["quest"]: row["n"] for row in _rows(paths.metrics, counted, (tip.hero, tip.step))}
    for row in _rows(paths.ledger, totals, (tip.hero,)):
        steps = recorded.get(row["quest"], 0)
        if checkpoints.holds(tip.trained, row["quest"]) and steps != row["total_steps"]:
            text = f"{steps} steps are recorded of the {row['total_steps']} that were trained"
            yield Violation("I2", f"quest {row['quest']}", text)


def _tip(paths: RealmPaths) -> checkpoints.Manifest | None:
    """What the tip says of itself; None where there is none, or it cannot be read, which I4 tells."""
    name = checkpoints.pointed(paths.tip)
    try:
        return checkpoints.read(paths.vault / name) if name else None
    except CheckpointError:
        return None


# I4


def pointers_whole(paths: RealmPaths, known: set[str] | None = None) -> Iterator[Violation]:
    """Safe at any instant. `known`: checkpoints that were hashed before and are not hashed again; it grows."""
    known = set() if known is None else known
    for link in (paths.tip, paths.current_model, paths.champion):
        problem = _problem(paths, link, known)
        if problem:
            yield Violation("I4", link.name, problem)


def _problem(paths: RealmPaths, link: Path, known: set[str]) -> str | None:
    if not link.is_symlink():
        return f"{link} is no symlink" if link.exists() else None  # none yet: a hero is not born
    while True:
        checkpoint = checkpoints.pointed(link)
        try:
            if checkpoint not in known or not (paths.vault / checkpoint).is_dir():
                checkpoints.verify(paths.vault / checkpoint)
                known.add(checkpoint)
            return None
        except (CheckpointError, FileNotFoundError) as problem:
            if checkpoints.pointed(link) == checkpoint:  # else it moved on, and what it left may be gone
                return str(problem)


# I5


def databases_whole(paths: RealmPaths) -> Iterator[Violation]:
    """SQLite's own integrity check, of a copy where a journal waits to be rolled back, which would be writing."""
    for path in (paths.ledger, paths.metrics):
        if not path.exists():
            continue
        try:
            with _reading(path) as connection:
                told = connection.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.Error as problem:
            told = str(problem)
        if told != "ok":
            yield Violation("I5", path.name, told)


def nothing_half_built(paths: RealmPaths) -> Iterator[Violation]:
    """For a realm that has woken up: what a crash left half done is gone."""
    for folder in paths.vault.glob(".building-*"):
        if not checkpoints.is_held(folder):
            yield Violation("I5", folder.name, "a checkpoint that was never finished lies in the Vault")
    for folder in paths.written():
        for path in leftovers(folder):
            yield Violation("I5", path.name, f"lies in {folder.name}/, half written before a crash")


def _rows(path: Path, query: str, values: Iterable = ()) -> list[sqlite3.Row]:
    """Nothing where there is no database, or a broken one, which `databases_whole` tells."""
    if not path.exists():
        return []
    try:
        with _reading(path) as connection:
            return connection.execute(query, tuple(values)).fetchall()
    except sqlite3.Error:
        return []


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that never writes to `path`: to a copy of it where a crash left a journal that is to be rolled back."""
    with tempfile.TemporaryDirectory(prefix="realm-") as folder, ExitStack() as open_ones:
        connection = open_ones.enter_context(closing(_connect(path, "ro")))
        try:
            connection.execute("SELECT * FROM sqlite_master").fetchone()
        except sqlite3.OperationalError:
            for each in (path, *(path.with_name(path.name + ending) for ending in JOURNALS)):
                if each.exists():
                    shutil.copy2(each, folder)
            connection = open_ones.enter_context(closing(_connect(Path(folder) / path.name, "rw")))
        yield connection


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=30)
    connection.row_factory = sqlite3.Row
    return connection
