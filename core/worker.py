"""The resident hero: it takes quest after quest, trains, saves, promotes, and carries out wishes between two steps.

Everything it needs to go on is on disk: the tip's manifest says which quests its weights hold and how far into the next
they are. So waking up after a kill and after a clean stop are the same thing. It knows nothing about processes.

Checkpoints are written while training goes on, with the next quest, too: a quest stays in processing/ until the tip holds it.
"""

import gc
import logging
import sqlite3
from collections.abc import Callable
from threading import Event

import transformers

from core import blame, campaign, checkpoints, control, disk, exam_hall, going_back, judgement, sparring, turning_back
from core.awakening import load_newest, pass_over_what_is_anothers, put_back_what_is_lacking
from core.battle import BattlePlan
from core.battle_report import BattleReport, Looked
from core.between_steps import BetweenSteps
from core.checkpoint_writer import CheckpointWriter, WriteFailed
from core.checkpoints import Manifest
from core.config import Config
from core.corrections import is_sparring
from core.disk import Level
from core.disk_wait import tell_no_space, wait_for_room
from core.dossier import Crash, attempt_of
from core.errors import NotFinite, UserError
from core.forge.guard import Spoiled
from core.forge.load_hero import load_hero
from core.forge.means import RECORD, record, settle
from core.forge.optimizers import OptimizerKind, weights_to_use
from core.forge.state import seed_streams
from core.forge.step_guard import StepGuard
from core.forge.versions import versions
from core.full_disk import is_no_space, spared
from core.learning_rate import learning_rate_of
from core.ledger import Ledger
from core.memory_beside import expected
from core.pack_limits import PackLimits
from core.paths import RealmPaths
from core.preparation import LeftEarly, Preparation
from core.prepare import cache_name, prepare
from core.quest import Quest
from core.references import companion_of, with_references
from core.rendering import Renderer
from core.replay import with_replay
from core.teacher import name_of_weights
from core.teacher_answers import answers_to, is_ready
from core.training_queue import TrainingQueue
from core.wishes import Ending, hear_wishes

log = logging.getLogger(__name__)
transformers.utils.logging.disable_progress_bar()

IDLE_SECONDS = 0.05
NO_SPACE_SECONDS = 2.0
SLOWEST_SAVE = 2e6  # parameters a second that a disk takes at least, or it counts as hung


