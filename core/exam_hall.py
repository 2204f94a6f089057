"""Where the resident hero sits its exams: before its first battle, and after the last step of each. It decides nothing.

Exams change neither weights nor random streams. What they found is held by the manifest that is saved next, so that a hero
that is killed meanwhile repeats its last steps and comes to the same results.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from core import examination
from core.battle import BattlePlan
from core.checkpoint_writer import CheckpointWriter
from core.config import Config
from core.exam_record import record_exams
from core.examination import Syllabus
from core.forge import exam
from core.forge.optimizers import weights_to_use
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import IDLE, Quest
from core.rendering import Renderer
from core.skills import Problem
from core.train import HeroTrainer


class Sitter(Protocol):
    """What is needed of the worker whose hero is examined."""

    paths: RealmPaths
    config: Config
    ledger: Ledger
    trainer: HeroTrainer
    writer: CheckpointWriter
    beat: Callable[[], None]
    enter: Callable[..., None]

    def renderer(self, max_length: int) -> Renderer: ...


def syllabus(config: Config) -> Syllabus:
    """What exams a hero of this config sits."""
    return Syllabus(config.skill_priorities, config.idle_generation.level, config.seed, config.exam_share)


def ask_newborn(worker: Sitter) -> None:
    """The baseline: what a hero knows before it was ever trained. Asked once, or again after a crash."""
    born = worker.writer.held
    if born.step or born.baseline or not worker.config.exam_share:
        return
    worker.enter("evaluation")
    ask, _ = _desk(worker)
    found = examination.baseline(born, syllabus(worker.config), ask)
    record_exams(worker.ledger, replace(born, exams=found["exams"]))
    worker.writer.held = replace(born, **found | {"exams": []})


def after_step(worker: Sitter, quest: Quest, plan: BattlePlan, global_step: int, is_last: bool) -> dict[str, Any]:
    """What the manifest of a checkpoint says of exams; they are held where it is the last of a battle."""
    held = worker.writer.held
    if not is_last or not worker.config.exam_share:
        return {"standing": held.standing, "canaries": held.canaries, "baseline": held.baseline}
    worker.enter("evaluation")
    own, strange = quest.card.get("skill"), quest.card.get("origin") != IDLE
    return examination.after_battle(
        held, syllabus(worker.config), global_step, own, plan.tokens, *_desk(worker), strange
    )


def _desk(worker: Sitter) -> tuple[examination.Ask, examination.Price]:
    trainer, renderer = worker.trainer, worker.renderer(exam.LONGEST)

    def ask(problems: Sequence[Problem]) -> list[bool]:
        with trainer.compute_loss_context_manager(), weights_to_use(trainer.optimizer):
            return exam.graded(trainer.model, renderer, problems, worker.beat)

    return ask, lambda problems: exam.price(renderer, problems)
