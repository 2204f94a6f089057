"""Turns view-models into HTML, and problems into a friendly page or JSON. Everything is escaped: texts are hostile."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from core import lore
from monitoring.servers.tavern import manner, tongues
from monitoring.servers.tavern.help import help_address
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


def _as_it_is(text: str) -> str:
    return text


def ticked(text: str, say: Callable[[str], str] = _as_it_is) -> Markup:
    """Words between backticks as code, the others as `say` says them; everything is escaped."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if place % 2 else escape(say(part)) for place, part in enumerate(parts)
    )


def _environment(loader: FileSystemLoader, **filters) -> Environment:
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(FILTERS, ticked=partial(ticked, say=filters["spoken"]), **filters)
    environment.globals.update(words=lore.WORDS | MEASURES, help_address=help_address)
    return environment


TEMPLATES = HERE / "templates"
_environments = {
    False: _environment(FileSystemLoader(TEMPLATES), spoken=_as_it_is, method=_as_it_is),
    True: _environment(tongues.PlainLoader(TEMPLATES), spoken=tongues.plain, method=tongues.method),
}


def page(template: str, context: dict, status: int = 200) -> HTMLResponse:
    """The template in the visitor's tongue; `manner` is in its context."""
    visitor = manner.current()
    text = _environments[visitor.plain].get_template(template).render(context | {"manner": visitor})
    return HTMLResponse(text, status)


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
