"""Which checkpoints stay: a pure `plan` by roles and bytes, and `retain`, which carries it out. It knows nothing about disks.

A role is firm or loose. Firm ones stay whatever happens: what a pointer leads to and its parent, the champion, what is
pinned, the parent of a battle that goes on or was begun, the teacher of a quest that waits or is trained, the newest whole
ones, the newest promoted one. Loose ones (more promoted ones, one a day, one a week) stay as long as there are bytes for
them; when there are not, the oldest go first.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from core.checkpoints import Manifest, is_held, manifests, verify
from core.config import Retention
from core.errors import CheckpointError
from core.ledger import Ledger
from core.paths import RealmPaths
from management.needs import needed
from management.vault import pointers

YOUNG_SECONDS, YOUNG_IN_NEED = 120.0, 10.0  # until ledger and pointers know of a checkpoint
DAY = 86400
MONDAY = 3 * DAY  # the epoch began on a Thursday; a week begins on Monday


@dataclass(frozen=True)
class Role:
    """Why a checkpoint stays, in words; `firm`: whatever happens."""

    why: str
    firm: bool = True


def roles(
    found: Iterable[Manifest],
    promoted: set[str],
    kept_anyway: Mapping[str, str],
    policy: Retention,
    now: float,
    whole: Callable[[Manifest], bool] = lambda manifest: True,
    young: float = YOUNG_SECONDS,
    left: frozenset[str] = frozenset(),
) -> dict[str, list[Role]]:
    """What each checkpoint stays for, newest first; what has no role goes.

    `kept_anyway` (tip, current, champion, their parents, pinned; each with its why) stay. Of every hero, its branches
    counted apart and so what a rollback has `left` behind, stay the newest `keep_last`, the newest as many that are
    `whole`, and the newest promoted one; and nothing goes that is `young`, in seconds. `whole` is asked of the newest only.
    """
    newest_first = sorted(found, key=lambda manifest: (manifest.step, manifest.created), reverse=True)
    given: dict[str, list[Role]] = {manifest.id: [] for manifest in newest_first}
    lines: dict[tuple[str, bool, bool], list[Manifest]] = {}
    for manifest in newest_first:  # many branches must not push out what training goes back to
        if manifest.id in kept_anyway:
            given[manifest.id].append(Role(kept_anyway[manifest.id]))
        if now - manifest.created <= young:
            given[manifest.id].append(Role("just saved"))
        lines.setdefault((manifest.hero, manifest.branch is not None, manifest.id in left), []).append(manifest)
    for (_, branched, _), own in lines.items():
        for role, those in _roles_of_line(own, promoted, policy, whole, branched):
            for manifest in those:
                given[manifest.id].append(role)
    return given


def _roles_of_line(own: list[Manifest], promoted: set[str], policy: Retention, whole, branched: bool) -> Iterator:
    """Each role with the checkpoints, newest first, that have it."""
    blessed = [manifest for manifest in own if manifest.id in promoted]
    yield Role(f"one of the newest {policy.keep_last}"), own[: policy.keep_last]
    yield Role(f"one of the newest {policy.keep_last} that are whole"), islice(filter(whole, own), policy.keep_last)
    yield Role("the newest promoted one"), blessed[:1]
    yield Role(f"one of the newest {policy.keep_promoted} promoted", firm=False), blessed[1 : policy.keep_promoted]
    if not branched:
        daily, weekly = _newest_of_each(own, DAY, 0), _newest_of_each(own, 7 * DAY, MONDAY)
        yield Role("the last of its day", firm=False), islice(daily, policy.keep_daily)
        yield Role("the last of its week", firm=False), islice(weekly, policy.keep_weekly)


def plan(
    found: Iterable[Manifest],
    promoted: set[str],
    kept_anyway: Iterable[str],
    policy: Retention,
    now: float,
    whole: Callable[[Manifest], bool] = lambda manifest: True,
    budget: int | None = None,
    young: float = YOUNG_SECONDS,
    left: frozenset[str] = frozenset(),
) -> list[Manifest]:
    """The checkpoints to delete, newest first: those without a role, and the oldest loose ones that `budget` (bytes for
    all of them) or the policy leaves no room for."""
    newest_first = sorted(found, key=lambda manifest: (manifest.step, manifest.created), reverse=True)
    needed = dict.fromkeys(kept_anyway, "it is needed")
    given = roles(newest_first, promoted, needed, policy, now, whole, young, left)
    firm = {key for key, own in given.items() if any(role.firm for role in own)}
    kept = [manifest for manifest in newest_first if given[manifest.id]]
    too_much = _ids(_beyond(kept, firm, [limit for limit in (budget, policy.bytes) if limit is not None]))
    return [manifest for manifest in newest_first if not given[manifest.id] or manifest.id in too_much]


def _ids(found: Iterable[Manifest]) -> set[str]:
    return {manifest.id for manifest in found}


def _newest_of_each(newest_first: Iterable[Manifest], period: int, offset: int) -> Iterator[Manifest]:
    """The newest checkpoint of every period of so many seconds that has one."""
    seen: set[int] = set()
    for manifest in sorted(newest_first, key=lambda manifest: manifest.created, reverse=True):
        if (when := int(manifest.created + offset) // period) not in seen:
            seen.add(when)
            yield manifest


def _beyond(kept: list[Manifest], firm: set[str], limits: list[int]) -> Iterator[Manifest]:
    """The oldest of `kept` that are not firm, as many as the smallest limit leaves no bytes for."""
    over = sum(manifest.bytes for manifest in kept) - min(limits) if limits else 0
    for manifest in sorted(kept, key=lambda manifest: manifest.created):
        if over > 0 and manifest.id not in firm:
            over -= manifest.bytes
            yield manifest


class Whole:
    """Whether a checkpoint's hashes are right. One that was found whole is not read again before its files change."""

    def __init__(self, paths: RealmPaths):
        self._vault = paths.vault
        self._known: dict[str, list[tuple]] = {}

    def __call__(self, manifest: Manifest) -> bool:
        folder = self._vault / manifest.id
        try:
            facts = [(entry.name, entry.stat().st_mtime_ns, entry.stat().st_size) for entry in os.scandir(folder)]
            if self._known.get(manifest.id) != sorted(facts):
                verify(folder)
                self._known[manifest.id] = sorted(facts)
            return True
        except (CheckpointError, OSError):
            self._known.pop(manifest.id, None)
            return False


