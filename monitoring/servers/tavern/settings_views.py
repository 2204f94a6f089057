"""config.json for the settings page: its fields in groups, the file as it is, and who still works with an older one.

It changes nothing; what may be shown of a value is settings_text's to say.
"""

from typing import Any

import orjson

from core.config import Config, explain
from core.config_edit import mistakes, seen
from core.config_edit import text as file_text
from core.durable import read_json
from core.hero_profile import laid_over
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.settings_text import (
    choices,
    effect,
    is_map,
    secret,
    settings,
    shown_text,
    text_of,
    value_at,
    why_locked,
    without_secrets,
)

GROUPS = {  # titles with the fields and sections below them, in the order of the page
    "Battle": ("batch_size", "learning_rate", "max_length", "training_defaults", "school", "profile", "seed"),
    "Steps and saves": ("eval_steps", "save_steps", "save_minutes"),
    "Memory and speed": ("memory", "packing", "pack_tokens", "trainer"),
    "Rows": ("validation_fraction", "validation_rows", "max_bad_rows", "replay_ratio"),
    "Hero": ("hero", "heroes"),
    "When idle": ("idle_generation", "skill_priorities"),
    "Judgement": ("temple", "dice"),
    "Vault": ("retention", "backup", "disk"),
    "Tavern": ("tavern",),
    "Oracle": ("oracle",),
    "Alerts": ("alerts",),
}


def groups(realm: Realm, file: dict[str, Any], texts: dict[str, str], errors: dict[str, str]) -> list[dict[str, Any]]:
    """The page's groups of fields. `texts`: what a visitor has typed, where it is to be shown again."""
    titles, found, placed = {**GROUPS, "Others": ("",)}, [], set()
    for title, heads in titles.items():
        names = [name for head in heads for name in settings() if not head or f"{name}.".startswith(f"{head}.")]
        names = [name for name in names if name not in placed]
        placed.update(names)
        shown = [field(realm, name, file, texts, errors) for name in names]
        if shown:
            wrong = sum(1 for one in shown if one["error"])
            found.append({"title": title, "id": title.lower().replace(" ", "-"), "fields": shown, "wrong": wrong})
    return found


def field(
    realm: Realm, name: str, file: dict[str, Any], texts: dict[str, str], errors: dict[str, str]
) -> dict[str, Any]:
    """One field with all that is said of it. `own`: what the hero's profile sets in its place; `running`: what the Tavern
    began with, where that is another value."""
    about, locked = explain(name), why_locked(name)
    given, meant = value_at(file["values"], name), file["config"] and value_at(file["config"].model_dump(), name)
    began = value_at(realm.config.model_dump(), name)
    own = file["config"] and value_at(laid_over(file["config"]).model_dump(), name)
    return {
        "name": name,
        "description": about["description"],
        "allowed": about["allowed"],
        "default": text_of(about["default"]) or "none",
        "hint": text_of(about["default"]) or "default",
        "text": shown_text(name, given) if locked else texts.get(name, text_of(given)),
        "was": text_of(given),
        "choices": choices(name),
        "long": is_map(name),
        "set": file["config"] is not None and meant != about["default"],
        "effect": effect(name),
        "own": shown_text(name, own) if meant != own else None,
        "running": shown_text(name, began) if file["config"] is not None and own != began else None,
        "locked": locked,
        "error": errors.get(name),
    }


# The file


def read(realm: Realm) -> dict[str, Any]:
    """The file as it is: values, what names its bytes, what is wrong with it by field, and why it cannot be edited here."""
    name, problem, values = seen(realm.paths.config), None, {}
    try:
        values = orjson.loads(realm.paths.config.read_bytes())
        if not isinstance(values, dict):
            problem, values = "config.json holds no JSON object. Mend it in the file.", {}
    except FileNotFoundError:
        pass
    except orjson.JSONDecodeError as wrong:
        problem = f"config.json is no JSON, line {wrong.lineno}, column {wrong.colno}. Mend it in the file."
    errors = {name: _discreet(name, text) for name, text in mistakes(values).items()}
    return {
        "values": values,
        "seen": name,
        "errors": errors,
        "problem": problem,
        "config": None if problem else config_of(values),
    }


def _discreet(name: str, text: str) -> str:
    return text if name not in settings() or not secret(name) else "Its value is not what is allowed here."


def config_of(values: Any) -> Config | None:
    return None if mistakes(values) else Config.model_validate(values, strict=True)


def behind(realm: Realm) -> dict[str, Any]:
    """When the file was changed, and the services that began before and so work with what it said then."""
    try:
        changed = realm.paths.config.stat().st_mtime
    except FileNotFoundError:
        return {"changed": None, "services": []}
    table = read_json(realm.paths.services, {}).get("services", [])
    alive = {service["name"] for service in realm.status()["services"] if service["pid"]}
    old = [row["name"] for row in table if row["name"] in alive and row.get("started", changed) < changed]
    return {"changed": changed, "services": [name for name in old if name != "watchdog"]}


def redacted(values: Any) -> str:
    """The whole file's text without its secrets."""
    made = orjson.loads(orjson.dumps(values))
    for name in settings():
        given = value_at(made, name)
        if given is None:
            continue
        *parents, last = name.split(".")
        node = made
        for parent in parents:
            node = node[parent]
        if secret(name):
            node[last] = "(not shown)"
        elif isinstance(given, str):
            node[last] = without_secrets(given)
    return file_text(made)
