"""What a person's verdict on an answer sets off: a duel is decided, a wrong answer is handed in. It knows no page and no form."""

from functools import partial
from typing import Any

from anyio import to_thread

from core.disk import Level, about, level, need
from core.errors import UserError
from core.rows import read_turns
from monitoring.servers.tavern import lessons
from monitoring.servers.tavern.duels import Duel
from monitoring.servers.tavern.lessons import Lesson
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

NOTHING_LEARNED = {"tie": "Both alike: nothing was written.", "bad": "Both bad: nothing was written."}


async def decide(realm: Realm, duel: Duel, choice: str) -> dict[str, Any]:
    """Take the choice, write the quest where one answer is better, and tell what came of it and who was who."""
    decided = duel.choose(choice)  # at once: of two who choose, one is told that it is decided
    try:
        lesson, text = await _learn(realm, duel, decided) if decided else (None, NOTHING_LEARNED[choice])
    except (OSError, Refusal):
        duel.choice = None  # nothing was written: it can be chosen again
        raise
    told = lesson and {"name": lesson.name, "form": lesson.form, "fate": lesson.fate}
    duel.outcome = {"choice": choice, "text": text, "lesson": told, **duel.revealed()}
    return duel.outcome


async def _learn(realm: Realm, duel: Duel, decided: tuple) -> tuple[Lesson | None, str]:
    winner, loser = decided
    row = lessons.preference(duel.messages, winner.answer.message(), loser.answer.message())
    try:
        lesson = await _hand_in(realm, row, "duel", (winner.model, loser.model), "normal")
    except UserError as problem:  # the same words twice, or none
        return None, f"Nothing was written, for nothing can be learned from this: {problem}"
    cut = (
        " The chosen answer was cut at the maximum length, and so is the row."
        if winner.answer.ended == "length"
        else ""
    )
    return lesson, f"Handed in as {lesson.name}. {lesson.fate}{cut}"


async def thumb_down(realm: Realm, talk: list[dict[str, Any]], model: str, better: str) -> Lesson:
    """Hand in a talk whose last answer is wrong: with the right one as a lesson, without one as a warning."""
    turns = read_turns(talk, "messages")
    if turns[-1]["role"] != "assistant":
        raise UserError(f"messages: the last turn is {turns[-1]['role']}'s; it must be the answer that is wrong")
    row = lessons.correction(turns, better) if better else lessons.dislike(turns)
    return await _hand_in(realm, row, "thumb", (model,), "high")  # as all sparring is


async def _hand_in(realm: Realm, row: dict, made_by: str, models: tuple[str, ...], priority: str) -> Lesson:
    lessons.check(row)
    return await to_thread.run_sync(partial(_write, realm, row, made_by, models, priority))


def _write(realm: Realm, row: dict, made_by: str, models: tuple[str, ...], priority: str) -> Lesson:
    if level(realm.paths, need(realm.paths)) >= Level.NOT_CLAIMING:
        raise Refusal(507, "no_room", about(realm.paths)["text"])
    try:
        return lessons.hand_in(realm.paths, row, made_by, models, priority)
    except OSError as problem:
        raise Refusal(507, "no_room", f"The inbox could not take it: {problem.strerror}.") from problem
