"""The Vault as plain dictionaries: every checkpoint as a row, and all about one. It knows no HTML and changes nothing.

Manifests are read again only when they have changed, so that a page of 500 checkpoints costs 500 looks at a file's time.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from core import checkpoints
from core.checkpoints import MANIFEST, Manifest
from core.errors import CheckpointError, UserError
from core.steps import KEPT_PREVIEWS, read_previews
from management import lineage, trash
from management.vault import BY_HAND, find, pointers, tags
from monitoring.servers.tavern import lineage_view
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Refusal

HASHED_BYTES = 128 << 20
MOST = 500
LISTED = 20  # quests and children on the page of one checkpoint
MEANING = {
    "tip": "training goes on from here",
    "current": "models/current_model leads here",
    "champion": "best by evaluation",
}


# Manifests and files


def folders(realm: Realm) -> dict[str, Path]:
    """What may be a checkpoint, by its name."""
    here = realm.paths.vault.iterdir() if realm.paths.vault.is_dir() else ()
    return {folder.name: folder for folder in here if not folder.name.startswith(".") and not folder.is_symlink()}


def known(realm: Realm) -> list[Manifest]:
    """Every readable manifest in the Vault, newest first."""
    found = [manifest for folder in folders(realm).values() if (manifest := manifest_of(folder))]
    return sorted(found, key=lambda manifest: (manifest.step, manifest.created), reverse=True)


def manifest_of(folder: Path) -> Manifest | None:
    """None where there is none that can be read."""
    try:
        manifest = _read(folder, (folder / MANIFEST).stat().st_mtime_ns)
    except OSError:
        return None
    return manifest if manifest and manifest.id == folder.name else None


@lru_cache(maxsize=4096)
def _read(folder: Path, changed: int) -> Manifest | None:
    """Asked again only after the manifest has `changed`, in nanoseconds."""
    try:
        return checkpoints.read(folder)
    except CheckpointError:
        return None


def whole(realm: Realm, manifest: Manifest) -> bool:
    """Whether a checkpoint is as its manifest says: by SHA-256 while that is quick, else by the files' sizes."""
    folder = realm.paths.vault / manifest.id
    try:
        facts = [(folder / name).stat() for name in manifest.files]
    except OSError:
        return False
    if [fact.st_size for fact in facts] != [expected["bytes"] for expected in manifest.files.values()]:
        return False
    return manifest.bytes > HASHED_BYTES or _verified(folder, tuple(fact.st_mtime_ns for fact in facts))


@lru_cache(maxsize=4096)
def _verified(folder: Path, changed: tuple[int, ...]) -> bool:
    """Whether the SHA-256 of every file fits; asked again only after a file has `changed` (times in nanoseconds)."""
    try:
        checkpoints.verify(folder)
        return True
    except CheckpointError:
        return False


# Rows


def keys(realm: Realm) -> dict[str, str]:
    """By which the parts of the Vault's pages grow old: pins and names leave no event, and an export tells how far it is."""
    pins = realm.ledger.one("SELECT TOTAL(pinned) AS pins, (SELECT COUNT(*) FROM tags) AS tags FROM checkpoints")
    events = realm.newest_event()
    return {"vault": f"{events} {pins['pins']:.0f} {pins['tags']}", "pending": f"{events} {realm.exports.word()}"}


def vault(realm: Realm, limit: int = MOST, skip: int = 0) -> list[dict[str, Any]]:
    """Every checkpoint, newest step first. `verified`: its files are those of its manifest."""
    rows = realm.ledger.all(
        "SELECT checkpoints.id, step, checkpoints.state, parent, quest, stem, pinned, checkpoints.bytes, "
        "checkpoints.created, validation_loss, rolled_back FROM checkpoints LEFT JOIN quests "
        "ON quests.id = checkpoints.quest WHERE gone IS NULL ORDER BY step DESC, checkpoints.created DESC LIMIT ? OFFSET ?",
        (limit, skip),
    )
    pointing, names = pointers(realm.paths), tags(realm.ledger)
    return [_row(realm, row, pointing, names) for row in rows]


def _row(realm: Realm, row: dict[str, Any], pointing: dict[str, str], names: dict[str, str]) -> dict[str, Any]:
    manifest = manifest_of(realm.paths.vault / row["id"])
    own = [name for name, target in pointing.items() if target == row["id"]]
    return row | {
        "pinned": bool(row["pinned"]),
        "by_hand": bool(row["pinned"] & BY_HAND),
        "rolled_back": bool(row["rolled_back"]),
        "verified": manifest is not None and whole(realm, manifest),
        "champion": "champion" in own,
        "pointers": own,
        "tags": [name for name, target in names.items() if target == row["id"]],
        "branch": manifest.branch if manifest else None,
    }


def crown(realm: Realm) -> list[dict[str, Any]]:
    """What the three pointers lead to; None where one leads nowhere."""
    pointing = pointers(realm.paths)
    return [
        {"name": name, "meaning": meaning, "row": brief(realm, pointing[name]) if name in pointing else None}
        for name, meaning in MEANING.items()
    ]


