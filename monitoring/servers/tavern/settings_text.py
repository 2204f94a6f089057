"""The fields of config.json as a page may show and take them: as text, with their choices, without secrets, locked or not.

It reads no file. A page must not widen the door that it stands behind, so what does is changed in the file only.
"""

import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import orjson
from pydantic import BaseModel

from core.config import fields
from core.errors import UserError, nearest
from core.quest import Settings

DOOR = "It decides who can reach this page. A page that could open its own door would be no door."
AWAY = "It says where what is yours is sent."
LOCKED = {  # fields and sections that are changed in the file only, and why
    "tavern.host": DOOR,
    "tavern.hosts": DOOR,
    "tavern.require_token": DOOR,
    "oracle.url": f"{AWAY} Every chat goes to that machine.",
    "schools.whisper.url": f"{AWAY} Prompts of quests go to that machine.",
    "backup.to": f"{AWAY} Weights and ledger go to that place.",
    "alerts": f"{AWAY} An address of alerts is also a secret: who has it can send in your name.",
}
_BESIDE = re.compile(r"(?<=://).*@|[?#].*$")
_SECRET = re.compile(r"token|key|secret|password|webhook", re.IGNORECASE)
NEXT_QUEST = "for quests accepted after the next start-all"
NEXT_START = "from the next start-all"


def settings() -> list[str]:
    """The dotted names of all fields that are no sections."""
    return [name for name, field in fields().items() if not isinstance(field.default, BaseModel)]


def known(name: str) -> str:
    """`name`, if it is a field and no section. Raises UserError with the nearest one, or with a field of it."""
    if name in settings():
        return name
    inner = next((one for one in settings() if one.startswith(f"{name}.")), None)
    if inner:
        raise UserError(f"{name} is a section; change a field of it, such as {inner}.")
    raise UserError(f"There is no field {name[:80]!r}{nearest(name, settings()) or '.'}")


def why_locked(name: str) -> str | None:
    """Why a field is changed in the file only; None where the page may change it."""
    for known, why in LOCKED.items():
        if name == known or name.startswith(f"{known}."):
            return why
    return f"{AWAY} What is secret is written into the file only." if secret(name) else None


def secret(name: str) -> bool:
    """Whether its value is never shown: it is marked so in the schema, an address of alerts, or called like a secret."""
    marks = fields()[name].json_schema_extra
    if isinstance(marks, dict) and marks.get("secret"):
        return True
    called = name.startswith("alerts.") or _SECRET.search(name.rpartition(".")[2])
    return bool(called) and not _is_small(_flat(fields()[name].annotation))


def _is_small(kinds: list[Any]) -> bool:
    """Switches, numbers and choices tell nobody anything, nor do lists of them."""
    return all(
        kind in (bool, int, float, type(None))
        or get_origin(kind) is Literal
        or (get_origin(kind) is list and _is_small(_flat(get_args(kind)[0])))
        for kind in kinds
    )


def shown_text(name: str, value: Any) -> str:
    """A value as it may be shown."""
    if value in (None, "", [], {}):
        return "none"
    return "set, and not shown" if secret(name) else without_secrets(text_of(value))


def effect(name: str) -> str:
    """When a change of the field counts."""
    frozen = name.partition(".")[0] in Settings.model_fields or name.startswith("training_defaults.")
    return NEXT_QUEST if frozen else NEXT_START


def without_secrets(address: str) -> str:
    """A URL without the user, the password and the query in it; a folder is as it is."""
    return _BESIDE.sub("", address) if "://" in address else address


# Values as text


def value_at(values: Any, name: str) -> Any:
    """The value at a dotted name, None where there is none."""
    for part in name.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def text_of(value: Any) -> str:
    """As it stands in an input: strings bare, everything else as JSON, nothing as nothing."""
    return "" if value is None else value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def parsed(name: str, text: str) -> Any:
    """What a typed text means: of fields that hold text the text, else JSON, else the text itself, which the check names."""
    if str in _flat(fields()[name].annotation):
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def choices(name: str) -> list[str] | None:
    """The texts to choose from, None where anything may be typed."""
    kinds = [kind for kind in _flat(fields()[name].annotation) if kind is not type(None)]
    found: list[Any] = []
    for kind in kinds:
        if kind is bool:
            found += [True, False]
        elif get_origin(kind) is Literal:
            found += get_args(kind)
        else:
            return None
    return [text_of(value) for value in found]


def is_map(name: str) -> bool:
    return any(kind in (dict, list) or get_origin(kind) in (dict, list) for kind in _flat(fields()[name].annotation))


def _flat(annotation: Any) -> list[Any]:
    """The kinds of value that an annotation allows."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _flat(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [kind for choice in get_args(annotation) for kind in _flat(choice)]
    return [annotation]
