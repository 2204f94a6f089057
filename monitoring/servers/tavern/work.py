"""Every piece of work on record, newest first: battles, evaluations, and the jobs of core/jobs.py. It only reads.

A piece's id names its kind and its row: `battle-12`, `backup-3`. Its log are the events of its time that are about its
quest or come from its service.
"""

import time
from typing import Any, Literal, get_args

from core import jobs
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

Kind = Literal[
    "battle", "evaluation", "preparation", "sparring", "asking", "generation", "backup", "export", "cooldown"
]
State = Literal["running", "done", "failed", "left"]
KINDS, STATES = get_args(Kind), get_args(State)
STORED = {"running": ("running", "saving"), "done": ("done",), "failed": ("failed",)}  # all others were left
EVENTS = 200
TABLES = {  # kind, id, started, state of every piece
    "battles": "SELECT 'battle' AS kind, id, started, state FROM battles",
    "evaluations": "SELECT 'evaluation' AS kind, id, created AS started, 'done' AS state FROM evaluations "
    "WHERE kind='validation'",
    "jobs": "SELECT kind, id, started, state FROM jobs",
}


def pieces(
    realm: Realm, kind: str | None = None, state: str | None = None, limit: int = 100, before: str | None = None
) -> list[dict[str, Any]]:
    """At most `limit`, newest first. Without a kind, evaluations are left out: a battle has hundreds, and its page names them."""
    chosen = [_table(kind)] if kind else ["battles", "jobs"]
    where, values = ["1"], []
    if kind and chosen == ["jobs"]:
        where, values = ["kind=?"], [kind]
    if before is not None:
        where.append("(started, kind, id) < (?, ?, ?)")
        values += _place(realm, before)
    if state is not None:
        sets = STORED.get(state) or tuple(each for states in STORED.values() for each in states if each != "running")
        where.append(f"state {'IN' if state in STORED else 'NOT IN'} ({', '.join('?' * len(sets))})")
        values += sets
    union = " UNION ALL ".join(TABLES[name] for name in chosen)
    found = realm.ledger.all(
        f"SELECT kind, id, started FROM ({union}) WHERE {' AND '.join(where)} "
        "ORDER BY started DESC, kind DESC, id DESC LIMIT ?",
        [*values, limit],
    )
    told = _told(realm, found)
    return told if state is None else [piece for piece in told if group(piece["state"]) == state]


def group(state: str) -> str:
    """Which of the four states that can be asked for a piece's own state belongs to."""
    return next((name for name, states in STORED.items() if state in states), "left")


def piece(realm: Realm, key: str) -> dict[str, Any]:
    """One piece of work. Raises Refusal where there is none."""
    started, kind, number = _place(realm, key)
    return _told(realm, [{"kind": kind, "id": number, "started": started}])[0]


def log(realm: Realm, piece: dict[str, Any]) -> list[dict[str, Any]]:
    """The newest events of the piece's time that its service told or that are about its quest, oldest first."""
    rows = realm.ledger.all(
        "SELECT id, time, service, level, code, text FROM events WHERE time BETWEEN ? AND ? "
        "AND (service=? OR json_extract(data, '$.quest')=?) ORDER BY time DESC, id DESC LIMIT ?",
        (piece["started"] - 1, (piece["finished"] or time.time()) + 1, piece["service"], piece["quest"], EVENTS),
    )
    return rows[::-1]


def version(realm: Realm) -> str:
    """Changes when a job begins or ends; battles tell of themselves by events."""
    row = realm.ledger.one("SELECT MAX(id) AS id, (SELECT state FROM jobs ORDER BY id DESC) AS state FROM jobs")
    return f"{row['id']} {row['state']}"


def totals(realm: Realm) -> dict[str, float]:
    """Everything the hero has gone through."""
    return realm.ledger.one(
        "SELECT COUNT(*) AS battles, COALESCE(SUM(tokens), 0) AS tokens, "
        "COALESCE(SUM(seconds), 0) AS seconds, COALESCE(SUM(xp), 0) AS xp FROM battles WHERE hero=?",
        (realm.config.hero.name,),
    )


def battles_of(realm: Realm, quest: int, limit: int = 100) -> list[dict[str, Any]]:
    """A quest's battles, newest first, whoever fought them."""
    return _battles(realm, "WHERE battles.quest=?", [quest, limit])


def last_battle(realm: Realm) -> dict[str, Any] | None:
    """The hero's newest."""
    return next(iter(_battles(realm, "WHERE battles.hero=?", [realm.config.hero.name, 1])), None)


def _table(kind: str) -> str:
    return {"battle": "battles", "evaluation": "evaluations"}.get(kind, "jobs")


