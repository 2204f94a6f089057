"""How a visitor wants the pages: by day or by night, and in which tongue. It knows two cookies, and no page.

The request's manner is kept in a context variable, as a locale is, so that whatever is rendered for it can ask.
"""

from contextvars import ContextVar
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

from starlette.types import ASGIApp, Receive, Scope, Send

CHOICES = {"theme": ("auto", "light", "dark"), "tongue": ("realm", "plain")}  # the first is what nobody asked for
COOKIE_SECONDS = 365 * 86400


@dataclass(frozen=True)
class Manner:
    """`theme`: auto is the browser's wish. `tongue`: the realm's words, or plain ones of machine learning."""

    theme: str = "auto"
    tongue: str = "realm"

    @property
    def plain(self) -> bool:
        return self.tongue == "plain"


NOBODYS = Manner()
_current: ContextVar[Manner] = ContextVar("manner", default=NOBODYS)


def current() -> Manner:
    """The manner of the request that is being answered."""
    return _current.get()


def cookie_name(kind: str) -> str:
    return f"realm_{kind}"


def read(scope: Scope) -> Manner:
    """What the cookies of a request ask for; anything unknown counts as not said."""
    given = "; ".join(value.decode("latin-1") for name, value in scope["headers"] if name == b"cookie")
    try:
        cookies = SimpleCookie(given)
    except CookieError:
        return NOBODYS
    said = {kind: cookies[cookie_name(kind)].value for kind in CHOICES if cookie_name(kind) in cookies}
    return Manner(**{kind: value for kind, value in said.items() if value in CHOICES[kind]})


class Mannered:
    """ASGI middleware: everything that is rendered inside it knows the visitor's manner."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        before = _current.set(read(scope))
        try:
            await self.app(scope, receive, send)
        finally:
            _current.reset(before)
