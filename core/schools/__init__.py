"""The schools by name, with what they teach; importing this imports no torch. A school's loss is in its own module."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class SchoolCard:
    """A school as the pages show it."""

    name: str
    title: str
    motto: str
    rows: str


SCHOOLS = {
    "scribe": SchoolCard(
        "scribe",
        "Scribe",
        "Copy the masters until the words are yours.",
        "conversations and texts: messages, conversations, instruction/output, prompt/completion, "
        "prompt/response, question/answer, text",
    ),
}


def schools() -> list[SchoolCard]:
    """The schools that teach today."""
    return list(SCHOOLS.values())


def school(name: str) -> Any:
    """The school's working part, loaded on first use (this imports torch)."""
    return import_module(f"core.schools.{SCHOOLS[name].name}").School()
