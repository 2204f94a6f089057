"""The two switches that stand on every page: day or night, and the tongue. Each is a form that leads back."""

import re
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from monitoring.servers.tavern import manner
from monitoring.servers.tavern.security import Refusal

router = APIRouter(include_in_schema=False)
_OWN_ADDRESS = re.compile(r"/(?:[\w.~%-][\w/.~%-]*)?(?:\?[\w.~%=&+-]*)?", re.ASCII)


@router.post("/theme")
async def theme(request: Request) -> Response:
    """By day, by night, or as the browser wishes."""
    return await _keep(request, "theme")


@router.post("/tongue")
async def tongue(request: Request) -> Response:
    """The realm's words, or plain ones."""
    return await _keep(request, "tongue")


async def _keep(request: Request, kind: str) -> Response:
    """Keep the choice for a year, and go back to the page it was made on."""
    fields = parse_qs((await request.body()).decode(errors="replace"))
    chosen, back = fields.get(kind, [""])[0], fields.get("back", ["/"])[0]
    if chosen not in manner.CHOICES[kind]:
        raise Refusal(422, "invalid", f"{kind} is one of {', '.join(manner.CHOICES[kind])}, not {chosen[:40]!r}.")
    response = RedirectResponse(back if _OWN_ADDRESS.fullmatch(back) else "/", 303)
    name = manner.cookie_name(kind)
    response.set_cookie(name, chosen, max_age=manner.COOKIE_SECONDS, httponly=True, samesite="lax")
    return response
