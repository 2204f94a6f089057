"""Skills as plain dictionaries: their levels, problems, grades, and what the hero has practised. It knows no HTML and no HTTP."""

import re
from dataclasses import asdict
from typing import Any

from core.errors import UserError
from core.exam_record import curve
from core.progress import progress
from core.skills import Problem, skill, skills
from monitoring.servers.tavern import charts
from monitoring.servers.tavern.heat import heat
from monitoring.servers.tavern.realm import Realm

MOST_PROBLEMS = 100
MOST_SYMBOLS = 40
MOST_EXAMS = 600
_PROBLEM_ID = re.compile(r"(\w{1,40})-(\d{1,4})-(-?\d{1,18})-(\d{1,4})", re.ASCII)


def skill_list(realm: Realm) -> list[dict[str, Any]]:
    """Every skill as `skill list --json` tells it, with how far the hero has come in it and what was trained of it."""
    return [
        {"title": skill(one["name"]).title, "levels": list(skill(one["name"]).levels), **one}
        | practice(realm, one["name"])
        for one in progress(realm.paths, realm.config, realm.ledger)
    ]


def climbing(realm: Realm, name: str) -> dict[str, Any]:
    """The accuracy of a skill's frontier over the hero's steps, its exams, and the levels that it won, as a chart."""
    rows = curve(realm.ledger, realm.config.hero.name, name, MOST_EXAMS)
    highest: dict[int, int] = {}  # level of which canaries were asked at a step: the frontier's, as far as it was
    for row in rows:
        if row["kind"] == "canary":
            highest[row["step"]] = max(row["level"], highest.get(row["step"], 0))
    canaries = [row for row in rows if row["kind"] == "canary" and row["level"] == highest[row["step"]]]
    exams = [row for row in rows if row["kind"] == "exam"]
    risen = [(row["step"], f"level {row['level'] + 1}") for row in exams if row["outcome"]]
    return charts.accuracy(_points(canaries), _points(exams), risen)


def kept(realm: Realm) -> dict[str, Any]:
    """Every level that was asked of the hero lately, checkpoint by checkpoint, as a table of shades."""
    hero = realm.config.hero.name
    return heat(row | {"skill": name} for name in skills() for row in curve(realm.ledger, hero, name, MOST_EXAMS))


def _points(rows: list[dict[str, Any]]) -> list[tuple[int, float]]:
    return [(row["step"], 100 * row["right"] / row["asked"]) for row in rows]


def practice(realm: Realm, name: str) -> dict[str, Any]:
    """Battles of a skill's quests that were fought to their end, and their rows."""
    return realm.ledger.one(
        "SELECT COUNT(*) AS battles, COALESCE(SUM(quests.rows), 0) AS rows, MAX(battles.finished) AS last "
        "FROM battles JOIN quests ON quests.id = battles.quest WHERE battles.state='done' "
        "AND battles.hero=? AND UPPER(quests.skill)=?",
        (realm.config.hero.name, name),
    )


def sample(name: str, level: int, seed: int, count: int) -> list[dict[str, Any]]:
    """Problems as `skill sample --json` tells them."""
    return [asdict(problem) for problem in skill(name).sample(level, seed, count)]


def problem_by_id(text: str) -> Problem:
    """The problem that a sample called `SKILL-LEVEL-SEED-PLACE`; it is drawn again, for nothing keeps it."""
    found = _PROBLEM_ID.fullmatch(text)
    if not found or int(found[4]) >= MOST_PROBLEMS:
        raise UserError(
            f"{text[:60]!r} is no problem: give the `id` of one that sample answered with, such as 'BIN-1-0-0'"
        )
    name, level, seed, place = found[1], *map(int, found.groups()[1:])
    return skill(name).sample(level, seed, place + 1)[place]


def grade(problem: Problem, answer: str) -> float:
    return skill(problem.skill).grade(problem, answer)


def exercise(name: str, level: int, seed: int, answer: str | None) -> dict[str, Any]:
    """One problem to try, graded where an answer was given; `symbols`: what few keyboards have."""
    problem = skill(name).sample(level, seed, 1)[0]
    given = (answer or "").strip()
    score = grade(problem, given) if given else None
    symbols = dict.fromkeys(letter for letter in problem.prompt + problem.answer if not letter.isascii())
    return {
        "problem": problem,
        "level": level,
        "seed": seed,
        "given": given,
        "score": score,
        "symbols": list(symbols)[:MOST_SYMBOLS],
    }
