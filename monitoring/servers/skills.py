"""One skill as an ASGI application: its levels, problems and grades, for machines that have no realm. It knows no model."""

from functools import partial

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.responses import Response

from core.errors import UserError
from core.skills import skill
from monitoring.servers.tavern.html import answer, problem_response
from monitoring.servers.tavern.openapi import document
from monitoring.servers.tavern.security import Door, Refusal, Rules
from monitoring.servers.tavern.skills_api import drill


def create_app(name: str, rules: Rules) -> FastAPI:
    """`/api/skills/NAME/sample` and `/grade` as the Tavern has them; other skills are not there."""
    served = skill(name)
    app = FastAPI(title=served.title, openapi_url="/api/openapi.json", docs_url=None, redoc_url=None)
    app.add_middleware(Door, rules=rules)
    app.include_router(drill)
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(UserError, _mistaken)
    app.add_exception_handler(RequestValidationError, _invalid)

    @app.get("/api/skills")
    def skills() -> Response:
        """The skill that is served, and its levels."""
        return answer([{"name": served.name, "title": served.title, "levels": list(served.levels)}])

    @app.middleware("http")
    async def only_this_one(request: Request, call_next):
        parts = request.url.path.split("/")
        if parts[1:3] == ["api", "skills"] and len(parts) > 3 and parts[3].upper() != served.name:
            return problem_response(request.scope, 404, "no_skill", f"Only {served.name} is served here.")
        return await call_next(request)

    return app


async def _refused(request: Request, problem: Refusal) -> Response:
    return problem_response(request.scope, problem.status, problem.code, problem.text)


async def _mistaken(request: Request, problem: UserError) -> Response:
    return problem_response(request.scope, 400, "wrong_request", str(problem))


async def _invalid(request: Request, problem: RequestValidationError) -> Response:
    return problem_response(request.scope, 422, "invalid", "; ".join(error["msg"] for error in problem.errors()))
