"""One quest for its page: where it is, its facts, settings, report and battles, its lengths, and a preview of its rows.

Rows come from the previewer's child process. Names of files from outside are looked up in listings, never joined to a path.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.corrections import is_sparring
from core.durable import read_json
from core.errors import UserError
from core.hero import tokenizer_folder
from core.inbox import SIDECAR, is_quest_name, queue_stem
from core.paths import PRIORITIES
from core.quest import Settings, Sidecar, freeze, quest_name, read_sidecar
from core.training_queue import TrainingQueue
from monitoring.servers.tavern import boards, work
from monitoring.servers.tavern.length_chart import length_chart
from monitoring.servers.tavern.previewer import ALL_TOKENS, ROWS, SHOWN_TOKENS, Previewer
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

TOLD_SETTINGS = (
    "epochs",
    "batch_size",
    "max_length",
    "learning_rate",
    "seed",
    "validation_fraction",
    "optimizer_state",
    "profile",
)

MOST_MOVES = 4  # of a file under a reader's hands: inbox, judged, waiting, in training, done
NO_REPORT = {"errors": [], "warnings": [], "more": 0, "path": None, "text": None, "tokens": None}


@dataclass(frozen=True)
class File:
    """A quest's data file, wherever it is. `address`: its page; `form`: where it is known."""

    path: Path
    address: str
    settings: Settings
    form: str | None = None


def quest_row(realm: Realm, quest: int) -> dict[str, Any]:
    row = realm.ledger.one("SELECT * FROM quests WHERE id=?", (quest,))
    if row is None:
        raise Refusal(404, "no_quest", f"There is no quest {quest}.")
    return row


def one(realm: Realm, quest: int) -> dict[str, Any]:
    """Everything about a quest but its rows."""
    row = quest_row(realm, quest)
    file, why = _file_or_reason(realm, row)
    report = NO_REPORT | (boards.report_of(realm.paths, row) or {})
    plan = _plan(realm, file.settings, report) if file and not is_sparring(row) else None
    settings = file.settings.model_dump() if file else {}
    state = _state(realm, row)
    return {
        "quest": row,
        "state": state,
        "file": str(file.path.relative_to(realm.paths.root)) if file else None,
        "missing": why,
        "settings": [(name, settings[name]) for name in TOLD_SETTINGS if settings.get(name) is not None],
        "report": report,
        "plan": plan,
        "battles": work.battles_of(realm, quest, 20),
        "can": {
            "move": state in PRIORITIES,
            "cancel": state in (*PRIORITIES, "processing"),
            "retry": state in ("failed", "rejected"),
            "force": row["reason"] == "duplicate",
        },
    }


def rows(
    realm: Realm, previewer: Previewer, find: Callable[[], File], at: int = 0, line: int = 0, alone: bool = False
) -> dict[str, Any]:
    """A page of rows, or one row `alone` with all its tokens; with the first page, what the file seems to hold.

    A quest moves from folder to folder while somebody wants to see it: then it is found and read again.
    """
    for moves in range(MOST_MOVES + 1):
        try:
            return _rows(realm, previewer, find(), at, line, alone)
        except Refusal as problem:
            if problem.code != "moved" or moves == MOST_MOVES:
                raise


def _rows(realm: Realm, previewer: Previewer, file: File, at: int, line: int, alone: bool) -> dict[str, Any]:
    known = at > 0 or alone or _has_histogram(file)
    task = {
        "settings": file.settings.model_dump(),
        "tokenizer": str(tokenizer_folder(realm.paths, realm.config)),
        "form": file.form,
        "rows": 1 if alone else ROWS,
        "at": at,
        "line": line,
        "most_tokens": ALL_TOKENS if alone else SHOWN_TOKENS,
        "glance": not known,
    }
    shown = previewer.ask(file.path, task)
    glance = shown.get("glance")
    return {
        "preview": shown,
        "plan": _plan(realm, file.settings, glance) if glance else None,
        "max_length": file.settings.max_length,
        "address": file.address,
        "first_page": at == 0,
        "alone": alone,
    }


# Where the file is


def file_of(realm: Realm, row: dict[str, Any]) -> File:
    """Raises Refusal where there is none any more."""
    file, why = _file_or_reason(realm, row)
    if file is None:
        raise Refusal(404, "no_file", why)
    return file


