"""Promoting and rolling back by hand: which checkpoint is shown, and where training goes on. It knows nothing of weights' use.

While the trainer runs, it does this itself between two steps (`carry_out`); with no trainer, whoever holds the realm's lock.
A rollback is a deliberate act: quests that the new tip lacks stay finished, their battles `rolled_back`, and what was
saved beyond it is never gone back to by itself. Done twice, or cut off and done again, it is the same act.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from core import control
from core.checkpoints import (
    Manifest,
    holding,
    holds,
    manifests,
    newest_verified,
    pointed,
    set_current,
    set_tip,
    verify,
)
from core.checkpoints import read as read_manifest
from core.config import Config
from core.errors import CheckpointError, RealmError, UserError
from core.ledger import Ledger
from core.paths import RealmPaths
from core.training_queue import TrainingQueue

AGAIN = "again"


class Shown(Protocol):
    def loading(self) -> None: ...


class Written(Protocol):
    def stand_on(self, tip: Manifest) -> None: ...


class Turning(Protocol):
    """What is needed of the trainer that changes where it goes on."""

    paths: RealmPaths
    config: Config
    ledger: Ledger
    queue: TrainingQueue
    report: Shown
    writer: Written
    beat: Callable[[], None]

    def end_writing(self) -> None: ...
    def reload(self, verified: Manifest | None = None) -> None: ...


@dataclass(frozen=True)
class RolledBack:
    """Where training goes on, the finished quests that it lacks, and those of them that wait to be trained again."""

    tip: Manifest
    before: str | None
    lacking: tuple[int, ...]
    again: tuple[int, ...]


def promote(
    paths: RealmPaths, ledger: Ledger, hero: str, checkpoint: str, beat: Callable[[], None] = lambda: None
) -> Manifest:
    """`models/current_model` leads to `checkpoint` from now on. Raises RealmError where it must not."""
    with holding(paths.vault / checkpoint):
        manifest = _own(paths, hero, checkpoint, beat)
        if manifest.unfit:
            raise UserError(f"{checkpoint} must not be promoted: {manifest.unfit}")
        ledger.change("checkpoints", checkpoint, state="promoted")
        set_current(paths, checkpoint)
    ledger.event("vault", "promoted", f"{checkpoint} is promoted by hand.", checkpoint=checkpoint)
    return manifest


def roll_back(
    paths: RealmPaths,
    ledger: Ledger,
    queue: TrainingQueue,
    hero: str,
    checkpoint: str,
    again: bool = False,
    beat: Callable[[], None] = lambda: None,
) -> RolledBack:
    """Tip and current lead to `checkpoint`; `again`: finished quests that it lacks wait to be trained. Raises RealmError."""
    with holding(paths.vault / checkpoint):
        tip = _own(paths, hero, checkpoint, beat)
        if tip.branch:
            raise UserError(
                f"{checkpoint} left training's way ({tip.branch}); promote it, or roll back to {tip.parent}"
            )
        before = pointed(paths.tip)
        _finish_held(paths, queue, before)
        _mark_battles(ledger, tip)
        mark_checkpoints(paths, ledger, tip)
        set_tip(paths, checkpoint)
        set_current(paths, checkpoint)
        ledger.change("checkpoints", checkpoint, state="promoted")
    missing = lacking(paths, ledger, hero, checkpoint)
    waiting = _put_back(queue, missing) if again else ()
    told = f" Quests {', '.join(map(str, missing))} are not in its weights." if missing else ""
    told += " They wait to be trained again." if waiting else ""
    text = f"{hero} was taken back to {checkpoint}, step {tip.step:,}.{told}"
    ledger.event("vault", "rolled_back", text, "warning", checkpoint=checkpoint, before=before, lacking=missing)
    return RolledBack(tip, before, missing, waiting)


def parent_of_tip(paths: RealmPaths) -> str:
    """Where a rollback leads that names no checkpoint. Raises UserError."""
    tip = pointed(paths.tip)
    parent = read_manifest(paths.vault / tip).parent if tip else None
    if parent is None:
        raise UserError(f"there is nothing before {tip or 'the first checkpoint'}; name a checkpoint")
    if not (paths.vault / parent).is_dir():
        raise UserError(f"{parent}, from which {tip} comes, is not in the Vault any more; name another checkpoint")
    return parent


def newest_on_the_way(
    paths: RealmPaths,
    ledger: Ledger,
    hero: str,
    unwanted: Callable[[str, str], None],
    barred: frozenset[str] = frozenset(),
) -> Manifest | None:
    """Where training goes on: what a rollback left behind is gone back to only if nothing else of the hero is whole.

    `barred`: ids never to go on from.
    """
    left = frozenset(row["id"] for row in ledger.all("SELECT id FROM checkpoints WHERE rolled_back IS NOT NULL"))
    found = newest_verified(paths, hero, unwanted, barred | left - {pointed(paths.tip)})
    return found or (newest_verified(paths, hero, barred=barred) if left else None)


def lacking(paths: RealmPaths, ledger: Ledger, hero: str, checkpoint: str) -> tuple[int, ...]:
    """Quests that the hero has once finished and whose training `checkpoint` lacks."""
    trained = read_manifest(paths.vault / checkpoint).trained
    fought = "SELECT DISTINCT quest FROM battles WHERE hero=? AND state IN ('done', 'rolled_back') ORDER BY quest"
    return tuple(row["quest"] for row in ledger.all(fought, (hero,)) if not holds(trained, row["quest"]))


def carry_out(worker: Turning, wish: dict[str, Any]) -> None:
    """A wish of this kind, by the trainer between two steps; what came of it is the wish's result."""
    checkpoint, _, how = wish["argument"].partition(" ")
    hero = worker.config.hero.name
    try:
        if wish["verb"] == "promote":
            promote(worker.paths, worker.ledger, hero, checkpoint, worker.beat)
        else:
            worker.end_writing()
            turned = roll_back(worker.paths, worker.ledger, worker.queue, hero, checkpoint, how == AGAIN, worker.beat)
            worker.writer.stand_on(turned.tip)
            worker.report.loading()
            worker.reload(turned.tip)
        result = "done"
    except RealmError as problem:
        result = str(problem)
    control.carried_out(worker.ledger, wish["id"], result)


