"""The board of quests, as plain dictionaries: folders say what is, the ledger says what was."""

import os
from heapq import nsmallest
from pathlib import Path
from typing import Any

from core.durable import read_json
from core.inbox import is_quest_name
from core.paths import PRIORITIES, QUEUE_STATES, RealmPaths
from core.quest import parse_file_name, quest_name
from core.training_queue import TrainingQueue
from monitoring.servers.tavern.realm import Realm

COLUMN = 24
SHOWN_ERRORS = 12
FOLDERS = {"recently_completed": "done", "failed": "failed", "rejected": "rejected"}


def quests(realm: Realm) -> dict[str, Any]:
    """The board: arriving, waiting by priority, in training, done, failed, rejected. Only the lists are cut."""
    queue = TrainingQueue(realm.paths, realm.ledger)
    counts = realm.status()["queue"]
    lines = {priority: queue.head_of_line(priority, COLUMN) for priority in PRIORITIES} | {
        "processing": queue.processing()
    }
    cards = {state: [_card(realm, quest.id, quest.stem) for quest in line] for state, line in lines.items()}
    past = {name: _past(realm, state) for state, name in FOLDERS.items()}
    return {
        "arriving": arriving(realm.paths),
        "waiting": cards,
        "processing": cards["processing"],
        "counts": counts,
        "column": COLUMN,
        **past,
    }


def version(realm: Realm) -> str:
    """Changes with every change of a quest, also of its place alone."""
    return str(realm.ledger.one("SELECT MAX(updated) AS updated FROM quests")["updated"])


def arriving(paths: RealmPaths) -> list[dict[str, Any]]:
    """Files in the inbox, and those that are being checked; the first of each."""
    found = []
    for priority in PRIORITIES:
        folder = paths.inbox_for(priority)
        names = filter(is_quest_name, os.listdir(folder)) if folder.is_dir() else ()
        found += [
            {"name": name, "where": "in the inbox", "quest": None, "priority": priority}
            for name in nsmallest(COLUMN, names)
        ]
    claimed = filter(parse_file_name, os.listdir(paths.claims)) if paths.claims.is_dir() else ()
    names = [parse_file_name(name) for name in nsmallest(COLUMN, claimed)]
    return found + [{"name": f"{stem}.jsonl", "where": "is being checked", "quest": quest} for stem, quest in names]


def _card(realm: Realm, quest: int, stem: str) -> dict[str, Any]:
    return realm.ledger.one("SELECT * FROM quests WHERE id=?", (quest,)) or {
        "id": quest,
        "stem": stem,
        "rows": None,
        "form": None,
        "bytes": None,
        "failures": 0,
        "created": None,
    }


def _past(realm: Realm, state: str) -> list[dict[str, Any]]:
    """The newest quests that ended in `state`, each with its newest battle, and its report where there is trouble."""
    rows = realm.ledger.all("SELECT * FROM quests WHERE state=? ORDER BY updated DESC LIMIT ?", (state, COLUMN))
    marks = ",".join("?" * len(rows))
    battles = {
        row["quest"]: row
        for row in realm.ledger.all(
            "SELECT quest, validation_loss_before, validation_loss, MAX(id) FROM battles "
            f"WHERE quest IN ({marks}) GROUP BY quest",
            [row["id"] for row in rows],
        )
    }
    trouble = state != "recently_completed"
    return [
        row | {"battle": battles.get(row["id"]), "report": report_of(realm.paths, row) if trouble else None}
        for row in rows
    ]


def report_of(paths: RealmPaths, row: dict[str, Any]) -> dict[str, Any] | None:
    """The report beside a quest's file, cut to its first errors, or None."""
    names = [quest_name(row["stem"], row["id"])] + ([row["stem"]] if row["state"] == "rejected" else [])
    state = row["state"] if row["state"] != "queued" else row["priority"]
    if state not in QUEUE_STATES:  # not judged yet, or gone
        return None
    folder = paths.queued(state)
    for name in names:
        report = read_json(_inside(folder, f"{name}.report.json"), {}) if _inside(folder, name) else {}
        if isinstance(report, dict) and report and report.get("quest", row["id"]) == row["id"]:
            errors = [error for error in report.get("errors") or [] if isinstance(error, dict)]
            return report | {
                "errors": errors[:SHOWN_ERRORS],
                "more": max(0, len(errors) - SHOWN_ERRORS),
                "path": f"{folder.name}/{name}.report.json",
            }
    return None


def _inside(folder: Path, name: str) -> Path | None:
    """`name` as a file of `folder`, or None where it would lead out of it."""
    return folder / name if name == Path(name).name and name not in ("", ".", "..") else None
