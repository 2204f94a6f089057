"""What each kind of problem is answered with, in every application behind the door. It knows no route and no realm."""

from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from core.errors import RealmBusy, UserError, WrongState
from monitoring.servers.tavern.html import problem_response
from monitoring.servers.tavern.security import Refusal

Handler = Callable[[Request, Any], Awaitable[Response]]


def answer_problems(app: FastAPI) -> None:
    """Have the app answer them in words, as JSON or a page."""
    for kind, handler in HANDLERS.items():
        app.add_exception_handler(kind, handler)


def _telling(status: int, code: str) -> Handler:
    async def tell(request: Request, problem: Exception) -> Response:
        return problem_response(request.scope, status, code, str(problem))

    return tell


async def _refused(request: Request, problem: Refusal) -> Response:
    return problem_response(request.scope, problem.status, problem.code, problem.text)


async def _http(request: Request, problem: HTTPException) -> Response:
    known = {
        404: ("not_found", "There is nothing at this address."),
        405: ("wrong_method", f"{request.method} does nothing here."),
    }
    code, text = known.get(problem.status_code, ("refused", str(problem.detail)))
    response = problem_response(request.scope, problem.status_code, code, text)
    response.headers.update(problem.headers or {})
    return response


async def _invalid(request: Request, problem: RequestValidationError) -> Response:
    reasons = "; ".join(f"{'.'.join(map(str, error['loc'][1:]))}: {error['msg']}" for error in problem.errors())
    return problem_response(request.scope, 422, "invalid", reasons)


HANDLERS: dict[type[Exception], Handler] = {
    Refusal: _refused,
    WrongState: _telling(409, "wrong_state"),
    UserError: _telling(400, "wrong_request"),
    RealmBusy: _telling(503, "busy"),
    HTTPException: _http,
    RequestValidationError: _invalid,
}
