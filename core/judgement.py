"""What follows from a verdict: a battle's weights are promoted, left as they are, or taken back. It judges nothing itself.

A cursed battle ends in the ratchet: its weights stay in the Vault as a branch that training never goes on from, the hero
wakes up again as it was before, and the quest lies finished with the rows that the hero before found least likely. All
that is to be done follows from that checkpoint's manifest, so that a kill in between changes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from core import checkpoints, going_back, turning_back
from core.battle import BattlePlan
from core.battle_report import BattleReport, Looked
from core.checkpoint_writer import CheckpointWriter
from core.checkpoints import Manifest
from core.config import Config
from core.durable import write_json
from core.errors import CheckpointError, UserError
from core.examination import asked_canaries
from core.hurtful_rows import least_likely
from core.ledger import Ledger
from core.paths import RealmPaths
from core.preparation import LeftEarly
from core.quest import Quest
from core.temple import Standing, judge, worst
from core.train import HeroTrainer
from core.training_queue import TrainingQueue

CURSED = "cursed"


class Judged(Protocol):
    """What is needed of the worker whose battle is judged."""

    paths: RealmPaths
    config: Config
    ledger: Ledger
    queue: TrainingQueue
    report: BattleReport
    writer: CheckpointWriter
    trainer: HeroTrainer
    beat: Callable[[], None]
    enter: Callable[..., None]

    @property
    def tip(self) -> Manifest: ...
    def plan_of(self, quest: Quest) -> BattlePlan: ...
    def reload(self, verified: Manifest | None = None) -> None: ...


# At the end of a battle


def judged(worker: Judged, facts: Manifest, plan: BattlePlan, looked: Looked) -> Manifest:
    """`facts` of the checkpoint after a quest's last step, with the Temple's verdict; a branch if that is the ratchet's."""
    mode, size = worker.config.temple.mode, worker.trainer.weight_size()
    facts = replace(facts, weight_size=size)
    if mode == "off":
        return facts
    held, effort = worker.writer.held, max(0.0, worker.report.effort)
    before = Standing(worker.report.loss_before, held.canaries, held.weight_size, facts.step - plan.total_steps)
    after = Standing(looked.loss, asked_canaries(facts.exams, facts.canaries), size, facts.step)
    verdict = judge(before, after, looked.unfit)
    if verdict.word == CURSED:
        verdict = judge(before, replace(after, bond=worker.trainer.bond(plan)), looked.unfit)
    facts = replace(facts, verdict={**verdict.facts(), "effort": effort, "xp": effort * verdict.quality, "mode": mode})
    if verdict.word == CURSED and mode == "strict" and going_back.before(worker.paths, worker.tip, facts.quest, 0):
        facts = replace(facts, branch=CURSED)
    return facts


# When its checkpoint is there


def carry_out(worker: Judged) -> None:
    """Do what the verdicts say of every quest in processing/ whose last checkpoint is in the Vault."""
    for quest in worker.queue.processing():
        if checkpoints.holds(worker.tip.trained, quest.id):
            _finish(worker, quest)
        elif cursed := next(_cursed(worker, "quest=? AND hero=?", quest.id, worker.tip.hero), None):
            _turn_back(worker, quest, cursed)


def mark_what_a_kill_left(worker: Judged) -> None:
    """Cursed checkpoints whose quest is finished, and of which the ledger had not heard yet."""
    going_on = {quest.id for quest in worker.queue.processing()}
    for cursed in _cursed(worker):
        if cursed.quest not in going_on:
            _mark(worker, cursed)


def _finish(worker: Judged, quest: Quest) -> None:
    """The tip holds `quest`: it is promoted unless something speaks against it."""
    tip, verdict = worker.tip, worker.tip.verdict or {}
    worker.report.close(quest.id, tip.verdict)
    against = tip.unfit or (f"the battle is cursed: {worst(verdict)}" if verdict.get("word") == CURSED else None)
    if against is None:
        checkpoints.set_current(worker.paths, tip.id)
        worker.report.promoted(tip)
        _crown(worker, tip)
    worker.queue.finish(quest)
    told = f", {verdict['word']} (quality {verdict['quality']:.2f})" if verdict else ""
    text = f"{quest.stem} is trained{told}; {tip.id} is {'' if against is None else 'not '}promoted."
    facts = {"quest": quest.id, "checkpoint": tip.id}
    worker.ledger.event("trainer", "quest_done", text, **facts, validation_loss=tip.validation_loss)
    if against is not None:
        code = "checkpoint_unfit" if tip.unfit else "battle_cursed"
        text = f"{tip.id} is not promoted: {against}. current_model stays as it was."
        worker.ledger.event("trainer", code, text, "alert", **facts)


def _crown(worker: Judged, promoted: Manifest) -> None:
    """The champion is the promoted checkpoint whose canaries answer best; of two as good the newer, which lost nothing."""
    champion = checkpoints.pointed(worker.paths.champion)
    try:
        known = checkpoints.read(worker.paths.vault / champion) if champion else None
    except checkpoints.CheckpointError:
        known = None
    if known is None or known.hero != promoted.hero or promoted.evaluation >= known.evaluation:
        checkpoints.set_champion(worker.paths, promoted.id)


# The ratchet


def _cursed(worker: Judged, which: str = "1", *values: Any) -> Iterator[Manifest]:
    """Cursed checkpoints that the ledger calls saved still. Their manifests alone say so: a campaign may have any name.
    One that cannot be read is none."""
    query = f"SELECT id FROM checkpoints WHERE state='saved' AND gone IS NULL AND {which}"
    for row in worker.ledger.all(query, values):
        with suppress(CheckpointError):
            manifest = checkpoints.read(worker.paths.vault / row["id"])
            if manifest.branch == CURSED:
                yield manifest


def _turn_back(worker: Judged, quest: Quest, cursed: Manifest) -> None:
    """The hero is again what it was before `quest`; the quest is finished, with its verdict and what hurt most."""
    worker.enter("setup")
    parent = going_back.before(worker.paths, worker.tip, quest.id, 0)
    worker.report.loading()
    going_back.return_to(worker, parent)
    turning_back.mark_checkpoints(worker.paths, worker.ledger, worker.tip)
    try:
        rows = least_likely(worker.trainer, worker.plan_of(quest), worker.beat)
    except (LeftEarly, UserError):  # somebody wants the trainer to stop, or altered the file; the verdict stands
        rows = []
    reason = f"cursed: {worst(cursed.verdict)}"
    report = {**quest.report, "verdict": cursed.verdict, "least_likely": rows}
    write_json(quest.companion(".report.json"), report)
    worker.queue.finish(quest, reason)
    _mark(worker, cursed)
    lines = ", ".join(str(row["line"]) for row in rows[:5])
    text = (
        f"{quest.stem} is {reason} {worker.tip.hero} was taken back to {worker.tip.id}; {cursed.id} stays in the Vault."
        + (f" The hero before found lines {lines} least likely." if lines else "")
    )
    worker.ledger.event("trainer", "battle_cursed", text, "alert", quest=quest.id, checkpoint=cursed.id, lines=lines)


def _mark(worker: Judged, cursed: Manifest) -> None:
    worker.report.close(cursed.quest, cursed.verdict, CURSED)
    worker.ledger.change("checkpoints", cursed.id, state=CURSED)
