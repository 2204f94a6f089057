"""What becomes of checkpoints, for the page: room on the disk, what goes next and why, trash, names, backups, exports.

It reads what management/ has decided and decides nothing.
"""

import time
from pathlib import Path
from typing import Any

from core import control, disk
from core.config import Backup
from core.full_disk import Reserve
from core.room import Room
from management import trash
from management.backup_schedule import FAILED, MADE
from management.model_versioner import versions
from management.outlook import outlook
from monitoring.servers.tavern import vault_views
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.settings_text import without_secrets

BAR = 1000
SHOWN = 8
TOLD_SECONDS = 1800.0  # a wish that was not granted is told so long


def wishes(realm: Realm) -> dict[str, Any]:
    """Promotions and rollbacks that wait for the trainer, and those that it has lately refused."""
    rows = realm.ledger.all(
        "SELECT verb, argument, result, done FROM control WHERE verb IN (?, ?) AND (done IS NULL OR done > ?) "
        "ORDER BY id DESC LIMIT 20",
        (*control.POINTING, time.time() - TOLD_SECONDS),
    )
    trainer = next(service for service in realm.status()["services"] if service["name"] == "trainer")
    told = [row | {"checkpoint": row["argument"].partition(" ")[0]} for row in rows]
    return {
        "waiting": [row for row in told if row["done"] is None],
        "refused": [row for row in told[:1] if row["done"] and row["result"] != "done"],
        "awake": trainer["state"] == "running",
    }


def room(realm: Realm) -> dict[str, Any]:
    """The disk as a bar with the marks, and what the realm does about it."""
    paths, marks = realm.paths, realm.config.disk
    found, deleted = vault_views.known(realm), trash.deleted(paths)
    place = Room.of(paths.root)
    kept = sum(manifest.bytes for manifest in found)
    thrown = sum(int(fact["bytes"]) for fact in deleted.values())
    reserve = Reserve(paths).bytes
    others = max(0, place.size - place.free - kept - thrown - reserve)
    parts = [
        ("others", "other files", others),
        ("vault", "checkpoints", kept),
        ("trash", "trash", thrown),
        ("reserve", "reserve", reserve),
        ("free", "free", place.free),
    ]
    next_needs = disk.need(paths)
    return {
        "bar": segments(parts, place.size),
        "marks": [
            {"x": round(BAR * percent / 100, 1), "name": name, "percent": percent, "does": does}
            for name, percent, does in (
                ("prune", marks.prune_percent, "old checkpoints go at once"),
                ("claim", marks.claim_percent, "no quest is begun"),
                ("pause", marks.pause_percent, "the battle waits"),
            )
        ],
        "disk": realm.status()["disk"],
        "size": place.size,
        "kept": kept,
        "next_needs": next_needs,
        "count": len(found),
        "fits": max(0, place.free - next_needs) // max(1, found[0].bytes) if found else None,
    }


def segments(parts: list[tuple[str, str, int]], whole: int) -> list[dict[str, Any]]:
    """Rectangles of a bar, from kind, name and bytes; what is there at all can be seen."""
    widths = [max(2.0, BAR * count / max(1, whole)) if count else 0.0 for _, _, count in parts]
    scale, place, found = BAR / max(BAR, sum(widths)), 0.0, []
    for (kind, name, count), width in zip(parts, widths, strict=True):
        found.append(
            {"kind": kind, "name": name, "bytes": count, "x": round(place, 1), "width": round(width * scale, 1)}
        )
        place += width * scale
    return found


def going(realm: Realm) -> dict[str, Any]:
    """What retention does next: ids with the quest and the bytes, and the reasons of what stays."""
    found = vault_views.known(realm)
    seen = outlook(realm.paths, realm.config.retention, realm.ledger, found, lambda one: vault_views.whole(realm, one))
    by_id = {manifest.id: manifest for manifest in found}

    def told(ids: tuple[str, ...]) -> dict[str, Any]:
        return {
            "shown": [
                {"id": key, "bytes": by_id[key].bytes, "why": "; ".join(role.why for role in seen.roles[key])}
                for key in ids[:SHOWN]
            ],
            "more": max(0, len(ids) - SHOWN),
            "bytes": sum(by_id[key].bytes for key in ids),
        }

    firm = [key for key, own in seen.roles.items() if any(role.firm for role in own)]
    return {
        "now": told(seen.now),
        "next": told(seen.next),
        "short": told(seen.short),
        "firm": len(firm),
        "policy": realm.config.retention,
    }


def roles_of(realm: Realm, checkpoint: str) -> list[str] | None:
    """Why retention keeps a checkpoint, in words; None where it is not there."""
    found = vault_views.known(realm)
    seen = outlook(realm.paths, realm.config.retention, realm.ledger, found, lambda one: vault_views.whole(realm, one))
    own = seen.roles.get(checkpoint)
    return None if own is None else [role.why for role in own]


def keeping(realm: Realm) -> dict[str, Any]:
    """Trash, names, exports, backups."""
    deleted = [{"id": key, **facts} for key, facts in trash.deleted(realm.paths).items()]
    return {
        "trash": [entry | {"left": max(0.0, entry["goes"] - time.time())} for entry in deleted],
        "names": versions(realm.ledger),
        "exports": _exports(realm),
        "backup": _backup(realm, realm.config.backup),
    }


def exporting(realm: Realm) -> dict[str, Any]:
    """The export that is on its way, and the last one that failed since the Tavern began to keep events of it."""
    failed = realm.ledger.events_of("export_failed", 1)
    made = realm.ledger.events_of("model_exported", 1)
    newest = [event for event in failed if not made or made[0]["id"] < event["id"]]
    recent = [event for event in newest if time.time() - event["time"] < TOLD_SECONDS]
    return {"running": realm.exports.running, "said": realm.exports.said, "failed": recent[0] if recent else None}


def _exports(realm: Realm) -> list[dict[str, Any]]:
    place = realm.paths.exports
    folders = [folder for folder in place.iterdir() if folder.is_dir()] if place.is_dir() else []
    made = [folder for folder in folders if not folder.name.startswith(".")]
    made.sort(key=lambda folder: folder.stat().st_mtime, reverse=True)
    return [
        {"name": folder.name, "path": str(folder), "bytes": _bytes(folder), "made": folder.stat().st_mtime}
        for folder in made[:SHOWN]
    ]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _backup(realm: Realm, policy: Backup) -> dict[str, Any]:
    """The last backup and when the next is due; the target's own records would cost a look at another machine."""
    newest = {code: next(iter(realm.ledger.events_of(code, 1)), None) for code in (MADE, FAILED)}
    made, failed = newest[MADE], newest[FAILED]
    return {
        "to": without_secrets(policy.to) if policy.to else None,
        "policy": policy,
        "made": made,
        "checkpoint": made["data"].get("checkpoint") if made else None,
        "failed": failed if failed and (not made or failed["id"] > made["id"]) else None,
        "due": made["time"] + 3600 * policy.every_hours if made else None,
    }
