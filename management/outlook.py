"""What retention will do next, and why each checkpoint stays. It deletes nothing, and asks of files only what it is told.

Three answers: what has no role any more and goes at the next tidying, what would go once one more checkpoint is saved, and
what would go, oldest first, if room were short.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from core.checkpoints import Manifest, pointed
from core.config import Retention
from core.ledger import Ledger
from core.paths import RealmPaths
from management.retention import YOUNG_SECONDS, Facts, Role, plan, roles

NEXT = "the next one"


@dataclass(frozen=True)
class Outlook:
    """`roles` by checkpoint; the ids that go `now`, with the `next` one saved, and, if room is `short`, in this order."""

    roles: dict[str, list[Role]]
    now: tuple[str, ...]
    next: tuple[str, ...]
    short: tuple[str, ...]


def outlook(
    paths: RealmPaths,
    policy: Retention,
    ledger: Ledger,
    found: Sequence[Manifest],
    whole: Callable[[Manifest], bool],
    clock: Callable[[], float] = time.time,
) -> Outlook:
    """`found`: the checkpoints of the Vault; `whole`: whether the files of one are as its manifest says."""
    rows = {row["id"]: row for row in ledger.all("SELECT * FROM checkpoints WHERE gone IS NULL")}
    facts, moment = Facts.of(paths, ledger, list(found), rows), clock()
    given = roles(found, facts.promoted, facts.kept, policy, moment, whole, left=facts.left)
    now = _goes(found, facts, policy, moment, whole, YOUNG_SECONDS)
    later = _goes([*found, *_after(paths, found, moment)], facts, policy, moment, whole, 0.0)
    loose = [key for key, own in given.items() if own and not any(role.firm for role in own)]
    created = {manifest.id: manifest.created for manifest in found}
    short = tuple(sorted((key for key in loose if key not in now), key=created.__getitem__))
    return Outlook(given, now, tuple(key for key in later if key not in now), short)


def _goes(
    found: Sequence[Manifest], facts: Facts, policy: Retention, now: float, whole, young: float
) -> tuple[str, ...]:
    """Oldest first."""

    def good(manifest: Manifest) -> bool:
        return manifest.id == NEXT or whole(manifest)

    gone = plan(found, facts.promoted, facts.kept, policy, now, good, young=young, left=facts.left)
    return tuple(manifest.id for manifest in reversed(gone))


def _after(paths: RealmPaths, found: Sequence[Manifest], now: float) -> list[Manifest]:
    """One more checkpoint after the tip, as large as that; none where there is no tip."""
    tip = next((manifest for manifest in found if manifest.id == pointed(paths.tip)), None)
    return [replace(tip, id=NEXT, step=tip.step + 1, parent=tip.id, created=now)] if tip else []