def brief(realm: Realm, checkpoint: str) -> dict[str, Any]:
    """The ledger's row of one, with its quest's name."""
    row = realm.ledger.one(
        "SELECT checkpoints.*, stem FROM checkpoints LEFT JOIN quests ON quests.id = checkpoints.quest "
        "WHERE checkpoints.id=?",
        (checkpoint,),
    )
    if row:
        return row
    young = folders(realm).get(checkpoint)  # the ledger has not heard of it
    manifest = manifest_of(young) if young else None
    names = ("step", "quest", "parent", "validation_loss", "created", "bytes")
    facts = {name: getattr(manifest, name, None) for name in names}
    return {"id": checkpoint, "state": "saved", "pinned": 0, "stem": None, "gone": None, "rolled_back": None} | facts


def count(realm: Realm) -> int:
    return realm.ledger.one("SELECT COUNT(*) AS count FROM checkpoints WHERE gone IS NULL")["count"]


def choices(realm: Realm) -> list[str]:
    """What can be compared, by the names that people use."""
    return [*pointers(realm.paths), *tags(realm.ledger), *(manifest.id for manifest in known(realm)[:MOST])]


# One


def resolve(realm: Realm, given: str) -> str:
    """The id that `given` means, of a deleted one, too. Raises Refusal."""
    if realm.ledger.one("SELECT id FROM checkpoints WHERE id=?", (given,)) or given in trash.deleted(realm.paths):
        return given
    try:
        return find(realm.paths, realm.ledger, given[:200])
    except UserError as problem:
        raise Refusal(404, "no_checkpoint", str(problem)) from None


def one(realm: Realm, checkpoint: str) -> dict[str, Any]:
    """All about one checkpoint. `manifest` is None where it is not in the Vault any more."""
    manifest = manifest_of(realm.paths.vault / checkpoint)
    row = _row(realm, brief(realm, checkpoint), pointers(realm.paths), tags(realm.ledger))
    if manifest:
        row |= {
            name: getattr(manifest, name)
            for name in ("hero", "step", "parent", "quest", "validation_loss", "created", "bytes")
        }
    nodes = lineage.lineage(realm.paths, realm.ledger, checkpoint, known(realm)) if manifest else []
    here = next((node for node in nodes if node["id"] == checkpoint), None)
    return row | {
        "manifest": manifest,
        "quests": _held(realm, manifest) if manifest else None,
        "deleted": trash.deleted(realm.paths).get(checkpoint),
        "node": here and lineage_view.line_of(here, LISTED),
        "family": {node["id"] for node in nodes},
        "children": [node["id"] for node in nodes if node["above"] == checkpoint][:LISTED],
        "lines": lineage_view.lines(nodes, checkpoint),
        "battle": _battle(realm, row),
        "evaluations": evaluations(realm, row),
        "answers": answers(realm, row),
        "exported": str(realm.paths.exports / checkpoint) if (realm.paths.exports / checkpoint).is_dir() else None,
        "export_to": f"exports/{checkpoint}",
    }


def _held(realm: Realm, manifest: Manifest) -> int:
    """How many quests of the ledger its weights hold to their end."""
    query = "SELECT COUNT(*) AS count FROM quests WHERE id BETWEEN ? AND ?"
    return sum(realm.ledger.one(query, ends)["count"] for ends in manifest.trained)


def _battle(realm: Realm, row: dict[str, Any]) -> dict[str, Any] | None:
    """The hero's newest battle of the quest in which it was saved."""
    return row["quest"] and realm.ledger.one(
        "SELECT state, validation_loss_before, validation_loss, reason FROM battles WHERE quest=? AND hero=? "
        "ORDER BY id DESC",
        (row["quest"], row.get("hero")),
    )


def evaluations(realm: Realm, row: dict[str, Any]) -> list[dict[str, Any]]:
    """Of each kind the newest value that is this checkpoint's: named so, or measured in its battle up to its step."""
    rows = realm.ledger.all(
        "SELECT kind, value, step FROM evaluations WHERE checkpoint=? OR (quest=? AND hero=? AND step<=?) "
        "ORDER BY id DESC LIMIT 50",
        (row["id"], row["quest"], row.get("hero"), row["step"]),
    )
    newest: dict[str, dict[str, Any]] = {}
    for evaluation in rows:
        newest.setdefault(evaluation["kind"], evaluation)
    return list(newest.values())


def answers(realm: Realm, row: dict[str, Any]) -> dict[str, Any] | None:
    """The last look at its answers in its battle up to its step, if one was recorded and is kept."""
    if row["quest"] is None or row["step"] is None:
        return None
    looks = read_previews(realm.paths.metrics, row["quest"], KEPT_PREVIEWS, row.get("hero"))
    return next((look for look in looks if look["step"] <= row["step"]), None)