def _own(paths: RealmPaths, hero: str, checkpoint: str, beat: Callable[[], None]) -> Manifest:
    """The manifest of a checkpoint that may be pointed to: whole, this hero's, all of its weights numbers."""
    from core.finite import check_finite  # numpy, which the Tavern does without

    manifest = verify(paths.vault / checkpoint, beat)
    if manifest.hero != hero:
        raise UserError(f"{checkpoint} is {manifest.hero}'s, the hero is {hero}; `hero switch` changes that")
    check_finite(paths.vault / checkpoint, manifest.files, beat)
    return manifest


def _finish_held(paths: RealmPaths, queue: TrainingQueue, tip: str | None) -> None:
    """A crash may have left a trained quest in processing/: it is finished before its training is taken back."""
    try:
        trained = read_manifest(paths.vault / tip).trained if tip else ()
    except CheckpointError:
        return
    for quest in queue.processing():
        if holds(trained, quest.id):
            queue.finish(quest)


def _mark_battles(ledger: Ledger, tip: Manifest) -> None:
    """Battles are done where the tip holds their quest, and rolled back where not."""
    rows = ledger.all(
        "SELECT DISTINCT quest, state FROM battles WHERE hero=? AND state IN ('done', 'rolled_back')", (tip.hero,)
    )
    for row in rows:
        wanted = "done" if holds(tip.trained, row["quest"]) else "rolled_back"
        if row["state"] != wanted:
            change = "UPDATE battles SET state=? WHERE quest=? AND hero=? AND state=?"
            ledger.all(change, (wanted, row["quest"], tip.hero, row["state"]))
            reason = f"rolled back: {tip.id}, where training went on, lacks it" if wanted == "rolled_back" else None
            ledger.change("quests", row["quest"], reason=reason, updated=time.time())


def mark_checkpoints(paths: RealmPaths, ledger: Ledger, tip: Manifest) -> None:
    """What is not on the way from the hero's birth to `tip` is left behind."""
    parents = {row["id"]: row["parent"] for row in ledger.all("SELECT id, parent FROM checkpoints")}
    way, here = {tip.id}, tip.parent
    while here and here not in way:
        way.add(here)
        here = parents.get(here)
    for manifest in manifests(paths, tip.hero):
        if manifest.branch is None:
            ledger.change("checkpoints", manifest.id, rolled_back=None if manifest.id in way else time.time())


def _put_back(queue: TrainingQueue, missing: tuple[int, ...]) -> tuple[int, ...]:
    wanted = [quest for quest in queue.quests("recently_completed") if quest.id in missing]
    return tuple(queue.put_back(quest).id for quest in wanted)
