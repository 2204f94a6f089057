"""The jobs: every piece of work, newest first, fifty a page, by kind and state; and a page for each with its log."""

from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import Response

from monitoring.servers.tavern import work
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import page
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm

SHOWN = 50
router = APIRouter(include_in_schema=False)


def _jobs(realm: Realm, request: Request) -> dict[str, Any]:
    asked = request.query_params
    kind = asked.get("kind") if asked.get("kind") in work.KINDS else None
    state = asked.get("state") if asked.get("state") in work.STATES else None
    before = asked.get("before")
    rows = work.pieces(realm, kind, state, SHOWN + 1, before if before and work.is_known(realm, before) else None)
    chosen = {"kind": kind, "state": state}
    return {
        "jobs": rows[:SHOWN],
        "older": _address(chosen | {"before": rows[SHOWN - 1]["id"]}) if len(rows) > SHOWN else None,
        "totals": work.totals(realm),
        "chosen": kind or state,
        "filters": [
            ("Kind", _links("kind", "all work", work.KINDS, chosen)),
            ("State", _links("state", "any state", work.STATES, chosen)),
        ],
    }


def _links(name: str, everything: str, values: tuple[str, ...], chosen: dict[str, str | None]) -> list[dict[str, Any]]:
    """One link for everything and one for each value; the other filter stays as it is."""
    return [
        {"text": value or everything, "href": _address(chosen | {name: value}), "chosen": chosen[name] == value}
        for value in (None, *values)
    ]


def _address(asked: dict[str, str | None]) -> str:
    given = {name: value for name, value in asked.items() if value}
    return f"/jobs?{urlencode(given)}" if given else "/jobs"


PAGE = Page("/jobs", "Jobs", "jobs.html", {"jobs": Part("jobs.html", "jobs", _jobs)})


@router.get("/jobs/{job}")
def one(request: Request, realm: TheRealm, job: str) -> Response:
    """One piece of work and its log."""
    return page("job.html", request.app.state.frame(realm, request, PAGE) | _one(realm, job))


@router.get("/jobs/{job}/now")
def one_now(request: Request, realm: TheRealm, job: str) -> Response:
    """The same alone, fetched when it has grown old."""
    return page("_fragments/job.html", request.app.state.frame(realm, request, PAGE) | _one(realm, job))


def _one(realm: Realm, key: str) -> dict[str, Any]:
    piece = work.piece(realm, key)
    return {"job": piece, "events": work.log(realm, piece)}
