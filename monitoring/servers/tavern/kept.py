"""The newest things of a kind, kept in memory under names that cannot be guessed; it knows nothing about them."""

import secrets
from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

Thing = TypeVar("Thing")


class Kept(Generic[Thing]):
    """At most `most` things; the one that was put in first goes first."""

    def __init__(self, most: int):
        self._most, self._things = most, OrderedDict()
        self._lock = Lock()

    def put(self, thing: Thing, name: str | None = None) -> str:
        """Keep `thing`, and get its name."""
        name = name or secrets.token_urlsafe(12)
        with self._lock:
            self._things[name] = thing
            self._things.move_to_end(name)
            while len(self._things) > self._most:
                self._things.popitem(last=False)
        return name

    def get(self, name: str | None) -> Thing | None:
        return self._things.get(name)
