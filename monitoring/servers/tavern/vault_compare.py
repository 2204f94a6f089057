"""Two checkpoints beside each other: what differs in facts, settings, quests and answers. It changes nothing."""

import json
from typing import Any

from core.checkpoints import Manifest, Ranges
from management.lineage import beyond, within
from monitoring.servers.tavern import vault_views
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.words import number, precise, size, stamp

MOST_QUESTS = 60


def compare(realm: Realm, first: str, second: str) -> dict[str, Any]:
    """Raises Refusal where one is not in the Vault."""
    left, right = (_side(realm, given) for given in (first, second))
    a, b = left["manifest"], right["manifest"]
    settings = _settings(a, b)
    return {
        "left": left,
        "right": right,
        "relation": _relation(left, right),
        "facts": _facts(left, right),
        "settings": [line for line in settings if line["differs"]],
        "same": sum(not line["differs"] for line in settings),
        "only_left": _quests(realm, beyond(a.trained, b.trained)),
        "only_right": _quests(realm, beyond(b.trained, a.trained)),
        "answers": _answers(left["answers"], right["answers"]),
    }


def _side(realm: Realm, given: str) -> dict[str, Any]:
    checkpoint = vault_views.resolve(realm, given)
    row = vault_views.one(realm, checkpoint)
    if row["manifest"] is None:
        raise Refusal(409, "not_whole", f"{checkpoint} is not in the Vault any more, so it cannot be compared.")
    return row


def _relation(left: dict[str, Any], right: dict[str, Any]) -> str:
    if left["id"] == right["id"]:
        return "These are one and the same checkpoint."
    if right["id"] not in left["family"]:
        return "Neither comes from the other: their ways parted."
    later, earlier = ("left", "right") if left["step"] > right["step"] else ("right", "left")
    return f"The {later} one comes from the {earlier} one, {abs(left['step'] - right['step']):,} steps later."


def _facts(left: dict[str, Any], right: dict[str, Any]) -> list[dict[str, Any]]:
    """One line a fact; `better` is the side with the lower loss."""
    kinds = {kind["kind"] for side in (left, right) for kind in side["evaluations"]}
    rows = [
        ("Step", *(number(side["step"]) for side in (left, right))),
        ("State", *(side["state"] for side in (left, right))),
        ("Quest of the battle", *(side["stem"] or "–" for side in (left, right))),
        ("Validation loss", *(precise(side["validation_loss"]) for side in (left, right))),
        *((kind, *(precise(_value(side, kind)) for side in (left, right))) for kind in sorted(kinds)),
        ("Size", *(size(side["bytes"]) for side in (left, right))),
        ("Saved", *(stamp(side["created"]) for side in (left, right))),
        ("Files", *("whole" if side["verified"] else "damaged" for side in (left, right))),
        ("Branch", *(side["branch"] or "–" for side in (left, right))),
        ("Versions", *(_versions(side["manifest"]) for side in (left, right))),
    ]
    return [{"name": name, "left": one, "right": other, "differs": one != other} for name, one, other in rows]


def _value(side: dict[str, Any], kind: str) -> float | None:
    return next((one["value"] for one in side["evaluations"] if one["kind"] == kind), None)


def _versions(manifest: Manifest) -> str:
    return ", ".join(f"{name} {version}" for name, version in manifest.versions.items()) or "–"


def _settings(left: Manifest, right: Manifest) -> list[dict[str, Any]]:
    """The settings of both battles by dotted names."""
    one, other = flat(left.settings), flat(right.settings)
    names = sorted(one.keys() | other.keys())
    return [
        {
            "name": name,
            "left": one.get(name, "–"),
            "right": other.get(name, "–"),
            "differs": one.get(name) != other.get(name),
        }
        for name in names
    ]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Leaves as JSON by their dotted names."""
    found: dict[str, str] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = json.dumps(value, ensure_ascii=False)
    return found


def _quests(realm: Realm, ranges: Ranges) -> dict[str, Any]:
    """The quests in `ranges` that the ledger knows, the first of them by name."""
    stems = {row["id"]: row["stem"] for row in realm.ledger.all("SELECT id, stem FROM quests ORDER BY id")}
    ids = within(ranges, list(stems))
    return {"shown": [stems[key] for key in ids[:MOST_QUESTS]], "more": max(0, len(ids) - MOST_QUESTS)}


def _answers(left: dict[str, Any] | None, right: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Prompt by prompt, those that both answered first."""
    sides = [{answer["prompt"]: answer for answer in look["answers"]} if look else {} for look in (left, right)]
    prompts = sorted(
        sides[0].keys() | sides[1].keys(), key=lambda prompt: (prompt not in sides[0]) + (prompt not in sides[1])
    )
    return [
        {
            "prompt": prompt,
            "expected": (sides[0].get(prompt) or sides[1][prompt])["expected"],
            "left": sides[0].get(prompt),
            "right": sides[1].get(prompt),
        }
        for prompt in prompts
    ]
