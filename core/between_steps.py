"""What happens between two optimizer steps of a battle: steps are reported, wishes heard, checkpoints made when due.

Here a battle can be left without losing anything. It knows nothing about what becomes of the quest then.
"""

import time
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Protocol

from core import control, turning_back
from core.battle import BattlePlan
from core.battle_report import BattleReport, Looked
from core.checkpoint_writer import CheckpointWriter
from core.corrections import FORM as CORRECTION
from core.forge.evaluate import Evaluation
from core.forge.step_facts import StepFacts
from core.forge.step_guard import StepGuard
from core.paths import RealmPaths
from core.previews import Question, preview
from core.quest import Quest
from core.rendering import Renderer
from core.save_pace import Interval
from core.wishes import Ending, Resting, cancel_waiting

LOOK_SECONDS = 0.25


class Resident(Resting, Protocol):
    """What is needed of the worker whose battle it is."""

    paths: RealmPaths
    report: BattleReport
    should_exit: Event
    beat: Callable[[], None]
    enter: Callable[..., None]
    writer: CheckpointWriter
    seconds_to_save: float
    guard: StepGuard

    def hero_facts(self) -> dict[str, Any]: ...
    def save(self, quest: Quest, plan: BattlePlan, global_step: int, step: int, looked: Looked) -> None: ...
    def collect(self, patient: bool = False) -> None: ...


