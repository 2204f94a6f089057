"""The Tavern's API of one quest: cancel, retry, move. What they do stands in core/quest_acts.py; here are requests only."""

from functools import partial
from typing import Annotated, Any, Literal

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from core.full_disk import is_no_space
from core.quest_acts import QuestActs
from monitoring.servers.tavern import quest_views
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.openapi import refusals, shows, thing
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

router = APIRouter()
QuestId = Annotated[int, Path(ge=0, lt=1 << 62)]
Place = Annotated[int, Query(ge=0, lt=1 << 62)]
OtherId = Annotated[int, Field(ge=0, lt=1 << 62)]
NOT_ANY = refusals(404, 409)


class Body(BaseModel):
    """Only what is known is taken."""

    model_config = ConfigDict(extra="forbid")


class Retry(Body):
    """`force`: also a duplicate, or a quest that was trained to its end."""

    force: bool = False


class Move(Body):
    """A priority, a place in it, or both; at most one of `before`, `after` and `to`."""

    priority: Literal["high", "normal", "low"] | None = None
    before: OtherId | None = None
    after: OtherId | None = None
    to: Literal["first", "last", "up", "down"] | None = None


@router.post("/api/quests/{quest}/cancel", responses={202: shows(thing(), "Wished."), **NOT_ANY})
def cancel(realm: TheRealm, quest: QuestId) -> Response:
    """200: it is in queue/failed/; 202: it is in training, and the trainer cancels it between two steps."""
    done = carry_out(realm, quest, "cancel")
    return answer(done, 202 if "wish" in done else 200)


@router.post("/api/quests/{quest}/retry", responses=NOT_ANY)
def retry(realm: TheRealm, quest: QuestId, wanted: Retry | None = None) -> Response:
    """A failed quest waits again, a rejected one is judged anew; `force` for a duplicate and for one that was trained."""
    return answer(carry_out(realm, quest, "retry", force=bool(wanted and wanted.force)))


@router.post("/api/quests/{quest}/move", responses=NOT_ANY)
def move(realm: TheRealm, quest: QuestId, wanted: Move) -> Response:
    """Let a waiting quest stand elsewhere in the queue; `place` tells how many of its priority stand before it."""
    return answer(carry_out(realm, quest, "move", **wanted.model_dump()))


@router.get("/api/quests/{quest}/preview", responses=refusals(404, 409, 503))
async def preview(request: Request, realm: TheRealm, quest: QuestId, at: Place = 0, line: Place = 0) -> Response:
    """Rows as the hero will see them, from byte `at` (behind line `line`) on; `next` says where the next ones are."""
    row = await to_thread.run_sync(quest_views.quest_row, realm, quest)
    find = partial(quest_views.file_of, realm, row)
    shown = await to_thread.run_sync(quest_views.rows, realm, request.app.state.previewer, find, at, line)
    return answer(shown["preview"])


def carry_out(realm: Realm, quest: int, verb: str, **how: Any) -> dict[str, Any]:
    """What came of it. Raises Refusal where there is no such quest, UserError and WrongState as the acts do."""
    if realm.ledger.one("SELECT id FROM quests WHERE id=?", (quest,)) is None:
        raise Refusal(404, "no_quest", f"There is no quest {quest}.")
    try:
        done = getattr(QuestActs(realm.paths, realm.ledger, "tavern"), verb)(quest, **how)
    except OSError as problem:
        if not is_no_space(problem, realm.paths.state):
            raise
        raise Refusal(507, "no_room", "The disk is full, so nothing was changed. Free space first.") from problem
    realm.stale()
    return done
