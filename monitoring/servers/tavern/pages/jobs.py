"""The jobs: every battle, newest first, fifty a page."""

from typing import Any

from fastapi import Request

from monitoring.servers.tavern import views
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm

SHOWN = 50


def _jobs(realm: Realm, request: Request) -> dict[str, Any]:
    given = request.query_params.get("before", "")
    before = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
    rows = views.jobs(realm, SHOWN + 1, before)
    older = rows[SHOWN - 1]["id"] if len(rows) > SHOWN else None
    return {"jobs": rows[:SHOWN], "older": older, "totals": views.totals(realm)}


PAGE = Page("/jobs", "Jobs", "jobs.html", {"jobs": Part("jobs.html", "events", _jobs)})
