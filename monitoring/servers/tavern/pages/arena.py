"""The arena's page: pick two agents and watch them learn and write; who leads, by score for each energy; its buttons."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from core.arena import play
from core.arena.league import Arena
from core.arena.shape import Shape
from core.errors import UserError
from monitoring.servers.tavern import arena_views
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.arena_battles import Challenge
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

MOST_STEPS = 100_000
PATIENCE_SECONDS = 2.0  # a thread that waits is one that does not read
router = APIRouter(include_in_schema=False)
Name = Annotated[str, Form(max_length=80)]
Whole = Annotated[int, Form(ge=1, le=MOST_STEPS)]


def _ring(realm: Realm, _: Request) -> dict[str, Any]:
    return {"ring": arena_views.ring(realm)}


def _league(realm: Realm, _: Request) -> dict[str, Any]:
    return {"league": arena_views.league(realm)}


PAGE = Page(
    "/arena",
    "Arena",
    "arena.html",
    {
        "ring": Part("ring.html", "ring", _ring),
        "challenge": Part("challenge.html", "league", _league),
        "league": Part("league.html", "league", _league),
    },
)


@router.post("/arena/battle")
def battle_form(
    realm: TheRealm, one: Name, other: Name, steps: Whole, equal_energy: Annotated[bool, Form()] = False
) -> Response:
    """Two agents, and how long."""
    book = Arena(realm.paths).read()
    names = [book.agent(name).name for name in (one, other)]
    if one == other:
        raise UserError(f"{one} cannot fight itself; choose two agents")
    _refuse_busy(realm)
    if not realm.battles.start(Challenge(*names, steps, equal_energy)):
        raise Refusal(409, "busy", "Another battle is fought; watch it, or break it off.")
    return RedirectResponse("/arena#ring", 303)


@router.post("/arena/stop")
def stop_form(realm: TheRealm) -> Response:
    """Break off the battle that was begun here."""
    realm.battles.stop()
    return RedirectResponse("/arena#ring", 303)


@router.post("/arena/agents")
def create_form(realm: TheRealm, name: Name, n_embd: Whole, n_layer: Whole, n_head: Whole) -> Response:
    """A new agent, which learns the names that the project ships."""
    _refuse_busy(realm)
    play.create(_quick(realm), name.strip(), Shape(n_embd, n_layer, n_head), None, None)
    return RedirectResponse("/arena", 303)


@router.post("/arena/rest")
def rest_form(realm: TheRealm) -> Response:
    """Fill the energy up."""
    _refuse_busy(realm)
    play.rest(_quick(realm))
    return RedirectResponse("/arena#league", 303)


def _quick(realm: Realm) -> Arena:
    return Arena(realm.paths, PATIENCE_SECONDS)


def _refuse_busy(realm: Realm) -> None:
    if realm.battles.running or Arena(realm.paths).holder:
        raise Refusal(409, "busy", "The arena is in use, here or on the command line; try again when that is done.")