def retain(
    paths: RealmPaths,
    policy: Retention,
    ledger: Ledger,
    clock: Callable[[], float] = time.time,
    whole: Callable[[Manifest], bool] | None = None,
    room: int = 0,
    dry_run: bool = False,
) -> list[str]:
    """Delete what `plan` says; returns the ids. `room`: bytes that are wanted of the disk, at the cost of loose ones.

    A checkpoint loses its name first, so that it is never half there. `dry_run`: only say what would go.
    """
    found = manifests(paths)
    rows = {row["id"]: row for row in ledger.all("SELECT * FROM checkpoints WHERE gone IS NULL")}
    for key in rows.keys() - _ids(found):
        if not (paths.vault / key).exists():  # deleted by hand, or a crash came before the ledger heard of it
            ledger.change("checkpoints", key, gone=clock())
    facts = Facts.of(paths, ledger, found, rows)
    budget = sum(manifest.bytes for manifest in found) - room if room else None
    deleted = []
    young = YOUNG_IN_NEED if room else YOUNG_SECONDS
    whole = whole or Whole(paths)
    for manifest in plan(found, facts.promoted, facts.kept, policy, clock(), whole, budget, young, facts.left):
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


@dataclass(frozen=True)
class Facts:
    """What decides beside the policy: the promoted, those that stay anyway with their whys, what a rollback left."""

    promoted: set[str]
    kept: dict[str, str]
    left: frozenset[str]

    @classmethod
    def of(cls, paths: RealmPaths, ledger: Ledger, found: list[Manifest], rows: dict[str, dict]) -> "Facts":
        """`rows`: the ledger's of all checkpoints that are not gone."""
        return cls(
            {key for key, row in rows.items() if row["state"] == "promoted"},
            {
                **needed(paths, ledger, found),
                **dict.fromkeys((key for key, row in rows.items() if row["pinned"]), "pinned or named"),
                **_needed(paths, found),
            },
            frozenset(key for key, row in rows.items() if row["rolled_back"]),
        )


def _needed(paths: RealmPaths, found: list[Manifest]) -> dict[str, str]:
    """What the pointers lead to, and the parents of those."""
    known = {manifest.id: manifest for manifest in found}
    parents = {known[key].parent: f"the {name} comes from it" for name, key in pointers(paths).items() if key in known}
    return {key: why for key, why in parents.items() if key} | {key: name for name, key in pointers(paths).items()}
