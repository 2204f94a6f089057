"""What a page of the Tavern is: parts, each of which can be fetched alone when it has grown old. It knows no page by name."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from monitoring.servers.tavern.realm import Realm


@dataclass(frozen=True)
class Part:
    """A part of a page: `template` in _fragments, its words, and the key of `views.now` by which it grows old."""

    template: str
    key: str
    view: Callable[[Realm, Request], dict[str, Any]]


def _nothing(realm: Realm, request: Request) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Page:
    """`template` shows `parts`, by their names, in an order of its own; `more`: what it shows that does not grow old;
    `menu`: whether the navigation leads there."""

    path: str
    name: str
    template: str
    parts: dict[str, Part]
    more: Callable[[Realm, Request], dict[str, Any]] = _nothing
    menu: bool = field(default=True, kw_only=True)
