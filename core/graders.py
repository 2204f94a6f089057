"""Named graders, and the marks of answers: pure functions that compare what was said with what is right. They know no model.

A grader is called with what the hero said and with the row's `answer`, and returns a number: 1 for right, 0 for wrong, others for
what is between or beyond. To add one, write it here and give it a line in `OWN`; or have a package of yours announce it as an entry
point of the group `realm_of_training.graders`. Rows then call it by that name.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from math import isfinite
from typing import Any

import orjson

from core.errors import UserError, nearest
from core.skills import Problem, skill
from core.skills.base import final_answer, without_thought

GROUP = "realm_of_training.graders"
SHOWN = 80
Grader = Callable[[str, str], float]


class GraderFailed(UserError):
    """A grader that could not mark an answer."""


@dataclass(frozen=True)
class Task:
    """What is needed to mark the answers to a prompt; either `skill` or `grader` is named."""

    prompt: str
    answer: str
    skill: str | None = None
    grader: str | None = None
    level: int | None = None


def exact(said: str, right: str) -> float:
    """The same words, white space around them aside."""
    return float(without_thought(said) == right.strip())


def final(said: str, right: str) -> float:
    """The same final answer: a single line, or the last one if it is marked `Answer:`."""
    return float(final_answer(said) == final_answer(right) is not None)


def contains(said: str, right: str) -> float:
    """What is right occurs somewhere in what is said; lists of guesses win by it."""
    return float(right.strip() in without_thought(said))


def number(said: str, right: str) -> float:
    """The last number of the last line, 1,200 being 1200 and 2.50 being 2.5."""
    wanted = _number(right)
    return float(wanted is not None and _number(said) == wanted)


def json(said: str, right: str) -> float:
    """The same value as JSON, in a code fence or not."""
    wanted = _json(right)
    found = _json(said)
    return float(None not in (wanted, found) and _same(found, wanted))


OWN: dict[str, Grader] = {each.__name__: each for each in (exact, final, contains, number, json)}


def graders() -> list[str]:
    """The names of all graders; importing none of them."""
    return sorted({*OWN, *_announced()})


def grader(name: str) -> Grader:
    """The grader of that name. Raises UserError."""
    if name in OWN:
        return OWN[name]
    if name not in _announced():
        raise UserError(
            f"no grader is called {name!r}{nearest(name, graders())}; known graders: {', '.join(graders())}"
        )
    return _announced()[name].load()


def mark(task: Task, said: str) -> float:
    """The reward of an answer. Raises GraderFailed with the grader's own words where it breaks or gives no finite number."""
    named = f"grader {task.grader}" if task.grader else f"skill {task.skill}"
    try:
        found = float(_grade(task, said))
    except Exception as problem:  # its package, too, may be broken or gone
        raise GraderFailed(_told(named, f"raised {type(problem).__name__}: {problem}", said)) from problem
    if not isfinite(found):
        raise GraderFailed(_told(named, f"gave {found}", said))
    return found


def _grade(task: Task, said: str) -> float:
    if task.grader:
        return grader(task.grader)(said, task.answer)
    return skill(task.skill).grade(Problem(task.prompt, task.answer, task.level or 0, task.skill), said)


def _told(named: str, what: str, said: str) -> str:
    return f"the {named} {what} for the answer {said[:SHOWN]!r}; it must give a finite number for any text, 0 where it understands none"


@cache
def _announced() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def _number(text: str) -> Decimal | None:
    lines = without_thought(text).splitlines()
    words = lines[-1].replace(",", "").split() if lines else []
    found = (_decimal(word.lstrip("$€£%:;!?*()=").rstrip("$€£%.:;!?*()=")) for word in reversed(words))
    return next((value for value in found if value is not None), None)


def _decimal(word: str) -> Decimal | None:
    try:
        value = Decimal(word)
    except InvalidOperation:
        return None
    return value if value.is_finite() else None


def _same(one: Any, other: Any) -> bool:
    """As JSON has it: 1 is 1.0 and is not true, which in Python it is."""
    match one, other:
        case (bool(), _) | (_, bool()):
            return one is other
        case dict(), dict():
            return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
        case [*_], [*_]:
            return len(one) == len(other) and all(map(_same, one, other))
    return one == other


def _json(text: str) -> Any:
    """The value, wrapped, since `null` is one; None where there is none."""
    bare = without_thought(text)
    if bare.startswith("```") and bare.endswith("```"):
        bare = bare.strip("`").removeprefix("json")
    try:
        return (orjson.loads(bare),)
    except orjson.JSONDecodeError:
        return None
