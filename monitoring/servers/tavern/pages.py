"""The Tavern's pages: each is a list of parts, and each part can be fetched alone when it has changed.

To add a page: a template, an entry in PAGES, and entries in PARTS for what is new on it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from core import lore
from core.paths import PRIORITIES
from monitoring.servers.tavern import boards, charts, views
from monitoring.servers.tavern.api import TheRealm, carry_out
from monitoring.servers.tavern.html import page
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.sigil import sigil, sigil_file
from monitoring.servers.tavern.uploads import receive_quests

RANGES = {"200": ("last 200", 200), "2000": ("last 2,000", 2000), "all": ("all steps", None)}
COOKIE_SECONDS = 30 * 86400
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Page:
    path: str
    name: str
    template: str
    parts: tuple[str, ...]


PAGES = (
    Page("/", "Battle", "home.html", ("alerts", "hero", "next", "battle", "curve", "previews", "queue", "log")),
    Page("/quests", "Quests", "quests.html", ("board",)),
    Page("/jobs", "Jobs", "jobs.html", ("jobs",)),
    Page("/vault", "Vault", "vault.html", ("vault",)),
    Page("/live", "Live", "live.html", ("curves", "previews", "machine")),
)


@dataclass(frozen=True)
class Part:
    """A part of a page: `template` in _fragments, its words, and the key of `views.now` by which it grows old."""

    template: str
    key: str
    view: Callable[[Realm, Request], dict[str, Any]]


def _hero(realm: Realm, _: Request) -> dict[str, Any]:
    seen = views.hero(realm)
    return seen | {"portrait": sigil(seen["seed"], seen["hero"]["level"])}


def _curve(realm: Realm, _: Request) -> dict[str, Any]:
    curves = realm.metrics.curves(recent=2000)
    return {"chart": charts.chart(curves, charts.LOSS, _marks(realm, curves))}


def _curves(realm: Realm, request: Request) -> dict[str, Any]:
    chosen = request.query_params.get("range", "2000")
    chosen = chosen if chosen in RANGES else "2000"
    curves = realm.metrics.curves(recent=RANGES[chosen][1])
    marks = _marks(realm, curves)
    drawn = [charts.chart(curves, kind, marks) for kind in charts.KINDS.values()]
    return {"charts": [drawn[0], charts.validation_chart(curves), *drawn[1:]], "ranges": RANGES, "chosen": chosen}


def _marks(realm: Realm, curves) -> list[tuple[int, str]]:
    """Where the newest battles among these steps began."""
    if not curves:
        return []
    rows = realm.ledger.all(
        "SELECT start_step, stem FROM battles JOIN quests ON quests.id = battles.quest "
        "WHERE hero=? AND start_step BETWEEN ? AND ? ORDER BY battles.id DESC LIMIT 40",
        (realm.config.hero.name, curves.first[0], curves.last[-1]),
    )
    return [(row["start_step"] + 1, row["stem"]) for row in rows]


def _jobs(realm: Realm, request: Request) -> dict[str, Any]:
    before = request.query_params.get("before", "")
    rows = views.jobs(realm, 51, int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None)
    return {"jobs": rows[:50], "older": rows[49]["id"] if len(rows) > 50 else None, "totals": views.totals(realm)}


def _machine(realm: Realm, _: Request) -> dict[str, Any]:
    return {"gpus": realm.status()["gpus"], "services": views.services(realm), "cpus": realm.machine()["cpus"]}


PARTS = {
    "alerts": Part("alerts.html", "alerts", lambda realm, _: {"alerts": views.alerts(realm)}),
    "hero": Part("hero.html", "hero", _hero),
    "next": Part("next.html", "next", lambda realm, _: {"next": views.what_next(realm)}),
    "battle": Part("battle.html", "battle", lambda realm, _: views.battle(realm)),
    "curve": Part("curve.html", "steps", _curve),
    "previews": Part("previews.html", "previews", lambda realm, _: {"previews": views.previews(realm)}),
    "queue": Part("queue.html", "queue", lambda realm, _: {"queue": realm.status()["queue"]}),
    "log": Part("log.html", "", lambda realm, _: {"events": views.log(realm)}),
    "board": Part("board.html", "board", lambda realm, _: {"board": boards.quests(realm)}),
    "jobs": Part("jobs.html", "events", _jobs),
    "vault": Part("vault.html", "events", lambda realm, _: {"checkpoints": boards.vault(realm)}),
    "curves": Part("curves.html", "steps", _curves),
    "machine": Part("machine.html", "services", _machine),
}


def _base(realm: Realm, request: Request) -> dict[str, Any]:
    return {"now": views.now(realm), "parts": PARTS, "priorities": PRIORITIES, "query": request.url.query}


def _show(wanted: Page) -> Callable[[Request, TheRealm], Response]:
    def show(request: Request, realm: TheRealm) -> Response:
        context = _base(realm, request) | {
            "pages": PAGES,
            "page": wanted,
            "newest_event": realm.newest_event(),
            "dropped": request.query_params.get("dropped"),
        }
        for name in wanted.parts:
            context |= PARTS[name].view(realm, request)
        return page(wanted.template, context)

    return show


for _page in PAGES:
    router.add_api_route(_page.path, _show(_page), methods=["GET", "HEAD"], name=_page.name)


@router.get("/parts/{name}")
def part(request: Request, realm: TheRealm, name: str) -> Response:
    """One part of a page as it is now."""
    if name not in PARTS:
        raise Refusal(404, "no_part", "There is no such part.")
    return page(f"_fragments/{PARTS[name].template}", _base(realm, request) | PARTS[name].view(realm, request))


@router.post("/quests")
async def upload_form(request: Request, realm: TheRealm) -> Response:
    """The upload form of a browser without JavaScript."""
    taken = await receive_quests(request, realm)
    return RedirectResponse(f"/quests?dropped={len(taken)}", 303)


@router.post("/control/{verb}")
def control_form(realm: TheRealm, verb: str) -> Response:
    """A button of a browser without JavaScript."""
    carry_out(realm, verb)
    return RedirectResponse("/", 303)


@router.get("/login")
def login(request: Request, token: str | None = None) -> Response:
    """The page that asks for the token; with the right token in the link, straight in."""
    return page("login.html", {"problem": None}) if token is None else _let_in(request, token)


@router.post("/login")
async def login_form(request: Request) -> Response:
    fields = parse_qs((await request.body()).decode(errors="replace"))
    return _let_in(request, fields.get("token", [""])[0])


def _let_in(request: Request, token: str) -> Response:
    rules = request.app.state.rules
    if not rules.is_token(token.strip()):
        raise Refusal(401, "wrong_token", "That is not the token. It stands in the realm's state/token.")
    response = RedirectResponse("/", 303)
    response.set_cookie(
        rules.cookie,
        rules.token,
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.scope["scheme"] == "https",
    )
    return response


@router.get("/sigil/{checkpoint}.svg")
def sigil_of(realm: TheRealm, checkpoint: str) -> Response:
    """A checkpoint's portrait; it never changes."""
    row = realm.ledger.one("SELECT id, step FROM checkpoints WHERE id=?", (checkpoint,))
    if row is None:
        raise Refusal(404, "no_checkpoint", "There is no such checkpoint.")
    return Response(
        sigil_file(row["id"], lore.level(row["step"])),
        media_type="image/svg+xml",
        headers={"cache-control": "private, max-age=31536000, immutable"},
    )


@router.get("/favicon.ico")
def favicon() -> Response:
    return RedirectResponse("/static/realm.svg", 308)
