"""The troubleshooting page of the checkout as HTML, and which complaints have an entry in it. It knows no complaint itself.

The text is the project's own, and still no tag in it is HTML: what is rendered here can only be what markdown can say.
"""

import re
from functools import lru_cache
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from core import lore
from core.paths import CHECKOUT

TROUBLESHOOTING = CHECKOUT / "TROUBLESHOOTING.md"
ADDRESS = "/help/troubleshooting"


def anchor(heading: str) -> str:
    """As GitHub names a heading: `doctor disk` -> doctor-disk."""
    return re.sub(r"[^\w-]", "", heading.strip().lower().replace(" ", "-"))


@lru_cache(2)
def troubleshooting(plain: bool = False) -> tuple[Markup, frozenset[str]]:
    """The page's HTML in either tongue, and the anchors of its entries; an empty page where the checkout has none."""
    if not TROUBLESHOOTING.exists():
        return Markup(""), frozenset()
    parser = MarkdownIt("commonmark", {"html": False})
    tokens = parser.parse(TROUBLESHOOTING.read_text(encoding="utf-8"))
    entries = set()
    for opened, inline in pairwise(tokens):
        if opened.type == "heading_open":
            opened.attrs["id"] = anchor(inline.content)
            entries |= {anchor(inline.content)} if opened.tag == "h3" else set()
    for token in tokens if plain else ():
        for part in token.children or ():
            part.content = lore.plain(part.content) if part.type == "text" else part.content
    return Markup(parser.renderer.render(tokens, parser.options, {})), frozenset(entries)


def help_address(code: str) -> str | None:
    """Where the page says what to do about an alert or a state, if it does."""
    return f"{ADDRESS}#{anchor(code)}" if anchor(code) in troubleshooting()[1] else None


def trouble_of(status: dict[str, Any]) -> str | None:
    """The entry about what keeps a realm from its work, by `status`; None where nothing does."""
    services = {service["name"]: service["state"] for service in status["services"]}
    for code, holds in (
        ("realm_asleep", services["watchdog"] == "stopped" and services["trainer"] != "running"),
        ("disk_low", status["state"] == "blocked" or status["disk"]["state"] not in ("ok", "pruning")),
        ("trainer_down", services["trainer"] not in ("running", "starting")),
        ("daemon_down", services["daemon"] not in ("running", "starting")),
    ):
        if holds:
            return code
    return None
