"""Wishes: what people want of the trainer, kept in the ledger until it carries them out between two steps.

`pause` and `resume` set a lasting state: a realm that was paused is still paused after a restart.
"""

import time

from core.errors import UserError, nearest
from core.ledger import Ledger

POINTING = ("promote", "rollback")  # by hand: core/turning_back.py
VERBS = ("pause", "resume", "skip", "cancel", *POINTING)


def wish(ledger: Ledger, verb: str, argument: str | None = None) -> int:
    """Ask for `verb`; the id tells later whether it was carried out."""
    if verb not in VERBS:
        raise UserError(f"unknown wish {verb!r}{nearest(verb, VERBS) or '.'} Known: {', '.join(VERBS)}")
    if verb == "cancel" and not (argument or "").isdecimal():
        raise UserError(f"cancel {argument!r}: give the number of a quest; `quest list` shows them")
    if verb in POINTING and not argument:
        raise UserError(f"{verb}: give a checkpoint; `vault list` shows them")
    return ledger.add("control", verb=verb, argument=argument, created=time.time())


def concerns(wish: dict, quest: int) -> bool:
    """Whether a skip or cancel means this quest; one that names none means whatever is in training."""
    return wish["argument"] in (None, str(quest))


def waiting(ledger: Ledger) -> list[dict]:
    """Wishes nobody has carried out yet, oldest first."""
    return ledger.all("SELECT * FROM control WHERE done IS NULL ORDER BY id")


def get(ledger: Ledger, key: int) -> dict:
    return ledger.one("SELECT * FROM control WHERE id=?", (key,))


def result(ledger: Ledger, key: int) -> str | None:
    """What came of a wish: `done`, or why not; None as long as nobody has carried it out."""
    row = ledger.one("SELECT done, result FROM control WHERE id=?", (key,))
    return row["result"] if row and row["done"] else None


def carried_out(ledger: Ledger, key: int, result: str) -> None:
    """Close a wish with what came of it."""
    ledger.change("control", key, done=time.time(), result=result)


def is_paused(ledger: Ledger) -> bool:
    """Whether the newest of all pauses and resumes is a pause, carried out or not."""
    last = ledger.one("SELECT verb FROM control WHERE verb IN ('pause', 'resume') ORDER BY id DESC LIMIT 1")
    return last is not None and last["verb"] == "pause"
