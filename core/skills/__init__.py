"""Finds skills by name, one module each beside this one; knows nothing about what any of them teaches.

To add a skill, add one module that ends with `SKILL = …`, an instance of `base.Skill` whose name is the module's.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from core.errors import UserError, nearest
from core.skills.base import Problem, Skill, distinct

__all__ = ["Problem", "Skill", "distinct", "evaluated_by", "skill", "skills"]


@cache
def skills() -> list[str]:
    """The names of all skills; importing none of them, so that asking is cheap."""
    return sorted(module.name.upper() for module in iter_modules(__path__) if module.name != "base")


def skill(name: str) -> Skill:
    known = skills()
    if name.upper() not in known:
        raise UserError(f"no skill is called {name!r}{nearest(name.upper(), known)}; known skills: {', '.join(known)}")
    return import_module(f"{__name__}.{name.lower()}").SKILL


@cache
def _all() -> tuple[Skill, ...]:
    return tuple(map(skill, skills()))


def evaluated_by(prompt: str) -> str | None:
    """The skill that keeps `prompt` for its evaluations, if one does: nothing may be trained on it."""
    return next((each.name for each in _all() if each.held_out(prompt)), None)
