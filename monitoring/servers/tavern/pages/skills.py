"""The skills: what each teaches by level, a problem to try, and a grade for the answer that is typed in."""

from typing import Any

from fastapi import Request

from core.mastery import BAR
from core.skills import skill, skills
from monitoring.servers.tavern import skill_views
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm

MOST_LETTERS = 2000


def _chosen(request: Request) -> str:
    name = request.query_params.get("skill", "").upper()
    return name if name in skills() else skills()[0]


def _standings(realm: Realm, request: Request) -> dict[str, Any]:
    return {"skills": skill_views.skill_list(realm), "shown": _chosen(request), "bar": BAR}


def _skill(realm: Realm, request: Request) -> dict[str, Any]:
    name = _chosen(request)
    return {
        "chosen": next(one for one in skill_views.skill_list(realm) if one["name"] == name),
        "idle": realm.config.idle_generation,
        "climbing": skill_views.climbing(realm, name),
    }


def _kept(realm: Realm, request: Request) -> dict[str, Any]:
    return {"kept": skill_views.kept(realm)}


def _exercise(realm: Realm, request: Request) -> dict[str, Any]:
    asked, name = request.query_params, _chosen(request)
    levels = skill(name).levels
    level = _whole(asked.get("level"), levels[0])
    answer = asked.get("answer", "")[:MOST_LETTERS]
    level = level if level in levels else levels[0]
    return {"exercise": skill_views.exercise(name, level, _whole(asked.get("seed"), 0), answer)}


def _whole(text: str | None, otherwise: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 18 else otherwise


PAGE = Page(
    "/skills",
    "Skills",
    "skills.html",
    {
        "standings": Part("standings.html", "events", _standings),
        "skill": Part("skill.html", "events", _skill),
        "kept": Part("kept.html", "events", _kept),
    },
    _exercise,
)
