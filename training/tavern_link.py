"""The way to the Tavern: its address for people, with the token in it where one is asked for, and a client for commands.

The token is printed, and logged nowhere.
"""

from typing import TYPE_CHECKING

from core.config import Tavern
from core.paths import RealmPaths
from core.realm_lock import holder
from training import ports

if TYPE_CHECKING:
    from monitoring.tavern_client import TavernClient


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


def client(paths: RealmPaths, tavern: Tavern) -> "TavernClient | None":
    """A client of the realm's Tavern, None while the realm does not run."""
    from monitoring.servers.tavern.security import read_or_make_token
    from monitoring.tavern_client import TavernClient

    running = holder(paths)
    if running is None:
        return None
    host = ports.reachable(tavern.host)
    return TavernClient(f"http://{f'[{host}]' if ':' in host else host}:{running.port}", read_or_make_token(paths))
