"""Which checkpoint a hero wakes up on, and what is mended then: pointers, unsound checkpoints, quests that it lacks."""

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from core import checkpoints
from core.battle_report import BattleReport
from core.checkpoint_writer import CheckpointWriter
from core.checkpoints import Manifest
from core.config import Config
from core.errors import CheckpointError, NotFinite, UserError
from core.forge.hatch import hatch
from core.forge.versions import changes, versions
from core.ledger import Ledger
from core.paths import RealmPaths
from core.train import HeroTrainer
from core.training_queue import TrainingQueue
from core.turning_back import newest_on_the_way

log = logging.getLogger(__name__)


class Sleeper(Protocol):
    """What is needed of the worker who wakes up."""

    paths: RealmPaths
    config: Config
    ledger: Ledger
    report: BattleReport
    writer: CheckpointWriter
    trainer: HeroTrainer
    queue: TrainingQueue
    beat: Callable[[], None]

    def load(self, manifest: Manifest) -> None: ...


def load_newest(worker: Sleeper) -> None:
    """Load the newest checkpoint that is whole and whose numbers are finite, or hatch a hero; the pointers agree then."""
    paths, unsound = worker.paths, set()

    def broken(checkpoint: str, why: str) -> None:
        _tell_broken(worker, checkpoint, why)

    while True:
        worker.beat()
        name = worker.config.hero.name
        found = newest_on_the_way(paths, worker.ledger, name, broken, frozenset(unsound))
        tip = found or _hatch(worker)
        try:
            worker.load(tip)
            break
        except NotFinite as problem:
            broken(tip.id, str(problem))
            unsound.add(tip.id)
    if checkpoints.pointed(paths.tip) != tip.id:
        checkpoints.set_tip(paths, tip.id)
    _mend_current(worker, tip, unsound, broken)
    if tip.step and (changed := changes(tip.versions, versions(worker.trainer))):
        text = f"Training goes on with {', '.join(changed)}: as good, but not bit for bit what it would have been."
        worker.ledger.event("trainer", "versions_changed", text, "warning", checkpoint=tip.id)


def _mend_current(worker: Sleeper, tip: Manifest, unsound: set[str], broken: Callable[[str, str], Any]) -> None:
    """The promoted model must be this hero's and whole; it is not after a crash at its birth, a switch, or bad luck."""
    current = checkpoints.pointed(worker.paths.current_model)
    try:
        sound = current is not None and current not in unsound
        if sound and checkpoints.verify(worker.paths.vault / current).hero == tip.hero:
            return
    except CheckpointError as problem:
        broken(current, str(problem))
    checkpoints.set_current(worker.paths, tip.id)


def _tell_broken(worker: Sleeper, checkpoint: str, why: str) -> None:
    log.error("checkpoint passed over: %s", why)
    text = f"Checkpoint passed over: {why}"
    worker.ledger.event("trainer", "checkpoint_corrupt", text, "alert", checkpoint=checkpoint)


def _hatch(worker: Sleeper) -> Manifest:
    manifest = hatch(worker.paths, worker.config)
    worker.report.saved(manifest, "promoted")
    text = f"{manifest.hero} is born from {manifest.settings['base_model']}."
    worker.ledger.event("trainer", "hero_hatched", text, checkpoint=manifest.id)
    return manifest


def pass_over_what_is_anothers(worker: Sleeper) -> None:
    """Quests that were written for a hero who is switched off are at that one's level; it writes itself others."""
    name = worker.config.hero.name
    rows = worker.ledger.all("SELECT id, hero FROM quests WHERE hero<>? AND state IN ('queued', 'processing')", (name,))
    for row in rows:
        with suppress(UserError):  # somebody took its file away
            quest = worker.queue.give_up(worker.queue.find(row["id"]), f"it was for {row['hero']}, the hero is {name}")
            text = f"{quest.stem} was for {row['hero']}; {name} does not train it."
            worker.ledger.event("trainer", "quest_cancelled", text, quest=quest.id)


def put_back_what_is_lacking(worker: Sleeper) -> None:
    """Quests that this hero finished and whose training the tip has lost go back to wait."""
    tip = worker.writer.tip
    known = worker.ledger.all("SELECT DISTINCT quest FROM battles WHERE hero=? AND state='done'", (tip.hero,))
    trained_by_hero = {row["quest"] for row in known}
    for quest in worker.queue.quests("recently_completed"):
        if quest.id in trained_by_hero and not checkpoints.holds(tip.trained, quest.id):
            worker.queue.put_back(quest)
            text = f"{quest.stem} is trained again: the checkpoint that held it is gone."
            worker.ledger.event("trainer", "quest_again", text, "warning", quest=quest.id)
