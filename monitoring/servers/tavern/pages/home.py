"""The home page: the hero, the battle, what comes next, the newest events."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from core import lore
from monitoring.servers.tavern import charts, tracks, vault_views, views
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.outlook import what_next
from monitoring.servers.tavern.pages.live import alerts, drawn, previews
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.sigil import sigil, sigil_file

router = APIRouter(include_in_schema=False)


def _hero(realm: Realm, _: Request) -> dict[str, Any]:
    seen = views.hero(realm)
    return seen | {"portrait": sigil(seen["seed"], seen["hero"]["level"])}


def _curve(realm: Realm, _: Request) -> dict[str, Any]:
    return drawn(realm, tracks.newest(2000), (charts.LOSS,))


PAGE = Page(
    "/",
    "Battle",
    "home.html",
    {
        "alerts": Part("alerts.html", "alerts", alerts),
        "hero": Part("hero.html", "hero", _hero),
        "next": Part("next.html", "next", lambda realm, _: {"next": what_next(realm)}),
        "battle": Part("battle.html", "battle", lambda realm, _: views.battle(realm)),
        "dice": Part("dice.html", "dice", lambda realm, _: {"dice": views.dice(realm)}),
        "curve": Part("curve.html", "steps", _curve),
        "previews": Part("previews.html", "previews", previews),
        "queue": Part("queue.html", "queue", lambda realm, _: {"queue": realm.status()["queue"]}),
        "log": Part("log.html", "", lambda realm, _: {"events": views.log(realm)}),
    },
)


@router.get("/sigil/{checkpoint}.svg")
def sigil_of(realm: TheRealm, checkpoint: str) -> Response:
    """A checkpoint's portrait; it never changes."""
    step = vault_views.brief(realm, checkpoint)["step"]
    if step is None:
        raise Refusal(404, "no_checkpoint", "There is no such checkpoint.")
    return Response(
        sigil_file(checkpoint, lore.level(step)),
        media_type="image/svg+xml",
        headers={"cache-control": "private, max-age=31536000, immutable"},
    )
