"""The Tavern's address for people: with the token in it where one is asked for. It is printed, and logged nowhere."""

from core.config import Tavern
from core.paths import RealmPaths
from training import ports


def address(tavern: Tavern, port: int) -> str:
    """Without the token."""
    here = ports.reachable(tavern.host) in ("127.0.0.1", "::1")
    host = "localhost" if here else f"[{tavern.host}]" if ":" in tavern.host else tavern.host
    return f"http://{host}:{port}"


def link(paths: RealmPaths, tavern: Tavern, port: int) -> str:
    """The address; behind it, where a token is needed, the login that exchanges it for a cookie."""
    from monitoring.servers.tavern import security  # FastAPI's toolbox: not for every verb

    url = address(tavern, port)
    if security.is_loopback(tavern.host) and not tavern.require_token:
        return url
    return f"{url}/login?token={security.read_or_make_token(paths)}"
