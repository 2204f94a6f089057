"""The board of quests: arriving, waiting, in training, done, failed, rejected; its upload form, its buttons."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from monitoring.servers.tavern import boards
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.quest_api import QuestId, carry_out
from monitoring.servers.tavern.uploads import receive_quests

router = APIRouter(include_in_schema=False)
PAGE = Page(
    "/quests",
    "Quests",
    "quests.html",
    {"board": Part("board.html", "board", lambda realm, _: {"board": boards.quests(realm)})},
)


@router.post("/quests")
async def upload_form(request: Request, realm: TheRealm) -> Response:
    """The upload form of a browser without JavaScript."""
    taken = await receive_quests(request, realm)
    return RedirectResponse(f"/quests?dropped={len(taken)}", 303)


# The buttons of a browser without JavaScript


@router.post("/quests/{quest}/cancel")
def cancel_form(realm: TheRealm, quest: QuestId) -> Response:
    """A card's button."""
    carry_out(realm, quest, "cancel")
    return RedirectResponse("/quests", 303)


@router.post("/quests/{quest}/retry")
def retry_form(realm: TheRealm, quest: QuestId, force: Annotated[bool, Form()] = False) -> Response:
    """A card's button."""
    carry_out(realm, quest, "retry", force=force)
    return RedirectResponse("/quests", 303)


@router.post("/quests/{quest}/move")
def move_form(
    realm: TheRealm,
    quest: QuestId,
    priority: Annotated[str | None, Form()] = None,
    to: Annotated[str | None, Form()] = None,
) -> Response:
    """A card's arrows and its menu of priorities."""
    carry_out(realm, quest, "move", priority=priority, to=to)
    return RedirectResponse("/quests#waiting", 303)
