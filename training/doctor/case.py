"""What a check is given and what it yields; it knows no check."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from core.config import Config
from core.paths import RealmPaths
from core.realm_lock import Holder


@dataclass(frozen=True)
class Case:
    """A realm, or a folder where one may be made. `config`: None if it is not valid. `deep`: hash every checkpoint."""

    paths: RealmPaths
    config: Config | None
    running: Holder | None
    deep: bool = False


@dataclass(frozen=True)
class Finding:
    """`level`: ok, warning or error; `remedy` where there is something to do, `help`: where that is told at length."""

    code: str
    level: str
    text: str
    remedy: str = ""
    help: str = ""


Check = Callable[[Case], Iterator[Finding]]


def ok(code: str, text: str) -> Finding:
    return Finding(code, "ok", text)


def look(code: str, text: str, remedy: str) -> Finding:
    """Something to look at; the realm works."""
    return Finding(code, "warning", text, remedy, told_at(code))


def bad(code: str, text: str, remedy: str) -> Finding:
    """Something that keeps the realm from working."""
    return Finding(code, "error", text, remedy, told_at(code))


def told_at(code: str) -> str:
    """The entry about a finding."""
    return f"TROUBLESHOOTING.md#doctor-{code.lower()}"
