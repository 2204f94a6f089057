"""The API of the skills: which there are, problems of one, and the grade of an answer."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from core.skills import skills
from monitoring.servers.tavern import skill_views
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.openapi import refusals
from monitoring.servers.tavern.security import Refusal

router, drill = APIRouter(), APIRouter()  # `drill` needs no realm
MOST_LETTERS = 20_000
SkillName = Annotated[str, Path(json_schema_extra={"examples": skills()})]


class Answer(BaseModel):
    """`problem`: the id that sample gave it."""

    problem: str = Field(max_length=100)
    answer: str = Field(max_length=MOST_LETTERS)


@router.get("/api/skills")
def skill_list(realm: TheRealm) -> Response:
    """The skills with their levels, the idle hero's weight for each, and what was trained of it."""
    return answer(skill_views.skill_list(realm))


@drill.get("/api/skills/{skill}/sample", responses=refusals(404))
def sample(
    skill: SkillName,
    level: Annotated[int, Query(ge=1, le=9999)] = 1,
    seed: Annotated[int, Query(gt=-(10**18), lt=10**18)] = 0,
    count: Annotated[int, Query(ge=1, le=skill_views.MOST_PROBLEMS)] = 5,
) -> Response:
    """Problems with their answers; the same level and seed give the same problems."""
    return answer(skill_views.sample(_known(skill), level, seed, count))


@drill.post("/api/skills/{skill}/grade", responses=refusals(404))
def grade(skill: SkillName, given: Answer) -> Response:
    """The score of an answer to a problem, 0 to 1, beside what was expected."""
    name, problem = _known(skill), skill_views.problem_by_id(given.problem)
    if problem.skill != name:
        raise Refusal(422, "invalid", f"{given.problem} is a problem of {problem.skill}, not of {name}.")
    told: dict[str, Any] = {"problem": problem.id, "score": skill_views.grade(problem, given.answer)}
    return answer(told | {"expected": problem.answer})


def _known(name: str) -> str:
    if name.upper() not in skills():
        raise Refusal(404, "no_skill", f"There is no skill {name[:40]!r}. Known: {', '.join(skills())}")
    return name.upper()
