"""The settings page: every field of config.json, a diff and a memory plan before anything is written, and the writing."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from core.config_edit import Overtaken, save
from core.full_disk import is_no_space
from core.hero_profile import laid_over
from monitoring.servers.tavern import settings_views
from monitoring.servers.tavern.api import TheRealm
from monitoring.servers.tavern.html import page
from monitoring.servers.tavern.memory_view import memory
from monitoring.servers.tavern.pages.parts import Page
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.settings_form import Draft
from monitoring.servers.tavern.settings_text import settings

router = APIRouter(include_in_schema=False)


def _view(realm: Realm, draft: Draft | None = None, errors: dict[str, str] | None = None) -> dict[str, Any]:
    file = settings_views.read(realm)
    errors = file["errors"] if errors is None else errors
    known = settings()
    return {
        "groups": settings_views.groups(realm, file, draft.texts if draft else {}, errors),
        "file": file,
        "errors": errors,
        "strays": {name: text for name, text in errors.items() if name not in known},
        "behind": settings_views.behind(realm),
        "memory": memory(realm.paths, laid_over(file["config"])) if file["config"] else None,
    }


PAGE = Page(
    "/settings",
    "Settings",
    "settings.html",
    {},
    lambda realm, request: _view(realm) | {"saved": request.query_params.get("saved", "")},
)


@router.post("/settings")
async def edit(request: Request, realm: TheRealm) -> Response:
    """What was typed: shown as a diff, or saved, if that is what the form says."""
    body = (await request.body()).decode(errors="replace")
    return await run_in_threadpool(_edit, request, realm, body)


def _edit(request: Request, realm: Realm, body: str) -> Response:
    draft = Draft.of(body)
    file = settings_views.read(realm)
    if file["problem"]:
        raise Refusal(409, "no_json", file["problem"])
    frame = request.app.state.frame(realm, request, PAGE)
    if draft.seen != file["seen"]:
        return _overtaken(realm, draft, frame)
    if errors := draft.mistakes(file["values"]):
        return page("settings.html", frame | _view(realm, draft, errors) | {"saved": ""}, 422)
    if draft.step == "save" and draft.texts:
        return _save(realm, draft, frame)
    return page("settings_diff.html", frame | _difference(realm, draft, file))


def _difference(realm: Realm, draft: Draft, file: dict[str, Any]) -> dict[str, Any]:
    before = memory(realm.paths, laid_over(file["config"])) if file["config"] else None
    return {
        "lines": draft.lines(file["values"]),
        "diff": draft.diff(file["values"]),
        "seen": file["seen"],
        "before": before,
        "after": memory(realm.paths, draft.config(file["values"])),
        "behind": settings_views.behind(realm),
    }


def _save(realm: Realm, draft: Draft, frame: dict[str, Any]) -> Response:
    lines = draft.lines(settings_views.read(realm)["values"])
    try:
        save(realm.paths.config, draft.changes, draft.seen)
    except Overtaken:
        return _overtaken(realm, draft, frame)
    except OSError as problem:
        status = 507 if is_no_space(problem, realm.paths.root) else 409
        raise Refusal(status, "not_written", f"config.json was not written: {problem.strerror}.") from None
    told = ", ".join(f"{line['name']} = {line['new']} (was {line['old']})" for line in lines)
    realm.ledger.event("tavern", "config_changed", f"Settings changed: {told}. They count from the next start-all.")
    return RedirectResponse(f"/settings?saved={len(lines)}", 303)


def _overtaken(realm: Realm, draft: Draft, frame: dict[str, Any]) -> Response:
    """Somebody else was quicker: the file as it is now beside what was typed."""
    file = settings_views.read(realm)
    context = {"lines": draft.lines(file["values"]), "seen": file["seen"], "behind": settings_views.behind(realm)}
    return page("settings_overtaken.html", frame | context, 409)
