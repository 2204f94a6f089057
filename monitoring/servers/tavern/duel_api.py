"""The API of the Oracle's page: duels, thumbs, and markdown made safe. Who speaks in a duel leaves here only after the choice."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response
from starlette.types import Scope, Send

from core.chat_request import LONGEST_MODEL, MOST_TOKENS
from core.errors import UserError, nearest
from core.rows import read_turns
from monitoring.servers.tavern.answers import Listener
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.duels import SIDES, Duel
from monitoring.servers.tavern.html import answer
from monitoring.servers.tavern.markdown import to_html
from monitoring.servers.tavern.openapi import refusals, streamed
from monitoring.servers.tavern.oracle_api import TheOracle, relay
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.verdicts import decide, thumb_down
from monitoring.servers.until_gone import UntilGone

router = APIRouter()
CHAT = "/v1/chat/completions"
Name = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_MODEL)]
# A bound has the letters looked at, too: half a surrogate pair is refused.
Text = Annotated[str, StringConstraints(max_length=1 << 20)]
Turns = Annotated[list[dict[str, Any]], Field(min_length=1)]


class Texts(BaseModel):
    """What models said."""

    texts: Annotated[list[Text], Field(max_length=1000)]


class Thumb(BaseModel):
    """A talk whose last turn is a wrong answer, who gave it, and the right one if somebody knows it."""

    messages: Turns
    model: Name
    better: Text = ""


class Thinking(BaseModel):
    """What the chat template is told besides the messages."""

    enable_thinking: bool = False


class Challenge(BaseModel):
    """One question for two models."""

    first: Name
    second: Name
    messages: Turns
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.7
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 512
    chat_template_kwargs: Thinking = Thinking()


class Choice(BaseModel):
    """The verdict: left, right, tie or bad."""

    choice: Text


@router.post("/api/oracle/markdown")
def markdown(given: Texts) -> Response:
    """Texts of models as HTML that can do nothing."""
    return answer({"html": [to_html(text) for text in given.texts]})


@router.post("/api/oracle/thumbs", status_code=201)
async def thumb(realm: TheRealm, given: Thumb) -> Response:
    """Thumbs down: a quest in the inbox, of the form messages with a better answer, else of the form label."""
    lesson = await thumb_down(realm, given.messages, given.model, given.better.strip())
    return answer({"name": lesson.name, "form": lesson.form, "fate": lesson.fate}, 201)


@router.post("/api/oracle/duels", status_code=201)
async def challenge(request: Request, given: Challenge) -> Response:
    """Begin a duel. Who stands left is drawn by lot and kept here."""
    return answer({"duel": begin(request, given).id}, 201)


def begin(request: Request, given: Challenge) -> Duel:
    turns = read_turns(given.messages, "messages")
    if turns[-1]["role"] != "user":
        raise UserError(f"messages: the last turn is {turns[-1]['role']}'s; it must be user's, which both then answer")
    options = given.model_dump(include={"temperature", "max_tokens", "chat_template_kwargs"})
    return request.app.state.duels.begin(turns, (given.first, given.second), options)


def find(request: Request, duel: str) -> Duel:
    if (found := request.app.state.duels.get(duel)) is None:
        raise Refusal(404, "no_duel", "There is no such duel any more; begin another one.")
    return found


@router.post("/api/oracle/duels/{duel}/choice", responses=refusals(404, 409))
async def choose(request: Request, realm: TheRealm, duel: str, given: Choice) -> Response:
    """Decide a duel: who was who, and the quest in the inbox where one answer was better."""
    return answer(await decide(realm, find(request, duel), given.choice))


@router.post("/api/oracle/duels/{duel}/{side}", responses=streamed())
async def side(request: Request, oracle: TheOracle, duel: str, side: str) -> Response:
    """One side's answer as a stream of chat completion chunks that name nobody."""
    if side not in SIDES:
        raise Refusal(404, "no_side", f"There is no side {side[:40]!r}{nearest(side, SIDES) or '.'} Known: left, right")
    found = find(request, duel)
    if found.sides[side].answer:
        raise Refusal(409, "answered_already", "This side has answered; begin another duel.")
    return UntilGone(partial(speak, oracle, found, side))


async def speak(oracle: TheOracle, duel: Duel, side: str, scope: Scope, send: Send | None) -> str | None:
    """Have one side answer, heard by `send` if there is one; why it could not, or None."""
    spoken = duel.sides[side]
    listener = await ask(oracle, {"model": spoken.asked, "messages": duel.messages, **duel.options}, scope, send)
    if listener.whole and spoken.answer is None:
        spoken.answer = listener.answer
    return listener.problem


async def ask(oracle: TheOracle, values: dict[str, Any], scope: Scope, send: Send | None = None) -> Listener:
    """A streamed answer, gathered."""
    listener = Listener(send)
    await relay(oracle, values | {"stream": True}, {**scope, "path": CHAT}, listener)
    return listener
