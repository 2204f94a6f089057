"""`quest list|show|retry|cancel|move`: quests that the realm knows. Files that it does not know yet: quest_files."""

import argparse
import json
import re
import time
from typing import Any

from core.control import result
from core.errors import UserError, nearest
from core.logs import visible
from core.paths import PRIORITIES, QUEUE_STATES
from core.quest_acts import ENDS, QuestActs
from core.steps import read_previews
from core.training_queue import TrainingQueue
from training.commands import quest_files
from training.commands.logs import death_text
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import cell_text, moment_text, table

LEDGER_STATES = ("arriving", "queued", "vanished", "retried")
PATIENCE_SECONDS = 3.0


def register(verbs) -> None:
    actions = group(verbs, "quest", "training data files: add, list, show, preview, validate, retry, cancel, move")
    quest_files.register(actions)
    parser = verb(actions, "list", list_quests, "quests, newest last")
    parser.add_argument("--state", help=f"only one of {', '.join(QUEUE_STATES)}")
    parser = verb(actions, "show", show, "all about one quest: history, card, report, battles, held-out rows, answers")
    parser.add_argument("id", type=quest_id, metavar="ID")
    parser = verb(actions, "retry", retry, "train a failed quest again, or judge a rejected one anew")
    parser.add_argument("id", type=quest_id, metavar="ID")
    parser.add_argument("--force", action="store_true", help="also a duplicate, or a quest that was trained to its end")
    parser = verb(actions, "cancel", cancel, "take a quest out of the queue or out of training, to queue/failed/")
    parser.add_argument("id", type=quest_id, metavar="ID")
    parser = verb(actions, "move", move, "let a waiting quest be trained sooner or later than the others")
    parser.add_argument("id", type=quest_id, metavar="ID")
    parser.add_argument("--priority", choices=PRIORITIES, help="where it is to wait; its last place, unless told more")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--before", type=quest_id, metavar="OTHER", help="just before this quest, in its priority")
    where.add_argument("--after", type=quest_id, metavar="OTHER", help="just after this quest, in its priority")
    where.add_argument("--to", choices=ENDS, help="within its priority")


def quest_id(text: str) -> int:
    """3, q000003 and NAME-q000003 are the same quest."""
    found = re.fullmatch(r"(?:.*-)?q?(\d+)(?:\.jsonl)?", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no quest's number; `quest list` shows them")
    return int(found[1])


def list_quests(realm: Realm) -> None:
    state = realm.args.state
    known = (*QUEUE_STATES, *LEDGER_STATES)
    if state not in (None, *known):
        raise UserError(f"unknown state {state!r}{nearest(state, known) or '.'} Known: {', '.join(known)}")
    if state in PRIORITIES:
        rows = realm.ledger.all("SELECT * FROM quests WHERE state='queued' AND priority=? ORDER BY id", (state,))
    else:
        rows = realm.ledger.all("SELECT * FROM quests WHERE ? IN ('', state) ORDER BY id", (state or "",))
    columns = ("id", "stem", "state", "priority", "rows", "bad_rows", "form", "reason")
    realm.report(rows, lambda: table(columns, ([row[name] for name in columns] for row in rows)))


def show(realm: Realm) -> None:
    number = realm.args.id
    row = realm.ledger.one("SELECT * FROM quests WHERE id=?", (number,))
    if row is None:
        raise UserError(f"there is no quest {number}; `quest list` shows them")
    battles = realm.ledger.all("SELECT * FROM battles WHERE quest=? ORDER BY id", (number,))
    held_out = [json.loads(battle.pop("held_out") or "null") for battle in battles]
    about = {
        **row,
        "file": None,
        "card": {},
        "report": {},
        "battles": battles,
        "held_out": held_out[-1] if held_out else None,
        "previews": read_previews(realm.paths.metrics, number),
    }
    try:
        quest = TrainingQueue(realm.existing, realm.ledger).find(number)
        about |= {"file": str(quest.path), "card": quest.card, "report": quest.report}
    except UserError:  # its files are gone; history stays
        pass
    realm.report(about, lambda: _page(about))


def _page(about: dict) -> str:
    plain = {**about, "created": moment_text(about["created"]), "updated": moment_text(about["updated"])}
    lines = [
        f"{name:12} {cell_text(value)}"
        for name, value in plain.items()
        if value is not None and not isinstance(value, dict | list)
    ]
    lines += quest_files.judgement(about["report"]) if about["report"] else []
    lines += [f"failed {death_text(attempt)}" for attempt in about["report"].get("attempts", [])]
    columns = (
        "id",
        "state",
        "start_step",
        "end_step",
        "total_steps",
        "loss",
        "validation_loss_before",
        "validation_loss",
        "seconds",
    )
    if about["battles"]:
        lines += ["", table(columns, ([battle[name] for name in columns] for battle in about["battles"]))]
    lines += [line for look in about["previews"][:1] for line in _answers(look)]
    return "\n".join(lines)


def _answers(look: dict) -> list[str]:
    """The hero's newest answers beside the expected ones."""
    lines = ["", f"Answers at step {look['step']:,}, {moment_text(look['time'])}:"]
    for told in look["answers"]:
        texts = (cell_text(told[name].replace("\n", " ")) for name in ("prompt", "answer", "expected"))
        lines += ["", *(f"  {name:9} {text}" for name, text in zip(("prompt", "hero", "expected"), texts, strict=True))]
    return lines


# Changing


def _acts(realm: Realm) -> QuestActs:
    return QuestActs(realm.existing, realm.ledger, "cli")


def retry(realm: Realm) -> None:
    _tell(realm, _acts(realm).retry(realm.args.id, realm.args.force))


def move(realm: Realm) -> None:
    args = realm.args
    _tell(realm, _acts(realm).move(args.id, args.priority, args.before, args.after, args.to))


def cancel(realm: Realm) -> None:
    """By the trainer where one trains it, and then with a little patience; else here."""
    done = _acts(realm).cancel(realm.args.id)
    if "wish" in done:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while (told := result(realm.ledger, done["wish"])) is None and time.monotonic() < deadline:
            time.sleep(0.1)
        done |= {"text": f"Cancelling quest {realm.args.id}: {told}."} if told else {}
    _tell(realm, done)


def _tell(realm: Realm, done: dict[str, Any]) -> None:
    realm.report(done, visible(done["text"]))
