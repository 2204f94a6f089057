"""The board of quests: arriving, waiting, in training, done, failed, rejected; and its upload form."""

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from monitoring.servers.tavern import boards
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.pages.parts import Page, Part
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
