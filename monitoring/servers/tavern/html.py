"""Turns view-models into HTML, and problems into a friendly page or JSON. Everything is escaped: texts are hostile."""

from pathlib import Path

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from core import lore
from monitoring.servers.tavern.words import FILTERS

HERE = Path(__file__).parent
NAMES = {
    400: "A wrong request",
    403: "Not from there",
    404: "Nothing here",
    405: "Not this way",
    409: "Not now",
    413: "Too much to carry",
    415: "Not that kind",
    422: "A wrong request",
    500: "Something broke",
    503: "Not ready yet",
    507: "No room left",
}
MEASURES = {  # what stands on the pages beside the words of the realm
    "MFU": "model FLOPs utilisation: arithmetic that training needs / the device's peak in bf16; – where that is unknown",
    "Token accuracy": "share of the held-out answers' tokens that the hero holds most likely, given those before",
    "Answers right": "share of the answers below that are the expected ones, or right by the skill's grader",
}

_environment = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_environment.filters.update(FILTERS)
_environment.globals.update(words=lore.WORDS | MEASURES)


def page(template: str, context: dict, status: int = 200) -> HTMLResponse:
    return HTMLResponse(_environment.get_template(template).render(context), status)


def answer(value, status: int = 200) -> Response:
    """`value` as JSON; not-a-number becomes null."""
    return Response(orjson.dumps(value), status, media_type="application/json")


def problem_response(scope: Scope, status: int, code: str, text: str) -> Response:
    """What went wrong: JSON for programs, a page for people; never a trace."""
    if not wants_page(scope):
        openai = {"message": text, "type": code} if scope["path"].startswith("/v1/") else {}
        response = answer({"error": {"code": code, "text": text, **openai}}, status)
    elif status == 401:
        response = page("login.html", {"problem": text if code == "wrong_token" else None}, status)
    else:
        response = page("error.html", {"status": status, "name": NAMES.get(status, "A problem"), "text": text}, status)
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    return response


def wants_page(scope: Scope) -> bool:
    accepts = b",".join(value for name, value in scope["headers"] if name == b"accept")
    return b"text/html" in accepts and not scope["path"].startswith(("/api/", "/v1/"))
