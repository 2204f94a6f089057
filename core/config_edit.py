"""Changes to config.json: what they would make of it, what would be wrong with that, and writing them. It knows no form.

Who saves says which bytes he has seen (their SHA-256), so that two people who edit at once notice each other. All who
write hold the folder's lock meanwhile; who reads needs none, for the file is replaced in one instant.
"""

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from core import config_words
from core.config import Config, check_config, explain, read_values
from core.durable import write_bytes
from core.errors import RealmError

MAPS = ("trainer", "skill_priorities", "dice", "heroes")
UNSET = object()  # the value of a field that is to be left to its default
Values = dict[str, Any]


class Overtaken(RealmError):
    """Somebody else has changed the file since it was read."""


def seen(path: Path) -> str:
    """What names the bytes of the file as they are now; a missing file has a name, too."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return hashlib.sha256(b"").hexdigest()


def mistakes(values: Any) -> dict[str, str]:
    """What is wrong with `values` as a config, by field; under the empty name what is no field's alone."""
    try:
        Config.model_validate(values, strict=True)
    except ValidationError as problem:
        found: dict[str, str] = {}
        for error in problem.errors():
            field, sentence = config_words.where(Config, error)
            found[field] = f"{found[field]} {sentence}" if field in found else sentence
        return found
    return {}


def changed(values: Values, changes: Mapping[str, Any]) -> Values:
    """A copy of `values` with the fields (dotted names) of `changes` set, or taken out where they are UNSET."""
    made = deepcopy(values)
    for field, value in changes.items():
        *parents, last = field.split(".")
        way = [made]
        for parent in parents:
            inner = way[-1].get(parent)
            if not isinstance(inner, dict):
                way[-1][parent] = inner = {}
            way.append(inner)
        if value is UNSET:
            way[-1].pop(last, None)
            for parent, node in zip(reversed(parents), reversed(way[:-1]), strict=True):
                if node[parent] == {}:
                    del node[parent]
        else:
            way[-1][last] = value
    return made


def text(values: Values) -> str:
    """The file's text."""
    return orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE).decode()


def save(path: Path, changes: Mapping[str, Any], expected: str) -> Config:
    """Write `changes` into the file that was `seen` as `expected`. Raises UserError where the whole would not be valid, and
    Overtaken."""
    with _alone(path):
        if seen(path) != expected:
            raise Overtaken(f"{path.name} was changed by somebody else meanwhile")
        values = changed(read_values(path), changes)
        return _write(path, values)


def set_value(path: Path, field: str, value: Any) -> Config:
    """Write `field` = `value` into the config file at `path`, if the whole stays valid, and return the new config."""
    if not _in_map(field):
        explain(field)
    with _alone(path):
        values = read_values(path)
        *parents, last = field.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict):
            check_config(values, str(path))  # raises: the whole or a section is no object
        node[last] = value
        return _write(path, values)


def _write(path: Path, values: Values) -> Config:
    config = check_config(values, str(path))
    write_bytes(path, text(values).encode())
    return config


def _in_map(field: str) -> bool:
    """Whether `field` is a key of a map such as `trainer`, whose keys are not fields themselves."""
    return "." in field and field.partition(".")[0] in MAPS


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)
