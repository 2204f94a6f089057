"""One skill as an ASGI application: its levels, problems and grades, for machines that have no realm. It knows no model."""

from functools import partial

from fastapi import Depends, FastAPI
from starlette.responses import Response

from core.skills import skill as known_skill
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.openapi import document
from monitoring.servers.tavern.problems import answer_problems
from monitoring.servers.tavern.security import Door, Refusal, Rules
from monitoring.servers.tavern.skills_api import drill


def create_app(name: str, rules: Rules) -> FastAPI:
    """`/api/skills/NAME/sample` and `/grade` as the Tavern has them; other skills are not there."""
    served = known_skill(name)

    def only_this_one(skill: str) -> None:
        if skill.upper() != served.name:
            raise Refusal(404, "no_skill", f"Only {served.name} is served here.")

    app = FastAPI(title=served.title, openapi_url="/api/openapi.json", docs_url=None, redoc_url=None)
    app.add_middleware(Door, rules=rules)
    app.include_router(drill, dependencies=[Depends(only_this_one)])
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    answer_problems(app)

    @app.get("/api/skills")
    def skills() -> Response:
        """The skill that is served, and its levels."""
        return answer([{"name": served.name, "title": served.title, "levels": list(served.levels)}])

    return app