def is_known(realm: Realm, key: str) -> bool:
    """Whether there is such a piece."""
    return _found(realm, key) is not None


def _place(realm: Realm, key: str) -> tuple[float, str, int]:
    """Where a piece stands in the order of all. Raises Refusal where there is none."""
    if place := _found(realm, key):
        return place
    raise Refusal(404, "no_job", f"There is no job {key[:60]!r}.")


def _found(realm: Realm, key: str) -> tuple[float, str, int] | None:
    kind, _, number = key.rpartition("-")
    if kind in KINDS and number.isascii() and number.isdigit() and len(number) < 19:
        union = TABLES[_table(kind)]
        row = realm.ledger.one(f"SELECT started FROM ({union}) WHERE kind=? AND id=?", (kind, int(number)))
        if row:
            return row["started"], kind, int(number)
    return None


def _told(realm: Realm, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pieces in words and numbers, in the order in which they were found."""
    told: dict[str, dict[str, Any]] = {}
    for table, tell in (("battles", _fought), ("evaluations", _evaluated), ("jobs", _worked)):
        ids = [one["id"] for one in found if _table(one["kind"]) == table]
        if ids:
            told |= {piece["id"]: piece for piece in tell(realm, ids)}
    return [told[f"{one['kind']}-{one['id']}"] for one in found]


def _fought(realm: Realm, ids: list[int]) -> list[dict[str, Any]]:
    return _battles(realm, f"WHERE battles.id IN ({', '.join('?' * len(ids))})", [*ids, len(ids)])


def _battles(realm: Realm, where: str, values: list) -> list[dict[str, Any]]:
    rows = realm.ledger.all(
        f"SELECT battles.*, quests.stem FROM battles LEFT JOIN quests ON quests.id = battles.quest {where} "
        "ORDER BY battles.id DESC LIMIT ?",
        values,
    )
    running = realm.status()["battle"] or {}
    return [_battle(row, running) for row in rows]


def _evaluated(realm: Realm, ids: list[int]) -> list[dict[str, Any]]:
    rows = realm.ledger.all(
        "SELECT evaluations.*, quests.stem FROM evaluations LEFT JOIN quests ON quests.id = evaluations.quest "
        f"WHERE evaluations.id IN ({', '.join('?' * len(ids))})",
        ids,
    )
    return [
        _piece("evaluation", row, row["stem"] or f"quest {row['quest']}", "done", "trainer")
        | {"started": row["created"], "finished": row["created"], "validation_loss": row["value"], "step": row["step"]}
        for row in rows
    ]


def _worked(realm: Realm, ids: list[int]) -> list[dict[str, Any]]:
    rows = realm.ledger.all(f"SELECT * FROM jobs WHERE id IN ({', '.join('?' * len(ids))})", ids)
    told = []
    for row in rows:
        state, until = jobs.state_of(row), row["finished"] or time.time()
        seconds = None if state == "interrupted" else until - row["started"]
        piece = _piece(row["kind"], row, row["title"], state, row["service"])
        told.append(piece | {name: row[name] for name in ("started", "finished", "reason")} | {"seconds": seconds})
    return told


def _piece(kind: str, row: dict, title: str, state: str, service: str) -> dict[str, Any]:
    """What all pieces have."""
    facts = {"id": f"{kind}-{row['id']}", "kind": kind, "title": title, "state": state, "service": service}
    return facts | {"quest": row["quest"], "live": False, "seconds": None, "reason": None}


def _battle(row: dict, running: dict) -> dict[str, Any]:
    """A battle's row for people; the running one has its losses and its speed from the trainer's snapshot."""
    live = row["state"] == "running" and running.get("quest_id") == row["quest"]
    told = (
        "school",
        "total_steps",
        "start_step",
        "loss",
        "validation_loss_before",
        "validation_loss",
        "xp",
        "reason",
        "started",
        "finished",
    )
    stem = row["stem"] or f"quest {row['quest']}"
    state = "interrupted" if row["state"] == "running" and not live else row["state"]
    piece = _piece("battle", row, stem, state, "trainer") | {name: row[name] for name in told}
    piece |= {
        "live": live,
        "stem": stem,
        "step": _steps_done(row),
        "seconds": row["finished"] - row["started"] if row["finished"] else row["seconds"] or None,
        "tokens_per_second": row["tokens"] / row["seconds"] if row["seconds"] else None,
    }
    if live:
        now_known = {name: running.get(name) for name in ("step", "loss", "validation_loss", "tokens_per_second")}
        piece |= now_known | {"seconds": time.time() - row["started"]}
    return piece


def _steps_done(row: dict) -> int | None:
    if row["state"] == "done":
        return row["total_steps"]
    return None if row["end_step"] is None else row["end_step"] - row["start_step"]
