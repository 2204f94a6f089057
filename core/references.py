"""What a school wants to know of other weights: the parent's log-probabilities of a quest's labels, or a model beside the hero.

A battle that begins asks the weights in memory, which are its parent. One that goes on finds the file of its references, or has
the checkpoint that it began from loaded once more; that one is never deleted while the battle lasts. It knows no loss.
"""

from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from core import going_back
from core.battle import BattlePlan
from core.between_steps import Resident
from core.checkpoints import STATE_FILES, Manifest, holding, verify
from core.errors import CheckpointError, UserError
from core.forge.load_hero import load_model
from core.forge.optimizers import weights_to_use
from core.forge.out_of_memory import free_bytes
from core.forge.references import References, path_of, write_references
from core.preparation import Preparation
from core.quest import Quest
from core.schools import school
from core.teacher import check_room, check_tokenizer, teacher_folder
from core.train import HeroTrainer


class Remembering(Resident, Protocol):
    """What is needed of the worker whose battle it is."""

    trainer: HeroTrainer

    @property
    def tip(self) -> Manifest: ...


def with_references(worker: Remembering, plan: BattlePlan, quest: Quest, first: int) -> BattlePlan:
    """`plan` with the references that its school wants; `first`: how many of its steps the weights hold. Raises LeftEarly."""
    if not _school(plan).needs_reference:
        return plan
    prepared = plan.prepared
    path = path_of(prepared, quest.id)
    if not first or not path.is_file():
        with Preparation(worker, quest) as progress:
            _write(worker, plan, quest, first, path, progress)
    return replace(plan, references=References(prepared, path))


def _write(worker: Remembering, plan: BattlePlan, quest: Quest, first: int, path: Path, progress: Callable) -> None:
    """In the numbers that the battle's passes are computed in: a hero that has not moved is no step away from its parent."""
    trainer, numbers = worker.trainer, worker.trainer.numbers_of(plan.settings)
    if first:
        model = _parent(worker, quest)
        with numbers:
            write_references(model, plan.prepared, path, progress)
    else:
        with weights_to_use(trainer.optimizer), numbers:
            write_references(trainer.model, plan.prepared, path, progress)


def companion_of(worker: Remembering, plan: BattlePlan, quest: Quest, first: int) -> Any:
    """The model that the battle's school wants beside the hero, never to be trained; None where it wants none."""
    wanted = _school(plan).companion
    if wanted is None:
        return None
    if wanted == "teacher":
        return _teacher(worker, plan).requires_grad_(False).eval()
    if first:
        model = _parent(worker, quest)
    else:
        with weights_to_use(worker.trainer.optimizer):
            model = deepcopy(worker.trainer.model)
    return model.requires_grad_(False).eval()


def _teacher(worker: Remembering, plan: BattlePlan) -> Any:
    """Looked at before it is loaded: a battle that cannot have it has lost nothing."""
    folder = teacher_folder(worker.paths, plan.settings.schools.whisper.teacher)
    check_tokenizer(folder, worker.paths.vault / worker.tip.id)
    with holding(folder):
        device = worker.trainer.args.device
        check_room(folder, free_bytes(device))
        return load_model(folder).to(device)


def _school(plan: BattlePlan) -> Any:
    settings = plan.settings
    return school(settings.school, settings.schools.settings(settings.school), form=plan.form)


def _parent(worker: Remembering, quest: Quest):
    """The weights that the battle began from. Since then the hero may have been trained in others."""
    parent = _named(worker, quest) or going_back.before(worker.paths, worker.tip, quest.id, 0)
    if parent is None:
        raise UserError(
            f"{quest.stem}: the checkpoint that its battle began from is gone; `quest retry {quest.id}` begins anew"
        )
    return load_model(worker.paths.vault / parent.id).to(worker.trainer.args.device)


def _named(worker: Remembering, quest: Quest) -> Manifest | None:
    """What the weights say that it began from, if it is whole; those of an older version do not say."""
    began = worker.writer.held.began.get(str(quest.id))
    with suppress(CheckpointError):
        return began and verify(worker.paths.vault / began, skip=STATE_FILES)
