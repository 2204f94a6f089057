"""What people do with checkpoints: find one by any of its names, pin it, see which must stay. It moves no pointer.

`pinned` in the ledger is 0, or the sum of BY_HAND and BY_NAME (management/model_versioner.py): each is taken back by itself.
"""

from core.checkpoints import holding, manifests, pointed, verify
from core.errors import CheckpointError, UserError, nearest
from core.ledger import Ledger
from core.paths import RealmPaths
from management.needs import needed

BY_HAND, BY_NAME = 1, 2
LAST_WHOLE = 2  # of every hero, to go back to


def pointers(paths: RealmPaths) -> dict[str, str]:
    """The checkpoints that tip, current and champion lead to; one that leads nowhere is left out."""
    links = {"tip": paths.tip, "current": paths.current_model, "champion": paths.champion}
    return {name: checkpoint for name, link in links.items() if (checkpoint := pointed(link))}


def tags(ledger: Ledger) -> dict[str, str]:
    """Checkpoints by the names that people gave them."""
    return {row["id"]: row["checkpoint"] for row in ledger.all("SELECT id, checkpoint FROM tags ORDER BY id")}


def ids(paths: RealmPaths, ledger: Ledger) -> list[str]:
    """Checkpoints with a readable manifest, newest first, then those that the ledger has and the disk no more."""
    whole = [manifest.id for manifest in manifests(paths)]
    kept = ledger.all("SELECT id FROM checkpoints WHERE gone IS NULL ORDER BY step DESC")
    return whole + [row["id"] for row in kept if row["id"] not in set(whole)]


def find(paths: RealmPaths, ledger: Ledger, given: str) -> str:
    """The id that `given` means: tip, current or champion, a name given by `vault tag`, an id or its beginning."""
    named = tags(ledger) | pointers(paths)
    if given in named:
        return named[given]
    known = ids(paths, ledger)
    matching = [checkpoint for checkpoint in known if checkpoint == given] or [
        checkpoint for checkpoint in known if checkpoint.startswith(given)
    ]
    if len(matching) == 1:
        return matching[0]
    if matching:
        raise UserError(f"{given!r} may be any of {', '.join(matching)}")
    raise UserError(f"the Vault has no checkpoint {given!r}{nearest(given, known) or '.'} `vault list` shows them")


def problem_of(paths: RealmPaths, checkpoint: str) -> str | None:
    """Why a checkpoint is not whole, or None."""
    try:
        verify(paths.vault / checkpoint)
        return None
    except CheckpointError as problem:
        return str(problem)


# Pins


def pin(paths: RealmPaths, ledger: Ledger, checkpoint: str, why: int = BY_HAND) -> None:
    """Keep `checkpoint` whatever retention says. Raises CheckpointError where it is not in the Vault."""
    with holding(paths.vault / checkpoint):  # whoever deletes it has it for himself and looks at the pin then
        ledger.all("UPDATE checkpoints SET pinned = pinned | ? WHERE id=?", (why, checkpoint))


def unpin(ledger: Ledger, checkpoint: str, why: int = BY_HAND) -> bool:
    """Take a pin back; whether the checkpoint is still pinned, by the other kind."""
    ledger.all("UPDATE checkpoints SET pinned = pinned & ~? WHERE id=?", (why, checkpoint))
    row = ledger.one("SELECT pinned FROM checkpoints WHERE id=?", (checkpoint,))
    return bool(row and row["pinned"])


# What must stay


def protection(paths: RealmPaths, ledger: Ledger, checkpoint: str) -> str | None:
    """Why `checkpoint` must not be deleted, or None; what somebody holds is found out by who deletes."""
    for name, target in pointers(paths).items():
        if target == checkpoint:
            return {"tip": "training goes on from it", "current": "it is promoted"}.get(name, "it is the champion")
    row = ledger.one("SELECT pinned, hero FROM checkpoints WHERE id=?", (checkpoint,))
    if row and row["pinned"]:
        named = [name for name, target in tags(ledger).items() if target == checkpoint]
        return f"it is tagged {', '.join(named)}" if named else "it is pinned; `vault unpin` takes that back"
    if checkpoint == _parent_of_battle(paths, ledger):
        return "the battle in which the tip was saved began from it"
    if why := needed(paths, ledger, manifests(paths)).get(checkpoint):
        return why
    if row and checkpoint in last_whole(paths, ledger, row["hero"], checkpoint):
        return "it is one of the last two whole checkpoints"
    return None


def _parent_of_battle(paths: RealmPaths, ledger: Ledger) -> str | None:
    """The tip's nearest ancestor that was not saved in the same battle: where a cursed one leads back to."""
    rows = {row["id"]: row for row in ledger.all("SELECT id, parent, quest FROM checkpoints")}
    tip = here = rows.get(pointed(paths.tip))
    while here and here["quest"] == tip["quest"]:
        here = rows.get(here["parent"])
    return here["id"] if here else None


def last_whole(paths: RealmPaths, ledger: Ledger, hero: str, until: str | None = None) -> list[str]:
    """The newest two of `hero` that verify and that training may go back to; not looked for beyond `until`."""
    left = {row["id"] for row in ledger.all("SELECT id FROM checkpoints WHERE rolled_back IS NOT NULL")}
    found: list[str] = []
    for manifest in manifests(paths, hero):
        if len(found) == LAST_WHOLE:
            break
        if manifest.branch is None and manifest.id not in left and problem_of(paths, manifest.id) is None:
            found.append(manifest.id)
        if manifest.id == until:
            break
    return found
