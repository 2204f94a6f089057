"""What a checked schema is made of, and its fields in words: where they are, what they accept, what a mistake was. It
knows no field."""

import difflib
from functools import cache
from typing import Any, get_args, get_origin

import orjson
from pydantic import BaseModel, ConfigDict

from core.errors import UserError, nearest

Schema = type[BaseModel]
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "pattern": "matching"}


KEY = "[key]"  # pydantic's word, last in the place of a mistake that is a map's key
ANY = "*"  # stands for whatever key a map of sections has: heroes.*.seed
SECRET = {"secret": True}  # json_schema_extra of a field whose value no message may show


class Section(BaseModel):
    """A part of config.json: unknown keys are refused, values never change after the check."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def fields(schema: Schema, prefix: str = "") -> dict[str, Any]:
    """Every field by its dotted path, sections included, in the order of the schema."""
    found: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        found[prefix + name] = field
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found |= fields(field.annotation, f"{prefix}{name}.")
    return found


@cache
def every_field(schema: Schema) -> dict[str, Any]:
    """`fields`, and those of sections in maps, whose key is ANY."""
    found: dict[str, Any] = {}
    for name, field in fields(schema).items():
        found[name] = field
        if inner := _section_in_map(field):
            found |= {f"{name}.{ANY}.{each}": one for each, one in _reached(inner).items()}
    return found


def _section_in_map(field: Any) -> Schema | None:
    values = get_args(field.annotation)[1:] if get_origin(field.annotation) is dict else ()
    return next((kind for kind in values if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _reached(schema: Schema) -> dict[str, Any]:
    """`fields` of a section whose own sections may be left out."""
    found: dict[str, Any] = {}
    for name, field in schema.model_fields.items():
        found[name] = field
        for kind in get_args(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= fields(kind, f"{name}.")
    return found


def schema_path(schema: Schema, path: str) -> str:
    """`path` as `every_field` calls it: heroes.Ada.seed -> heroes.*.seed."""
    head, _, rest = path.partition(".")
    known = fields(schema).get(head)
    _, _, inner = rest.partition(".")
    return f"{head}.{ANY}.{inner}" if inner and known and _section_in_map(known) else path


def explain(schema: Schema, path: str) -> dict[str, Any]:
    """Path, description, default and allowed values of one field; UserError for an unknown one."""
    name = schema_path(schema, path)
    known = every_field(schema)
    if name not in known:
        raise UserError(f"unknown field {path!r}{_nearest_field(schema, path) or '.'} Known: {', '.join(known)}")
    default = known[name].get_default(call_default_factory=True)
    default = default.model_dump() if isinstance(default, BaseModel) else default
    allowed = allowed_values(schema, path)
    return {"field": path, "description": known[name].description, "default": default, "allowed": allowed}


def mistake(schema: Schema, error: dict) -> str:
    """What pydantic found wrong, for the user."""
    path = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown field {path!r}{_nearest_field(schema, path) or '.'} `config explain` lists them all."
    if error["loc"][-1] == KEY:
        return f"{path.removesuffix('.' + KEY)}: {error['input']!r} is no name that may stand there: {error['msg']}."
    allowed = f" Allowed: {allowed_values(schema, path)}." if schema_path(schema, path) in every_field(schema) else ""
    value = "…" if _is_secret(schema, path) else _short(error["input"])
    return f"{path} = {value}: {error['msg']}.{allowed}"


def _is_secret(schema: Schema, path: str) -> bool:
    """Whether `path` is a field marked SECRET, lies in one, or holds one."""
    marked = [name for name, field in fields(schema).items() if field.json_schema_extra == SECRET]
    return any(f"{path}.".startswith(f"{name}.") or f"{name}.".startswith(f"{path}.") for name in marked)


def where(schema: Schema, error: dict) -> tuple[str, str]:
    """The field beside which a mistake is shown, and the sentence that stands there."""
    path = ".".join(str(part) for part in error["loc"] if part != KEY)
    known, field = fields(schema), path
    if error["type"] == "extra_forbidden" and schema_path(schema, path) == path:
        return path, f"There is no such field{_nearest_field(schema, path) or '.'}"
    while field and field not in known:
        field = field.rpartition(".")[0]
    inside = f"{path[len(field) :].strip('.')}: " if field and field != path else ""
    if error["type"] == "extra_forbidden":
        return field, f"{inside}there is no such field{_nearest_field(schema, path) or '.'}"
    allowed = f" Allowed: {allowed_values(schema, path)}." if path in known else ""
    return field, f"{inside}{error['msg'].removeprefix('Value error, ')}.{allowed}"


def _nearest_field(schema: Schema, path: str) -> str:
    name = schema_path(schema, path)
    siblings = [each for each in every_field(schema) if each.rpartition(".")[0] == name.rpartition(".")[0]]
    if name == path:
        return nearest(path, siblings) or _same_name_elsewhere(schema, path)
    return nearest(name, siblings).replace(ANY, path.split(".")[1])


def _same_name_elsewhere(schema: Schema, path: str) -> str:
    last, known = path.rpartition(".")[2], fields(schema)
    close = difflib.get_close_matches(last, [name.rpartition(".")[2] for name in known], n=1, cutoff=0.75)
    homes = [name for name in known if close and name.rpartition(".")[2] == close[0]]
    return f"; did you mean {homes[0]!r}?" if homes else ""


def _short(value: Any) -> str:
    text = orjson.dumps(value, default=str).decode()
    return text if len(text) <= 60 else text[:57] + "..."


def allowed_values(schema: Schema, path: str) -> str:
    """What the field at `path` accepts, in words: its type, choices and bounds."""
    whole = _json_schema(schema)
    node: dict = whole
    for part in schema_path(schema, path).split("."):
        node = _inside(_deref(node, whole), part, whole)
    return _describe(_deref(node, whole), whole)


def _inside(node: dict, part: str, whole: dict) -> dict:
    """The part of a section that has this name, or what every key of a map holds."""
    if "anyOf" in node:  # a section that may be left out
        return _inside(_deref(node["anyOf"][0], whole), part, whole)
    return next(iter(node["patternProperties"].values())) if part == ANY else node["properties"][part]


@cache
def _json_schema(schema: Schema) -> dict:
    return schema.model_json_schema()


def _deref(node: dict, whole: dict) -> dict:
    while "$ref" in node or len(node.get("allOf", [])) == 1:
        node = whole["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node["allOf"][0]
    return node


def _describe(node: dict, whole: dict) -> str:
    if "anyOf" in node:
        return " or ".join(_describe(_deref(choice, whole), whole) for choice in node["anyOf"])
    if "enum" in node:
        return ", ".join(map(str, node["enum"]))
    if "const" in node:
        return str(node["const"])
    if node.get("type") == "array":
        return f"a list of: {_describe(_deref(node['items'], whole), whole)}"
    bounds = [f"{sign} {node[key]}" for key, sign in _BOUNDS.items() if key in node]
    return " ".join([node.get("type", "any"), *bounds])
