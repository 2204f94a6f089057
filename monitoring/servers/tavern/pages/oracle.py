"""The Oracle's page: talk to any model there is, let two of them duel. Its forms work without JavaScript, for one turn each."""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import anyio
from anyio import from_thread
from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import RedirectResponse, Response

from core.chat_request import MOST_TOKENS
from core.errors import UserError
from core.upstream import UpstreamProblem
from monitoring.servers.tavern import duel_api, oracle_views
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.duel_api import Challenge
from monitoring.servers.tavern.duels import SIDES
from monitoring.servers.tavern.oracle_api import TheOracle
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.training_words import training_words
from monitoring.servers.tavern.verdicts import decide, thumb_down

router = APIRouter(include_in_schema=False)


@dataclass
class Talk:
    """A talk of a browser without JavaScript. `told`: what came of a verdict."""

    dials: dict[str, Any]
    turns: list[dict[str, Any]] = field(default_factory=list)
    told: str | None = None


def _state(realm: Realm, request: Request) -> dict[str, Any]:
    return {"card": oracle_views.card(from_thread.run(request.app.state.oracle.state))}


def _talk(realm: Realm, request: Request) -> dict[str, Any]:
    name = request.query_params.get("talk", "")
    talk = request.app.state.talks.get(name)
    shown = (
        {"id": name, "turns": oracle_views.turns(talk.turns), "told": talk.told}
        if talk
        else {"id": "", "turns": [], "told": None}
    )
    return {"talk": shown, "fates": oracle_views.FATES}


def _arena(realm: Realm, request: Request) -> dict[str, Any]:
    return {"duel": oracle_views.arena(request.app.state.duels.get(request.query_params.get("duel", "")))}


def _dials(realm: Realm, request: Request) -> dict[str, Any]:
    models = from_thread.run(request.app.state.oracle.models)
    talk, training = request.app.state.talks.get(request.query_params.get("talk", "")), training_words(realm)
    return {
        "mode": "duel" if request.query_params.get("mode") == "duel" else "talk",
        "choices": oracle_views.choices(models),
        "pair": oracle_views.pair(models),
        "dials": talk.dials if talk else oracle_views.DIALS | {"system": training["system"]},
        "training": training,
        "most_tokens": MOST_TOKENS,
    }


PAGE = Page(
    "/oracle",
    "Oracle",
    "oracle.html",
    {
        "oracle": Part("oracle_state.html", "services", _state),
        "talk": Part("oracle_talk.html", "", _talk),
        "arena": Part("oracle_arena.html", "", _arena),
        "dials": Part("oracle_dials.html", "", _dials),
    },
)


async def _fields(request: Request) -> dict[str, str]:
    body = (await request.body()).decode(errors="replace")
    return {name: values[0] for name, values in parse_qs(body, keep_blank_values=True).items()}


def _dials_of(fields: dict[str, str]) -> dict[str, Any]:
    try:
        temperature, most = float(fields.get("temperature", "")), int(fields.get("max_tokens", ""))
    except ValueError:
        raise UserError("temperature and max_tokens must be numbers") from None
    told = {name: fields.get(name, "") for name in ("model", "first", "second", "system")}
    return told | {"temperature": temperature, "max_tokens": most, "thinking": "thinking" in fields}


def _request(dials: dict[str, Any], turns: list[dict[str, Any]]) -> dict[str, Any]:
    system = [{"role": "system", "content": dials["system"]}] if dials["system"].strip() else []
    said = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    options = {"temperature": dials["temperature"], "max_tokens": dials["max_tokens"]}
    return {"messages": system + said, **options, "chat_template_kwargs": {"enable_thinking": dials["thinking"]}}


@router.post("/oracle")
async def talk_form(request: Request, oracle: TheOracle) -> Response:
    """One question of a browser without JavaScript, and its answer."""
    fields = await _fields(request)
    dials, known = _dials_of(fields), request.app.state.talks.get(fields.get("talk", ""))
    turns = [*(known.turns if known else ()), {"role": "user", "content": fields.get("prompt", "")}]
    heard = await duel_api.ask(oracle, {"model": dials["model"], **_request(dials, turns)}, request.scope)
    if not heard.whole:
        raise Refusal(503, "no_answer", heard.problem or "The answer broke off before its end.")
    turns.append({"role": "assistant", "content": heard.answer.words, "answer": heard.answer})
    return RedirectResponse(f"/oracle?talk={request.app.state.talks.put(Talk(dials, turns))}", 303)


@router.post("/oracle/thumb")
async def thumb_form(request: Request, realm: TheRealm) -> Response:
    fields = await _fields(request)
    if (talk := request.app.state.talks.get(fields.get("talk", ""))) is None:
        raise Refusal(404, "no_talk", "There is no such talk any more; ask again.")
    answered, better = talk.turns[-1]["answer"], fields.get("better", "").strip()
    lesson = await thumb_down(
        realm, _request(talk.dials, talk.turns)["messages"], answered.model or talk.dials["model"], better
    )
    talk.told = f"Handed in as {lesson.name}. {lesson.fate}"
    return RedirectResponse(f"/oracle?talk={fields['talk']}", 303)


@router.post("/oracle/wake")
async def wake_form(oracle: TheOracle) -> Response:
    try:
        await oracle.local.wake()
    except UpstreamProblem as problem:
        raise Refusal(problem.status, problem.code, str(problem)) from None
    return RedirectResponse("/oracle", 303)


@router.post("/oracle/duel")
async def duel_form(request: Request, oracle: TheOracle) -> Response:
    """A duel of a browser without JavaScript: both answer, then the page is shown."""
    fields = await _fields(request)
    dials = _dials_of(fields)
    asked = _request(dials, [{"role": "user", "content": fields.get("prompt", "")}])
    try:
        given = Challenge.model_validate({"first": dials["first"], "second": dials["second"], **asked})
    except ValidationError as problem:
        raise UserError("; ".join(f"{error['loc'][0]}: {error['msg']}" for error in problem.errors())) from None
    duel, problems = duel_api.begin(request, given), {}

    async def speak(side: str) -> None:
        problems[side] = await duel_api.speak(oracle, duel, side, request.scope, None)

    async with anyio.create_task_group() as both:
        for side in SIDES:
            both.start_soon(speak, side)
    if problem := next(filter(None, problems.values()), None):
        raise Refusal(503, "no_answer", problem)
    return RedirectResponse(f"/oracle?mode=duel&duel={duel.id}", 303)


@router.post("/oracle/duel/{duel}")
async def choice_form(request: Request, realm: TheRealm, duel: str) -> Response:
    found = duel_api.find(request, duel)
    await decide(realm, found, (await _fields(request)).get("choice", ""))
    return RedirectResponse(f"/oracle?mode=duel&duel={found.id}", 303)
