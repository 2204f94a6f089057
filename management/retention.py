"""Which checkpoints stay: a pure `plan`, and `retain`, which carries it out. It never touches what a pointer leads to."""

import os
import shutil
import time
from collections.abc import Callable, Iterable

from core.checkpoints import Manifest, is_held, manifests, pointed
from core.config import Retention
from core.ledger import Ledger
from core.paths import RealmPaths

YOUNG_SECONDS = 120.0


def plan(
    found: Iterable[Manifest], promoted: set[str], kept_anyway: set[str], policy: Retention, now: float
) -> list[Manifest]:
    """The checkpoints to delete.

    `kept_anyway` (tip, current, champion, pinned, the tip's parent) stay, of every hero the newest `keep_last` and the
    newest `keep_promoted` promoted ones stay, branches counted apart, and nothing younger than two minutes goes.
    """
    newest_first = sorted(found, key=lambda manifest: (manifest.step, manifest.created), reverse=True)
    kept = set(kept_anyway)
    for line in {_line(manifest) for manifest in newest_first}:
        own = [manifest.id for manifest in newest_first if _line(manifest) == line]
        kept |= {*own[: policy.keep_last], *[key for key in own if key in promoted][: policy.keep_promoted]}
    return [manifest for manifest in newest_first if manifest.id not in kept and now - manifest.created > YOUNG_SECONDS]


def _line(manifest: Manifest) -> tuple[str, bool]:
    """The hero's way, and apart from it what branched off: many branches must not push out what training goes back to."""
    return manifest.hero, manifest.branch is not None


def retain(
    paths: RealmPaths,
    policy: Retention,
    ledger: Ledger,
    clock: Callable[[], float] = time.time,
    dry_run: bool = False,
) -> list[str]:
    """Delete what `plan` says; returns the ids. A checkpoint loses its name first, so that it is never half there.

    `dry_run`: only say what would go.
    """
    found = manifests(paths)
    rows = {row["id"]: row for row in ledger.all("SELECT id, state, pinned FROM checkpoints WHERE gone IS NULL")}
    pointers = {pointed(link) for link in (paths.tip, paths.current_model, paths.champion)} - {None}
    parents = {manifest.parent for manifest in found if manifest.id in pointers} - {None}
    pinned = {key for key, row in rows.items() if row["pinned"]}
    promoted = {key for key, row in rows.items() if row["state"] == "promoted"}
    for key in rows.keys() - {manifest.id for manifest in found}:
        if not (paths.vault / key).exists():  # deleted by hand, or a crash came before the ledger heard of it
            ledger.change("checkpoints", key, gone=clock())
    deleted = []
    for manifest in plan(found, promoted, pointers | parents | pinned, policy, clock()):
        if is_held(paths.vault / manifest.id):  # somebody reads it; it goes next time
            continue
        deleted.append(manifest.id)
        if dry_run:
            continue
        doomed = paths.vault / f".building-{manifest.id}"
        os.rename(paths.vault / manifest.id, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
        ledger.change("checkpoints", manifest.id, gone=clock())
    return deleted
