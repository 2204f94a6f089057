"""The page that asks for the token."""

from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from monitoring.servers.tavern.html import page
from monitoring.servers.tavern.security import Refusal

COOKIE_SECONDS = 30 * 86400
FORM_BYTES = 4096
router = APIRouter(include_in_schema=False)


@router.get("/login")
def login(request: Request, token: str | None = None) -> Response:
    """The page itself; with the right token in the link, straight in: the redirect keeps the link out of the history."""
    return page("login.html", {"problem": None}) if token is None else _let_in(request, token)


@router.post("/login")
async def login_form(request: Request) -> Response:
    form = await request.body()
    if len(form) > FORM_BYTES:
        raise Refusal(413, "too_large", "A token is shorter.")
    fields = parse_qs(form.decode(errors="replace"))
    return _let_in(request, fields.get("token", [""])[0])


def _let_in(request: Request, token: str) -> Response:
    rules = request.app.state.rules
    if not rules.is_token(token.strip()):
        raise Refusal(401, "wrong_token", "That is not the token. It stands in the realm's state/token.")
    response = RedirectResponse("/", 303)
    response.set_cookie(
        rules.cookie,
        rules.token,
        max_age=COOKIE_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.scope["scheme"] == "https",
    )
    return response