class Worker:
    """One hero in memory. `should_exit` ends it between two steps; `enter` is told what begins, `beat` that it goes on.

    `crash`: how the last life ended, if nobody had asked it to.
    """

    def __init__(
        self,
        paths: RealmPaths,
        config: Config,
        ledger: Ledger,
        should_exit: Event,
        beat: Callable[[], None],
        crash: Crash | None = None,
        enter: Callable[..., None] = lambda *_, **__: None,
    ):
        self.paths, self.config, self.ledger = paths, config, ledger
        self.should_exit, self.beat, self.enter = should_exit, beat, enter
        self.queue = TrainingQueue(paths, ledger)
        self.crash = crash
        self._short_of_memory: Quest | None = None  # trained by the last life when memory ran out
        self.writer = CheckpointWriter(paths, beat, should_exit.is_set)
        self.spoiled: tuple[int, Spoiled] | None = None  # the quest whose battle went back, and why

    @property
    def tip(self) -> Manifest:
        """The newest checkpoint on disk."""
        return self.writer.tip

    @property
    def guard(self) -> StepGuard:
        """What watches the steps of the battle."""
        return self.trainer.guard

    def is_trained(self, quest: Quest) -> bool:
        """Whether the weights hold all of `quest`, though its checkpoint may still be on its way."""
        return checkpoints.holds(self.writer.held.trained, quest.id)

    # Waking up

    def awaken(self) -> None:
        """Load the newest whole checkpoint, or hatch a hero, and make the queue agree with what its weights hold."""
        checkpoints.sweep(self.paths)
        self.queue.reconcile()
        self.report = BattleReport(self.paths, self.ledger, self.config.hero.name)
        self.report.loading()
        self.report.recover(checkpoints.manifests(self.paths))
        load_newest(self)
        judgement.carry_out(self)
        judgement.mark_what_a_kill_left(self)
        pass_over_what_is_anothers(self)
        self._short_of_memory = blame.answer(self.crash, self.queue, self.ledger, self.report)
        put_back_what_is_lacking(self)
        gc.collect()
        gc.freeze()  # what was loaded stays: the Trainer collects garbage before every battle and need not look at it
        self.report.idle(self.hero_facts())
        self.ledger.event(
            "trainer", "hero_awake", f"{self.tip.hero} is awake at step {self.tip.step:,}.", checkpoint=self.tip.id
        )

    def load(self, manifest: Manifest) -> None:
        folder = self.paths.vault / manifest.id
        means, kind = settle(folder, self.config, self._warn, expected(self.paths, self.config))
        limits = PackLimits(self.paths.pack_limits, manifest.hero, self._narrower)
        self.trainer = load_hero(
            folder, self.paths.state / "trainer", manifest.step, means, kind, limits, self.config.seed
        )
        if manifest.step == 0:  # later checkpoints bring their own random streams
            seed_streams(self.config.seed)
        self.parameters = sum(parameter.numel() for parameter in self.trainer.model.parameters())
        self.writer.stand_on(manifest)
        self._renderers: dict[int, Renderer] = {}

    def _warn(self, code: str, text: str) -> None:
        self.ledger.event("trainer", code, text, "warning")

    def _narrower(self, step: int, tokens: int) -> None:
        text = (
            f"Memory ran out in step {step:,}: passes have at most {tokens} tokens now, steps the same rows as before."
        )
        self.ledger.event("trainer", "memory_short", text, "warning", step=step, pack_tokens=tokens)

    def hero_facts(self) -> dict:
        return {
            "name": self.tip.hero,
            "model": self.trainer.model.config.model_type,
            "parameters": self.parameters,
            "global_step": self.trainer.global_step,
            "vocabulary": self.trainer.model.config.vocab_size,
            "peak_flops": self.trainer.peak_flops,
        }

    # Working

    def run(self) -> None:
        """Until `should_exit`: one quest after the other."""
        try:
            while not self.should_exit.is_set():
                if not self._turn():
                    self.should_exit.wait(IDLE_SECONDS)
            with spared(self.paths.state):  # what is not told now follows when the hero wakes up
                self.end_writing()
        finally:
            self.writer.give_up()

    def _turn(self) -> bool:
        """`loop`, begun again where a full disk breaks it off: every change of a quest's state is one rename."""
        try:
            return self.loop()
        except (OSError, sqlite3.Error) as problem:
            if not is_no_space(problem, self.paths.state):
                raise
            self._no_space(problem)
            return False

    def loop(self) -> bool:
        """One turn: wishes, then the next quest if there is one. True when something was trained."""
        self.enter("idle")
        self.end_writing(patient=False)
        paused, level = hear_wishes(self), disk.level(self.paths, disk.need_of(self.tip))
        if paused or self.writer.stuck or level is Level.PAUSED:
            self.report.idle(self.hero_facts(), "paused" if paused else "blocked")
            return False
        may_claim, quest = level < Level.NOT_CLAIMING, self.left_in_processing()
        if quest is None and may_claim and self.queue.claim(is_ready):
            quest = self.left_in_processing()
        if quest is None:
            resting = "saving" if self.writer.busy else "idle" if may_claim else "blocked"
            self.report.idle(self.hero_facts(), resting)
            return False
        self._undertake(quest)
        return True

    def left_in_processing(self) -> Quest | None:
        """What was claimed first and is not trained; what only waits for its checkpoint is passed over."""
        judgement.carry_out(self)  # a full disk may have kept one from being carried out
        left = (quest for quest in self.queue.processing() if not self.is_trained(quest))
        return next(left, None)

    def _undertake(self, quest: Quest) -> None:
        """One battle, and what comes of it. The boundary at which a quest's errors are caught."""
        try:
            ending = self._fight(quest)
        except Spoiled as spoiled:
            going_back.go_back(self, quest, spoiled)
        except Exception as problem:
            if is_no_space(problem, self.paths.state):
                self._no_space(problem)
                return
            if isinstance(problem.__cause__, NotFinite):
                self.report.end("failed", str(problem))
                going_back.not_saved(self, problem.__cause__)
                return
            if isinstance(problem, OSError | WriteFailed | sqlite3.Error):  # the disk's fault, not the quest's
                raise
            log.exception("battle of %s failed", quest.name)
            named = "" if isinstance(problem, UserError) else f"{type(problem).__name__}: "
            reason = named + str(problem)
            self.report.end("failed", reason)
            attempt = attempt_of(problem, self.trainer.global_step)
            self.end_writing()
            self.reload()
            blame.blame(self.queue, self.ledger, quest, reason, attempt)
        else:
            if ending is not None:
                self.leave(quest, ending)
            elif self.writer.held.branch:  # judged, and not to go on from
                self.end_writing()
                judgement.carry_out(self)

    def leave(self, quest: Quest, ending: Ending) -> None:
        """A battle was left before its end, its checkpoint is there."""
        if ending.kind == "rollback":  # the quest stays: from the new tip it begins anew
            turning_back.carry_out(self, control.get(self.ledger, ending.wish))
            return
        if ending.kind == "skip":
            self.queue.put_back(quest, "low")
            self.ledger.event(
                "trainer", "quest_skipped", f"{quest.stem} waits in low, its place is kept.", quest=quest.id
            )
        elif ending.kind == "cancel":
            self.queue.give_up(quest, "cancelled")
            self.ledger.event("trainer", "quest_cancelled", f"{quest.stem} was cancelled.", quest=quest.id)
        if ending.wish:
            control.carried_out(self.ledger, ending.wish, "done")

    def _fight(self, quest: Quest) -> Ending | None:
        """Train `quest` from where the tip left it; None when it was trained to its end. Of some only the answers are asked."""
        if is_sparring(quest.card):
            return sparring.spar(self, quest)
        settings = quest.settings
        self.enter("preparing", self.trainer.global_step)
        try:
            plan = self.plan_of(quest)
        except LeftEarly as left:
            return left.ending
        if not plan.total_steps:
            raise UserError(f"{quest.stem} has no row that can be trained")
        going_back.same_lessons(self, quest, plan.prepared.folder.name, plan.teacher)
        first = self.writer.held.open.get(quest.id, 0)
        exam_hall.ask_newborn(self)
        spoiled = self._spoiled_in(quest)
        held = self.writer.held
        plan = with_replay(plan, quest, self.paths, self.renderer(settings.max_length).fingerprint, held, self.tip)
        try:
            plan = with_references(self, plan, quest, first)
            companion = companion_of(self, plan, quest, first)
        except LeftEarly as left:
            return left.ending
        self._choose_optimizer(OptimizerKind.of(settings.trainer))
        rate = learning_rate_of(settings, self.parameters, self.trainer.global_step - first)
        self.report.begin(quest, plan, first, held, self.hero_facts())
        battle = BetweenSteps(self, quest, plan, self.renderer(settings.max_length), wait_for_room)
        battle.begin(self.trainer.global_step)
        self.enter("warm-up")
        if self._short_of_memory and self._short_of_memory.id == quest.id:
            self.trainer.narrow(plan, first, self.crash.step - self.trainer.global_step + first)
            self._short_of_memory = None
        compiled = self._was_compiled(quest) if first else None
        known = {"compiled": compiled, "spoiled": spoiled, "companion": companion, "alive": self.beat}
        self.trainer.fight(plan, first, rate, battle, **known)
        self.report.end(battle.ending.kind if battle.ending else "saving")
        return battle.ending

    def _spoiled_in(self, quest: Quest) -> Spoiled | None:
        """Why the battle of `quest` went back just now, if it did."""
        known, self.spoiled = self.spoiled, None
        return known[1] if known and known[0] == quest.id else None

    def _was_compiled(self, quest: Quest) -> bool | None:
        """How the steps of `quest` that the weights hold were computed, so that the rest is computed likewise."""
        held = self.writer.held
        return held.versions.get("kernels") == "compiled" if held.quest == quest.id else None

    def _choose_optimizer(self, kind: OptimizerKind) -> None:
        before = self.trainer.kind
        if self.trainer.use_optimizer(kind):
            text = f"{kind.optim} takes over from {before.optim}, whose moments do not fit: it begins without any."
            self.ledger.event("trainer", "optimizer_changed", text, "warning", before=before.optim, after=kind.optim)

    def plan_of(self, quest: Quest) -> BattlePlan:
        """All steps of `quest`, its rows prepared if they are not yet. Raises LeftEarly."""
        card, settings = quest.card, quest.settings
        renderer = self.renderer(settings.max_length)
        answers = answers_to(quest)
        folder = self.paths.prepared / cache_name(card["sha256"], card["form"], settings, renderer, answers)
        with Preparation(self, quest) as progress:
            prepared = prepare(quest.path, card["form"], settings, renderer, folder, progress, card["sha256"], answers)
        taught = {"teacher": name_of_weights(self.paths, settings)}
        return BattlePlan(prepared, settings, card["sha256"], form=card["form"], words=renderer, **taught)

    def renderer(self, max_length: int) -> Renderer:
        """The hero's tokenizer and template never change in its life, so they are read once."""
        if max_length not in self._renderers:
            self._renderers[max_length] = Renderer.load(self.paths.vault / self.tip.id, max_length)
        return self._renderers[max_length]

    # Saving

    def save(self, quest: Quest, plan: BattlePlan, global_step: int, step: int, looked: Looked) -> None:
        """Start a checkpoint, after the one before; after the last step it holds the quest, judged. Raises WriteFailed."""
        self.collect(patient=True)
        held = self.writer.held
        facts = Manifest(
            hero=held.hero,
            campaign=campaign.active(self.ledger, held.hero),
            step=global_step,
            parent=self.tip.id,
            quest=quest.id,
            quest_sha256=plan.quest_sha256,
            trained=held.trained,
            open=held.open,
            validation_loss=looked.loss,
            prepared=held.prepared,
            began=held.began,
            teachers=held.taught(quest.id, plan.teacher),
            fought={key: held.fought.get(key, {}) for key in held.prepared} | {str(quest.id): self.report.so_far},
            unfit=looked.unfit,
            settings=plan.settings.model_dump(),
            versions=versions(self.trainer),
            weight_size=held.weight_size,
            **exam_hall.after_step(self, quest, plan, global_step, step >= plan.total_steps),
        )
        if step >= plan.total_steps:
            facts = judgement.judged(self, facts.finished(quest.id), plan, looked)
        else:
            facts = facts.reached(quest.id, step, plan.prepared.folder.name, self.tip.id)
        with weights_to_use(self.trainer.optimizer):
            texts = {RECORD: record(self.trainer.means, self.trainer.kind)}
            self.writer.start(facts, self.trainer.model, self.trainer.optimizer, texts, self.guard, self.trainer.rolled)

    @property
    def seconds_to_save(self) -> float:
        """A checkpoint that takes longer hangs."""
        return self.parameters / SLOWEST_SAVE

    def collect(self, patient: bool = False) -> None:
        """Record a checkpoint that has come, and do what waited for it. Raises WriteFailed."""
        if patient and self.writer.busy:
            self.enter("checkpoint", seconds=self.seconds_to_save)
        if tip := self.writer.collect(patient):
            self.report.saved(tip, "saved")
            self.ledger.change("quests", tip.quest, failures=0)
            judgement.carry_out(self)

    def end_writing(self, patient: bool = True) -> None:
        """`collect` between battles, where a full disk must not end the trainer."""
        try:
            self.collect(patient)
        except WriteFailed as problem:
            if isinstance(problem.__cause__, NotFinite):
                going_back.not_saved(self, problem.__cause__)
            elif is_no_space(problem, self.paths.state):
                self._no_space(problem)
            else:
                raise

    # Failing

    def _no_space(self, problem: Exception) -> None:
        """Say so as far as that is possible, and go back to the tip: weights may be half a step beyond it."""
        tell_no_space(self, problem)
        try:
            with spared(self.paths.state):
                self.collect(patient=True)
        except WriteFailed as also:
            log.error("no space: %s", also)
        if not self.should_exit.wait(NO_SPACE_SECONDS):
            self.reload()

    def reload(self, verified: Manifest | None = None) -> None:
        """Go back to the tip. The weights in memory go first, two heroes may not fit. `verified`: the tip's manifest, from
        whoever has compared its files just now."""
        self.enter("setup")
        del self.trainer
        gc.collect()
        self.load(verified or checkpoints.verify(self.paths.vault / self.tip.id))
