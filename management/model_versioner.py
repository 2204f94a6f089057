"""Names for checkpoints: `tag` one, and the name stands wherever an id does. What has a name is pinned.

It knows nothing about what a checkpoint holds; restoring a version is `promote` or `rollback` by its name.
"""

import re
import time
from typing import Any

from core.checkpoints import verify
from core.errors import UserError, nearest
from core.ledger import Ledger
from core.paths import RealmPaths
from management.vault import BY_NAME, ids, pin, tags, unpin

NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
TAKEN = ("tip", "current", "champion", "latest")


def tag(paths: RealmPaths, ledger: Ledger, name: str, checkpoint: str) -> None:
    """Give `checkpoint` a name; a name stays with its checkpoint until it is taken back. Raises RealmError."""
    if not NAME.fullmatch(name) or name in TAKEN:
        raise UserError(
            f"{name!r} cannot be a name: begin with a letter, then letters, digits and . _ -, at most 64; "
            f"{', '.join(TAKEN)} are taken"
        )
    if any(known.startswith(name) for known in ids(paths, ledger)):
        raise UserError(f"{name!r} is how checkpoints begin; choose a name that cannot be mistaken for one")
    owner = tags(ledger).get(name)
    if owner and owner != checkpoint:
        raise UserError(f"{name!r} is {owner}; `vault untag {name}` frees the name")
    verify(paths.vault / checkpoint)
    pin(paths, ledger, checkpoint, BY_NAME)
    if not owner:
        ledger.add("tags", id=name, checkpoint=checkpoint, created=time.time())


def untag(ledger: Ledger, name: str) -> str:
    """Take a name back; the checkpoint, which retention may take unless something else keeps it. Raises UserError."""
    known = tags(ledger)
    if name not in known:
        raise UserError(f"there is no name {name!r}{nearest(name, known) or '.'} `vault tags` lists them")
    ledger.all("DELETE FROM tags WHERE id=?", (name,))
    if known[name] not in tags(ledger).values():
        unpin(ledger, known[name], BY_NAME)
    return known[name]


def versions(ledger: Ledger) -> list[dict[str, Any]]:
    """Every name with its checkpoint, that one's step and loss, and when it was given; newest first."""
    return ledger.all(
        "SELECT tags.id AS name, checkpoint, step, validation_loss, tags.created AS created, gone IS NULL AS kept "
        "FROM tags LEFT JOIN checkpoints ON checkpoints.id = checkpoint ORDER BY tags.created DESC"
    )
