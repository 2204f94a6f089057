"""The Tavern's pages, siblings of one shape: each module has a PAGE, and a `router` where it has routes of its own.

To add a page: a template, a module here with its PAGE, and its name in the tuple of modules below.
"""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from core.paths import PRIORITIES
from monitoring.servers.tavern import manner, tongues, views
from monitoring.servers.tavern.api import TheRealm, carry_out
from monitoring.servers.tavern.help import help_address, trouble_of
from monitoring.servers.tavern.html import page
from monitoring.servers.tavern.pages import (
    arena,
    checkpoint,
    help,
    home,
    jobs,
    live,
    login,
    manners,
    oracle,
    quest,
    quests,
    schools,
    settings,
    skills,
    temple,
    vault,
)
from monitoring.servers.tavern.pages.parts import Page
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

MODULES = (  # as the navigation has them
    home, quests, jobs, vault, oracle, skills, schools, temple, arena, live, settings, help,
)  # fmt: skip
PAGES = tuple(module.PAGE for module in MODULES)
PARTS = {name: part for shown in PAGES for name, part in shown.parts.items()}
router = APIRouter(include_in_schema=False)


def _base(realm: Realm, request: Request) -> dict[str, Any]:
    now = tongues.told(views.now(realm), manner.current().plain)
    query = request.url.query
    return {
        "now": now,
        "trouble": help_address(trouble_of(realm.status()) or ""),
        "address": f"{request.url.path}?{query}" if query else request.url.path,  # where the switches lead back to
        "parts": PARTS,
        "priorities": PRIORITIES,
        "query": query,
    }


def frame(realm: Realm, request: Request, around: Page) -> dict[str, Any]:
    """What stands around every page; a page below one of these (`/vault/ID`) takes it from `app.state.frame`."""
    return _base(realm, request) | {
        "pages": PAGES,
        "page": around,
        "newest_event": realm.newest_event(),
        "dropped": request.query_params.get("dropped"),
    }


def _show(wanted: Page) -> Callable[[Request, TheRealm], Response]:
    def show(request: Request, realm: TheRealm) -> Response:
        context = frame(realm, request, wanted) | wanted.more(realm, request)
        for part in wanted.parts.values():
            context |= part.view(realm, request)
        return page(wanted.template, context)

    return show


@router.get("/parts/{name}")
def part_alone(request: Request, realm: TheRealm, name: str) -> Response:
    """One part of a page as it is now."""
    if name not in PARTS:
        raise Refusal(404, "no_part", "There is no such part.")
    return page(f"_fragments/{PARTS[name].template}", _base(realm, request) | PARTS[name].view(realm, request))


@router.post("/control/{verb}")
def control_form(realm: TheRealm, verb: str) -> Response:
    """A button of a browser without JavaScript."""
    carry_out(realm, verb)
    return RedirectResponse("/", 303)


@router.get("/favicon.ico")
def favicon() -> Response:
    return RedirectResponse("/static/realm.svg", 308)


for _page in PAGES:
    router.add_api_route(_page.path, _show(_page), methods=["GET", "HEAD"], name=_page.name)
EXTRAS = (login, manners, quest, checkpoint)  # routes that are no pages of the navigation
ROUTERS = (router, *(module.router for module in (*MODULES, *EXTRAS) if hasattr(module, "router")))