class BetweenSteps:
    """The trainer's Observer in one battle; `ending` says afterwards whether it was left early."""

    def __init__(
        self,
        worker: Resident,
        quest: Quest,
        plan: BattlePlan,
        renderer: Renderer,
        wait: Callable[[Resident, Quest, BattlePlan, int], Ending | None] = lambda *place: None,
    ):
        """`wait(worker, quest, plan, step)` returns when the battle can go on, or how it is to be left."""
        self.worker, self.quest, self.plan, self.renderer, self._wait = worker, quest, plan, renderer, wait
        self.stop_ids = renderer.stop_ids
        self._skill = None if plan.form == CORRECTION else quest.card.get("skill")  # no grader knows its words
        self.ending: Ending | None = None
        self._looked_at = Looked()
        self._looked = time.monotonic()
        self._saved_step = -1
        self._interval = Interval(plan.settings.save_steps, 60 * plan.settings.save_minutes)

    def begin(self, global_step: int) -> None:
        """Before the first step: the battle before may have left as much on no disk as can be."""
        self.worker.writer.rested()
        if self._is_full(global_step):
            self.worker.collect(patient=True)

    def after_step(self, facts: StepFacts) -> bool:
        """True when the battle is to be left here. Most steps wait for nothing: what they brought is read when it is shown."""
        self.worker.report.step(facts)
        now, last = time.monotonic(), facts.step >= self.plan.total_steps
        looked_at = last or facts.global_step % self.plan.settings.eval_steps == 0
        phase = "evaluation" if looked_at else "step"
        self.worker.enter(phase, facts.global_step)
        if now - self._looked >= LOOK_SECONDS or facts.step == 1:
            self._looked = now
            self._read()
            self.worker.collect()
            self.worker.report.show(self.worker.hero_facts())
            if not last:  # after the last step there is nothing left to skip
                self.ending = self._wait(self.worker, self.quest, self.plan, facts.step) or self._listen(facts)
        if not last and self.ending is None:
            self.ending = self._keep_pace(facts, phase)
        return self.ending is not None

    def _keep_pace(self, facts: StepFacts, phase: str) -> Ending | None:
        """Begin a checkpoint when one is due, and wait while no more work may be on no disk; wishes are heard meanwhile."""
        worker, writer, ending = self.worker, self.worker.writer, None
        if writer.has_come():
            worker.collect()
        self._save_if_due(facts)
        if not self._is_full(facts.global_step):
            return None
        worker.enter("checkpoint", seconds=worker.seconds_to_save)
        while ending is None and self._is_full(facts.global_step):
            if writer.stuck is not None:
                ending = self._wait(worker, self.quest, self.plan, facts.step)
            elif writer.has_come(LOOK_SECONDS):
                worker.collect()
            else:
                ending = wished(worker, self.quest)
            self._save_if_due(facts)
        worker.enter(phase, facts.global_step)
        return ending

    def _save_if_due(self, facts: StepFacts) -> None:
        writer = self.worker.writer
        if not writer.busy and writer.pace.due(facts.global_step, time.monotonic(), self._interval):
            self._save(facts.global_step, facts.step)

    def _is_full(self, global_step: int) -> bool:
        return self.worker.writer.pace.full(global_step, time.monotonic(), self._interval)

    def validated(self, global_step: int, evaluation: Evaluation) -> None:
        self._read()
        self._looked_at = self.worker.report.validated(global_step, evaluation)
        self.worker.beat()

    def answered(self, global_step: int, asked: Sequence[Question], answers: list[list[int]]) -> None:
        previews = [
            preview(question, answer, self.renderer, self._skill)
            for question, answer in zip(asked, answers, strict=True)
        ]
        self.worker.report.previewed(global_step, previews)
        self.worker.beat()

    def save(self, global_step: int, step: int) -> None:
        """The battle is over. Nobody waits for the last checkpoint of a quest; one that was asked for by a stop, skip or
        cancel is there afterwards."""
        self._save(global_step, step)
        if self.ending is not None:
            self.worker.collect(patient=True)

    def _read(self) -> None:
        """See what the last steps brought. Raises Spoiled where the battle cannot go on like this."""
        for step, loss, norm in self.worker.report.read():
            self.worker.guard.record.take(step, loss, norm, self.plan.total_steps)

    def _save(self, global_step: int, step: int) -> None:
        """Have a checkpoint written, once for each step; it knows of every step left out before it."""
        self._read()
        self.worker.report.record.flush()  # what the weights hold is on record before they are
        if step != self._saved_step:
            self.worker.save(self.quest, self.plan, global_step, step, self._looked_at)
        self._saved_step = step

    def _listen(self, facts: StepFacts) -> Ending | None:
        """Stops and wishes; a pause saves and waits here, the hero stays in memory."""
        worker = self.worker
        ending = wished(worker, self.quest)
        if ending is None and control.is_paused(worker.ledger):
            self._save(facts.global_step, facts.step)
            worker.collect(patient=True)
            text = f"Paused in {self.quest.stem} at step {facts.step} of {self.plan.total_steps}."
            worker.ledger.event("trainer", "paused", text, quest=self.quest.id)
            worker.enter("paused")
            while ending is None and control.is_paused(worker.ledger):
                worker.beat()
                worker.report.show(worker.hero_facts(), "paused")
                worker.should_exit.wait(LOOK_SECONDS)
                ending = wished(worker, self.quest, at_rest=True)
            worker.enter("step")
            worker.writer.rested()
        return ending


def wished(worker: Resident, quest: Quest, at_rest: bool = False) -> Ending | None:
    """How `quest` is to be left, if it is; wishes that concern other quests are carried out.

    `at_rest`: nothing is trained and every checkpoint is written, so that a pause is carried out.
    """
    if worker.should_exit.is_set():
        return Ending("stop")
    for wish in control.waiting(worker.ledger):
        if wish["verb"] in ("skip", "cancel") and control.concerns(wish, quest.id):
            return Ending(wish["verb"], wish["id"])
        if wish["verb"] == "rollback":
            return Ending("rollback", wish["id"])
        if wish["verb"] == "cancel":
            cancel_waiting(worker, wish)
        elif wish["verb"] == "promote":
            turning_back.carry_out(worker, wish)
        elif wish["verb"] == "skip":
            control.carried_out(worker.ledger, wish["id"], "its battle was over")
        elif wish["verb"] == "resume" or at_rest or not control.is_paused(worker.ledger):
            control.carried_out(worker.ledger, wish["id"], "done")
    return None