def _file_or_reason(realm: Realm, row: dict[str, Any]) -> tuple[File | None, str | None]:
    address = f"/quests/{row['id']}"
    claimed = realm.paths.claims / f"{quest_name(row['stem'], row['id'])}.jsonl"
    try:
        if os.path.lexists(claimed):
            return File(claimed, address, _settings(realm, claimed.with_suffix(SIDECAR))), None
        quest = TrainingQueue(realm.paths, realm.ledger).find(row["id"])
        card = quest.card
        if "settings" in card:
            return File(quest.path, address, Settings(**card["settings"]), card["form"]), None
        settings = _settings(realm, quest.companion(SIDECAR))
        return File(quest.path, address, settings, quest.report.get("form")), None
    except UserError as problem:
        return None, str(problem)


def dropped(realm: Realm, name: str, priority: str) -> File | int:
    """A file in the inbox, or the newest quest that was made of one of that name. Raises Refusal where there is neither."""
    folder = realm.paths.inbox_for(priority if priority in PRIORITIES else "normal")
    known = next((each for each in os.listdir(folder) if each == name and is_quest_name(each)), None)
    if known:
        stem = known[: -len(".jsonl")]
        settings = _settings(realm, folder / f"{stem}{SIDECAR}")
        return File(folder / known, "/quests/dropped", settings)
    stem = queue_stem(name.removesuffix(".jsonl"))
    row = realm.ledger.one("SELECT id FROM quests WHERE stem=? ORDER BY id DESC LIMIT 1", (stem,))
    if row is None:
        raise Refusal(404, "no_file", "There is no such file in the inbox, and no quest of that name.")
    return row["id"]


def dropped_file(realm: Realm, name: str, priority: str) -> File:
    """The same, wherever the file is by now."""
    found = dropped(realm, name, priority)
    return found if isinstance(found, File) else file_of(realm, quest_row(realm, found))


def _settings(realm: Realm, sidecar: Path) -> Settings:
    """The settings that the quest would get now; those of a wrong sidecar, which the check will name, are left out."""
    try:
        return freeze(realm.config, read_sidecar(sidecar))
    except UserError:
        return freeze(realm.config, Sidecar())


def _state(realm: Realm, row: dict[str, Any]) -> str:
    """The folder that it lies in; before and after, what the ledger says."""
    if row["state"] in ("arriving", "vanished", "retried"):
        return row["state"]
    try:
        return TrainingQueue(realm.paths, realm.ledger).find(row["id"]).state
    except UserError:
        return row["state"]


# What training will take


def _has_histogram(file: File) -> bool:
    report = read_json(file.path.with_suffix(".report.json"), {})
    return isinstance(report, dict) and "histogram" in (report.get("tokens") or {})


def _plan(realm: Realm, settings: Settings, report: dict[str, Any]) -> dict[str, Any] | None:
    """Rows, tokens, lengths, steps and time by a report or a glance; None where nothing was measured."""
    tokens = report["tokens"]
    if not tokens or "histogram" not in tokens or report.get("rows") is None:
        return None
    rows, pace = report["rows"], _pace(realm)
    every = tokens["total"] * settings.epochs
    return {
        "exact": tokens["exact"],
        "rows": rows,
        "measured": tokens["rows_measured"],
        "tokens": tokens["total"],
        "trained_tokens": round(tokens["trained_mean"] * rows),
        "trained_share": tokens["trained_mean"] / tokens["mean"] if tokens["mean"] else 0.0,
        "cut_rows": tokens["truncated_rows"],
        "median": tokens["median"],
        "longest": tokens["histogram"]["longest"],
        "steps": settings.planned_steps(rows),
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "seconds": every / pace if pace else None,
        "chart": length_chart(tokens["histogram"]),
    }


def _pace(realm: Realm) -> float | None:
    """Tokens a second of the newest battle that was fought to its end."""
    row = realm.ledger.one(
        "SELECT tokens, seconds FROM battles WHERE hero=? AND state='done' AND seconds > 0 ORDER BY id DESC LIMIT 1",
        (realm.config.hero.name,),
    )
    return row["tokens"] / row["seconds"] if row and row["tokens"] else None
