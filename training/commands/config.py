"""`config show`, `config explain`, `config set`: the settings, what they mean, and how to change one."""

import json
from typing import Any

from pydantic import BaseModel

from core.config import check_config, explain, fields, read_values
from core.config_edit import set_value
from training.commands.verb import group, verb
from training.realm import Realm
from training.terminal import as_json, styled


def register(verbs) -> None:
    actions = group(verbs, "config", "settings: show, explain, set")
    verb(actions, "show", show, "every setting with its value; those that differ from the default are marked")
    parser = verb(actions, "explain", explain_field, "what a setting means, its default and what it accepts")
    parser.add_argument("field", nargs="?", metavar="FIELD", help="dotted name, e.g. tavern.port; none explains all")
    parser = verb(actions, "set", set_field, "write one setting into config.json, if the whole stays valid")
    parser.add_argument("field", metavar="FIELD", help="dotted name, e.g. tavern.port")
    parser.add_argument("value", metavar="VALUE", help="JSON, or else a string")


def show(realm: Realm) -> None:
    values, realms = realm.config.model_dump(), check_config(read_values(realm.paths.config)).model_dump()
    hero = realm.config.hero.name
    realm.report(values, lambda: "\n".join(_line(name, values, realms, hero) for name in _settings()))


def _settings() -> list[str]:
    """The dotted names of all fields that are no sections."""
    return [name for name, field in fields().items() if not isinstance(field.default, BaseModel)]


def _line(name: str, values: dict[str, Any], realms: dict[str, Any], hero: str) -> str:
    """One setting as it is in effect; `realms`: as it is where the hero's profile says nothing of it."""
    value, default = _at(values, name), explain(name)["default"]
    whose = "" if value == _at(realms, name) else f"{hero}'s own, the realm's is {_text(_at(realms, name))}; "
    if value == default and not whose:
        return f"  {name} = {_text(value)}"
    return styled(f"* {name} = {_text(value)}", "bold") + styled(f"  ({whose}default {_text(default)})", "dim")


def _at(values: Any, name: str) -> Any:
    for part in name.split("."):
        values = values[part]
    return values


def _text(value: Any) -> str:
    return as_json(value, indent=False)


def explain_field(realm: Realm) -> None:
    wanted = realm.args.field
    found = [explain(name) for name in ([wanted] if wanted else _settings())]
    realm.report(found[0] if wanted else found, lambda: "\n\n".join(map(_explanation, found)))


def _explanation(about: dict[str, Any]) -> str:
    head = styled(about["field"], "bold")
    return f"{head}\n  {about['description']}\n  default {_text(about['default'])}; allowed: {about['allowed']}"


def set_field(realm: Realm) -> None:
    args = realm.args
    try:
        value = json.loads(args.value)
    except json.JSONDecodeError:
        value = args.value
    set_value(realm.paths.config, args.field, value)
    later = " It counts from the next `start-all`." if realm.runs else ""
    realm.report(
        {"field": args.field, "value": value, "config": str(realm.paths.config)},
        f"{args.field} = {_text(value)}.{later}",
    )
