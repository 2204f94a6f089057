"""A quest's page below /quests, and the rows of a file as the hero will see them, before it is trained or even checked."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import RedirectResponse, Response

from monitoring.servers.tavern import quest_views
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import page
from monitoring.servers.tavern.pages import quests
from monitoring.servers.tavern.quest_api import Place, QuestId
from monitoring.servers.tavern.quest_views import File
from monitoring.servers.tavern.realm import Realm

router = APIRouter(include_in_schema=False)
ASKING = CapacityLimiter(8)  # threads of their own: they wait for the previewer
FileName = Annotated[str, Query(max_length=255)]


@router.get("/quests/dropped")
def dropped(request: Request, realm: TheRealm, name: FileName, priority: str = "normal") -> Response:
    """A file that lies in the inbox; as soon as it is a quest, that quest's page."""
    found = quest_views.dropped(realm, name, priority)
    if isinstance(found, int):
        return RedirectResponse(f"/quests/{found}", 303)
    words = {"name": name, "priority": priority, "rows_address": f"/quests/dropped/rows?{_asked(name, priority)}"}
    return _below(request, realm, "dropped.html", words)


@router.get("/quests/dropped/rows")
async def dropped_rows(
    request: Request,
    realm: TheRealm,
    name: FileName,
    priority: str = "normal",
    at: Place = 0,
    line: Place = 0,
    alone: bool = False,
    bare: bool = False,
) -> Response:
    """A page of its rows."""
    found = await to_thread.run_sync(quest_views.dropped, realm, name, priority)
    if isinstance(found, int):
        return RedirectResponse(f"/quests/{found}/rows{'?bare=1' if bare else ''}", 303)
    find = partial(quest_views.dropped_file, realm, name, priority)
    return await _rows(request, realm, find, name, {"name": name, "priority": priority}, (at, line, alone), bare)


@router.get("/quests/{quest}")
def one(request: Request, realm: TheRealm, quest: QuestId) -> Response:
    """Everything about one quest."""
    return _below(
        request, realm, "quest.html", quest_views.one(realm, quest) | {"rows_address": f"/quests/{quest}/rows"}
    )


@router.get("/quests/{quest}/now")
def one_now(request: Request, realm: TheRealm, quest: QuestId) -> Response:
    """What changes of it alone, fetched when it has grown old."""
    return _below(request, realm, "_fragments/quest.html", quest_views.one(realm, quest))


@router.get("/quests/{quest}/rows")
async def rows(
    request: Request,
    realm: TheRealm,
    quest: QuestId,
    at: Place = 0,
    line: Place = 0,
    alone: bool = False,
    bare: bool = False,
) -> Response:
    """A page of rows, from byte `at` on; `bare`: without the frame."""
    row = await to_thread.run_sync(quest_views.quest_row, realm, quest)
    find = partial(quest_views.file_of, realm, row)
    return await _rows(request, realm, find, row["stem"], {}, (at, line, alone), bare)


async def _rows(
    request: Request,
    realm: Realm,
    find: Callable[[], File],
    title: str,
    asked: dict[str, str],
    place: tuple,
    bare: bool,
) -> Response:
    previewer = request.app.state.previewer
    shown = await to_thread.run_sync(quest_views.rows, realm, previewer, find, *place, limiter=ASKING)
    shown |= {"title": title, "base": f"{shown['address']}/rows?{urlencode(asked) + '&' if asked else ''}"}
    return await to_thread.run_sync(
        _below, request, realm, "_fragments/rows.html" if bare else "rows.html", shown | {"asked": asked}
    )


def _asked(name: str, priority: str) -> str:
    return urlencode({"name": name, "priority": priority})


def _below(request: Request, realm: Realm, template: str, context: dict[str, Any]) -> Response:
    return page(template, request.app.state.frame(realm, request, quests.PAGE) | context)
