"""The skills: what each teaches by level, a problem to try, and a grade for the answer that is typed in."""

from typing import Any

from fastapi import Request

from core.mastery import BAR
from core.skills import skills
from monitoring.servers.tavern import skill_views
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm

MOST_LETTERS = 2000


def _skills(realm: Realm, request: Request) -> dict[str, Any]:
    known = skill_views.skill_list(realm)
    asked = request.query_params
    name = asked.get("skill", "").upper()
    chosen = next(one for one in known if one["name"] == (name if name in skills() else known[0]["name"]))
    level = _whole(asked.get("level"), chosen["levels"][0])
    level = level if level in chosen["levels"] else chosen["levels"][0]
    answer = asked.get("answer", "")[:MOST_LETTERS]
    return {
        "skills": known,
        "chosen": chosen,
        "exercise": skill_views.exercise(chosen["name"], level, _whole(asked.get("seed"), 0), answer),
        "idle": realm.config.idle_generation,
        "climbing": skill_views.climbing(realm, chosen["name"]),
        "bar": BAR,
    }


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 18 else otherwise


PAGE = Page("/skills", "Skills", "skills.html", {"skills": Part("skills.html", "events", _skills)})
