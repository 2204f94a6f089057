"""What people teach by judging answers: the row, and the quest file that carries it into the inbox.

It knows no HTTP and no model. What becomes of a row is asked of the schools, not foretold.
"""

import re
import secrets
from dataclasses import dataclass
from typing import Any

import orjson

from core.formats import detect, read
from core.inbox import drop
from core.paths import RealmPaths
from core.schools import SCHOOLS

_NO_NAME = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True)
class Lesson:
    """A quest that was handed in: its file's name, the form of its row, and what will become of it."""

    name: str
    form: str
    fate: str


def preference(messages: list[dict], chosen: dict, rejected: dict) -> dict[str, Any]:
    """The better of two answers to one prompt."""
    return {"prompt": messages, "chosen": [chosen], "rejected": [rejected]}


def correction(messages: list[dict], better: str) -> dict[str, Any]:
    """The talk up to a wrong answer, with the right one in its place; earlier answers are not learned (weight 0)."""
    return {"messages": [*_context(messages[:-1]), {"role": "assistant", "content": better}]}


def dislike(messages: list[dict]) -> dict[str, Any]:
    """The talk with its wrong answer, judged."""
    return {"messages": messages, "label": False}


def _context(messages: list[dict]) -> list[dict]:
    return [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in messages]


def check(row: dict[str, Any]) -> str:
    """The name of the row's form. Raises UserError where the row could not be learned from."""
    form = detect([row])
    read(form, row)
    return form.name


def hand_in(paths: RealmPaths, row: dict[str, Any], made_by: str, models: tuple[str, ...], priority: str) -> Lesson:
    """Write the quest of this one row. `made_by` (duel, thumb) and `models` are in its name and in its sidecar's origin."""
    form = check(row)
    parts = (made_by, *(_NO_NAME.sub("_", model)[:40] for model in models), secrets.token_hex(3))
    name = "_".join(filter(None, parts))
    with drop(paths, name, priority, {"origin": " ".join((f"{made_by}:", " over ".join(models)))[:200]}) as file:
        file.write(orjson.dumps(row) + b"\n")
    return Lesson(f"{name}.jsonl", form, fate(row))


def fate(row: dict[str, Any]) -> str:
    """What the realm, as it is today, will do with a file of such rows."""
    return f"The {SCHOOLS[detect([row]).school].title} teaches it to the hero when its turn comes."
