"""`quest list|show|retry|cancel`: quests that the realm knows. Files that it does not know yet: quest_files."""

import argparse
import json
import os
import re
import shutil
import stat
import time
from pathlib import Path
from typing import BinaryIO

from core.control import wish
from core.durable import read_json
from core.errors import UserError, nearest
from core.inbox import drop
from core.logs import visible
from core.paths import PRIORITIES, QUEUE_STATES
from core.quest import COMPANIONS, Quest
from core.status import service_states
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
    actions = group(verbs, "quest", "training data files: add, list, show, preview, validate, retry, cancel")
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


def retry(realm: Realm) -> None:
    queue = TrainingQueue(realm.existing, realm.ledger)
    quest = queue.find(realm.args.id)
    if quest.state == "failed":
        realm.ledger.change("quests", quest.id, failures=0)
        text = f"{quest.name} waits again in {queue.put_back(quest).state}."
    elif quest.state == "rejected":
        text = _judge_again(realm, quest)
    elif quest.state == "recently_completed":
        text = _train_again(realm, quest)
    else:
        raise UserError(f"quest {quest.id} is in {quest.state} and needs no retry")
    realm.report({"quest": quest.id, "text": text}, visible(text))


def _judge_again(realm: Realm, quest: Quest) -> str:
    """Through the inbox once more; the rejected copy goes when the new one is safe."""
    if quest.report.get("reason") == "duplicate" and not realm.args.force:
        raise UserError(
            f"quest {quest.id} is a duplicate of quest {quest.report.get('duplicate_of')}; --force trains it"
        )
    _drop_again(realm, quest, read_json(quest.companion(".quest.json"), {}))
    quest.path.unlink()
    for suffix in COMPANIONS:
        quest.companion(suffix).unlink(missing_ok=True)
    realm.ledger.change("quests", quest.id, state="retried", updated=time.time())
    return f"{quest.stem} lies in the inbox again, to be judged anew."


def _train_again(realm: Realm, quest: Quest) -> str:
    if not realm.args.force:
        raise UserError(f"quest {quest.id} was trained to its end; --force trains it again")
    card = quest.card
    settings = {name: card["settings"][name] for name in ("school", "epochs", "seed", "columns")}
    _drop_again(realm, quest, settings | {name: card[name] for name in ("skill", "origin") if card.get(name)})
    return f"A copy of {quest.stem} lies in the inbox, to be trained again."


def _drop_again(realm: Realm, quest: Quest, sidecar: dict) -> None:
    row = realm.ledger.one("SELECT priority FROM quests WHERE id=?", (quest.id,))
    sidecar |= {"force": True} if realm.args.force else {}
    with _open_regular(quest.path) as source, drop(realm.existing, quest.stem, row["priority"], sidecar) as file:
        shutil.copyfileobj(source, file)


def _open_regular(path: Path) -> BinaryIO:
    """`path` for reading, never what a link leads to and never a pipe."""
    if not stat.S_ISREG(path.lstat().st_mode):
        raise UserError(f"{path} is no regular file; drop the file itself into the inbox")
    return open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")


def cancel(realm: Realm) -> None:
    """By the trainer where one runs, since it moves quests, too; else here."""
    queue = TrainingQueue(realm.existing, realm.ledger)
    quest = queue.find(realm.args.id)
    if quest.state not in (*PRIORITIES, "processing"):
        raise UserError(f"quest {quest.id} is in {quest.state}; only one that waits or is in training can be cancelled")
    if any(service["name"] == "trainer" and service["pid"] for service in service_states(realm.paths)):
        text = _ask_trainer(realm, quest)
    else:
        queue.give_up(quest, "cancelled")
        text = f"{quest.name} is in queue/failed/."
    realm.report({"quest": quest.id, "text": text}, visible(text))


def _ask_trainer(realm: Realm, quest: Quest) -> str:
    key = wish(realm.ledger, "cancel", str(quest.id))
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        row = realm.ledger.one("SELECT done, result FROM control WHERE id=?", (key,))
        if row["done"]:
            return f"Cancelling {quest.name}: {row['result']}."
        time.sleep(0.1)
    return f"The trainer will cancel {quest.name} as soon as it can."
