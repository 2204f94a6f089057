"""A realm with a long past for `bench tavern`: a million steps on record, ten thousand quests, written by SQL in seconds.

The numbers are believable and the same each time. It measures nothing.
"""

import sqlite3
from contextlib import closing

from core.ledger import Ledger
from core.paths import RealmPaths
from core.steps import StepRecord

QUEST_STEPS = 100
ENDS = ("failed", "rejected", *("recently_completed",) * 18)  # of quests, in turn
_COUNTED = "WITH RECURSIVE counted(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM counted WHERE n < {count})"
_STEPS = """
    INSERT OR IGNORE INTO steps {counted} SELECT {hero}, n, 1 + (n - 1) / {per}, {now} - ({count} - n) * 0.4,
    1.3 + 5.0 / (1 + n / 20000.0) + (n * 7919 % 1000) / 4000.0, 1e-3 * (1 - (n % {per}) / {per}.0),
    0.8 + (n % 11) / 40.0, 4000 + n % 7, 0.4 + (n % 5) / 100.0, 0 FROM counted"""
_BLOCKS = """
    INSERT INTO blocks SELECT hero, step / 64 AS block, quest, MIN(step), MAX(step), COUNT(*),
    MIN(loss), MAX(loss), SUM(loss), COUNT(*), MIN(gradient_norm), MAX(gradient_norm), SUM(gradient_norm), COUNT(*),
    MIN(learning_rate), MAX(learning_rate), SUM(learning_rate), COUNT(*),
    MIN(tokens / seconds), MAX(tokens / seconds), SUM(tokens), SUM(seconds) FROM steps GROUP BY block, quest"""


def fill_record(paths: RealmPaths, steps: int, now: float, hero: str = "DIO") -> None:
    """`steps` steps in state/metrics.db, summed up per block as the trainer does it, with a held-out loss every fiftieth."""
    StepRecord(paths.metrics, hero)
    with closing(sqlite3.connect(paths.metrics, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=OFF")
        number = connection.execute("SELECT id FROM heroes WHERE name=?", (hero,)).fetchone()[0]
        connection.execute("BEGIN")
        counted = _COUNTED.format(count=steps)
        connection.execute(_STEPS.format(counted=counted, hero=number, per=QUEST_STEPS, now=now, count=steps))
        connection.execute("DELETE FROM blocks")
        connection.execute(_BLOCKS)
        connection.execute(
            "INSERT OR IGNORE INTO validations SELECT hero, step, quest, time, loss + 0.05 FROM steps WHERE step % 50 = 0"
        )
        connection.execute("COMMIT")


def fill_ledger(paths: RealmPaths, ledger: Ledger, quests: int, steps: int, now: float, hero: str = "DIO") -> None:
    """`quests` quests that have ended, their battles, checkpoints long gone, evaluations, events; and their files.

    Called after the hero has woken up: on waking he trains again what his checkpoints lack.
    """
    counted, ends = (
        _COUNTED.format(count=quests),
        "CASE n % {} {} END".format(
            len(ENDS), " ".join(f"WHEN {place} THEN '{end}'" for place, end in enumerate(ENDS))
        ),
    )
    first = ledger.one("SELECT COALESCE(MAX(id), 0) AS id FROM quests")["id"]
    with ledger.together():
        execute = ledger.connection.execute
        execute(
            "INSERT INTO quests (id, stem, origin, state, priority, sha256, bytes, rows, bad_rows, form, school, skill, created, "
            f"updated) {counted} SELECT {first} + n, 'lore-' || n, 'user', {ends}, 'normal', 'sum' || n, 40000, 64, 0, 'messages', "
            f"'scribe', IIF(n % 3, NULL, 'BIN'), {now} - ({quests} - n) * 60.0, {now} - ({quests} - n) * 60.0 FROM counted"
        )
        length = max(1, steps // quests)
        execute(
            "INSERT INTO battles (quest, hero, school, state, start_step, total_steps, loss, validation_loss_before, "
            f"validation_loss, tokens, seconds, effort, xp, started, finished) {counted} SELECT {first} + n, '{hero}', 'scribe', "
            f"'done', (n - 1) * {length}, {length}, 1.4, 1.6, 1.45, 400000, 40.0, 20.0, 30.0, {now} - ({quests} - n) * 60.0 - 45, "
            f"{now} - ({quests} - n) * 60.0 FROM counted"
        )
        execute(
            "INSERT INTO checkpoints (id, hero, campaign, step, quest, state, bytes, validation_loss, created, gone) "
            f"{counted} SELECT 'gone-' || n, '{hero}', 'c1', n * {length}, {first} + n, 'promoted', 11000000, 1.45, "
            f"{now} - ({quests} - n) * 60.0, {now} FROM counted"
        )
        for kind, value in (("validation", 1.45), ("accuracy", 0.6), ("preview", 0.5)):
            execute(
                f"INSERT INTO evaluations (hero, kind, school, quest, step, value, created) {counted} "
                f"SELECT '{hero}', '{kind}', 'scribe', {first} + n, n * {length}, {value}, {now} FROM counted"
            )
        execute(
            f"INSERT INTO events (time, service, level, code, text, data) {counted.replace(str(quests), str(5 * quests))} "
            f"SELECT {now} - ({5 * quests} - n) * 12.0, 'trainer', IIF(n % 50, 'info', 'alert'), "
            "CASE n % 5 WHEN 0 THEN 'quest_accepted' WHEN 1 THEN 'battle_began' WHEN 2 THEN 'checkpoint_saved' "
            "WHEN 3 THEN 'quest_failed' ELSE 'quest_done' END, 'lore-' || (n / 5) || ': something happened.', '{}' FROM counted"
        )
    for number in range(1, quests + 1):
        folder = paths.queued(ENDS[number % len(ENDS)])
        (folder / f"lore-{number}-q{first + number:06d}.jsonl").write_bytes(b"{}\n")
