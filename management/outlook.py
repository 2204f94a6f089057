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
from management.retention import Facts, Role, plan, roles

NEXT = "the next one"
OLD = 0.0  # seconds: what retention spares for being young goes before anybody has read the page


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
    given = roles(found, facts.promoted, facts.kept, policy, moment, whole, OLD, facts.left)
    now = _goes(found, facts, policy, moment, whole)
    later = _goes([*found, *_after(paths, found, moment)], _with_new_tip(facts), policy, moment, whole)
    loose = [key for key, own in given.items() if own and not any(role.firm for role in own)]
    created = {manifest.id: manifest.created for manifest in found}
    short = tuple(sorted((key for key in loose if key not in now), key=created.__getitem__))
    return Outlook(given, now, tuple(key for key in later if key not in now), short)


def _goes(found: Sequence[Manifest], facts: Facts, policy: Retention, now: float, whole) -> tuple[str, ...]:
    """Oldest first."""

    def good(manifest: Manifest) -> bool:
        return manifest.id == NEXT or whole(manifest)

    gone = plan(found, facts.promoted, facts.kept, policy, now, good, young=OLD, left=facts.left)
    return tuple(manifest.id for manifest in reversed(gone))


def _with_new_tip(facts: Facts) -> Facts:
    """The tip stays as the parent of the next one; what it came from itself stays for other reasons only."""
    return replace(facts, kept={key: why for key, why in facts.kept.items() if why != "the tip comes from it"})


def _after(paths: RealmPaths, found: Sequence[Manifest], now: float) -> list[Manifest]:
    """One more checkpoint after the tip, as large as that; none where there is no tip."""
    tip = next((manifest for manifest in found if manifest.id == pointed(paths.tip)), None)
    return [replace(tip, id=NEXT, step=tip.step + 1, parent=tip.id, created=now)] if tip else []
