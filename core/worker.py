"""The resident hero: it takes quest after quest, trains, saves, promotes, and carries out wishes between two steps.

Everything it needs to go on is on disk: the tip's manifest says which quests its weights hold and how far into the next
they are. So waking up after a kill and after a clean stop are the same thing. It knows nothing about processes.
"""

import errno
import gc
import logging
import os
from collections.abc import Callable
from threading import Event

import torch
import transformers
from transformers import AutoModelForCausalLM

from core import checkpoints, control
from core.battle import BattlePlan
from core.battle_report import BattleReport
from core.between_steps import BetweenSteps, Ending
from core.checkpoints import Manifest
from core.config import Config
from core.errors import CheckpointError, UserError
from core.forge.attention import ATTENTION
from core.forge.hatch import hatch
from core.forge.state import has_state, load_state, save_model, save_state
from core.ledger import Ledger
from core.paths import RealmPaths
from core.prepare import Prepared, cache_name, prepare
from core.quest import Quest
from core.rendering import Renderer
from core.train import HeroTrainer
from core.training_queue import TrainingQueue

log = logging.getLogger(__name__)
transformers.utils.logging.disable_progress_bar()

LEARNING_RATES = ((10e6, 1e-3), (100e6, 5e-4), (1e9, 1e-5), (float("inf"), 5e-6))
IDLE_SECONDS = 0.05
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Worker:
    """One hero in memory. `should_exit` ends it between two steps; `beat` is called at least every few seconds of work."""

    def __init__(
        self,
        paths: RealmPaths,
        config: Config,
        ledger: Ledger,
        should_exit: Event,
        beat: Callable[[], None],
        last_exit: str = "",
    ):
        self.paths, self.config, self.ledger = paths, config, ledger
        self.should_exit, self.beat = should_exit, beat
        self.queue = TrainingQueue(paths, ledger)
        self.last_exit = last_exit

    # Waking up

    def awaken(self) -> None:
        """Load the newest whole checkpoint, or hatch a hero, and make the queue agree with what its weights hold."""
        checkpoints.sweep(self.paths)
        self.queue.reconcile()
        self.report = BattleReport(self.paths, self.ledger, self.config.hero.name)
        self.report.loading()
        self.report.recover(checkpoints.manifests(self.paths))
        self.tip = checkpoints.newest_verified(self.paths, self.config.hero.name, self._broken) or self._hatch()
        if checkpoints.pointed(self.paths.tip) != self.tip.id:
            checkpoints.set_tip(self.paths, self.tip.id)
        self._mend_current()
        self.beat()
        self._load(self.tip)
        self._settle()
        gc.collect()
        gc.freeze()  # what was loaded stays: the Trainer collects garbage before every battle and need not look at it
        self.report.idle(self.hero_facts())
        self.ledger.event(
            "trainer", "hero_awake", f"{self.tip.hero} is awake at step {self.tip.step:,}.", checkpoint=self.tip.id
        )

    def _mend_current(self) -> None:
        """The promoted model must be this hero's and whole; it is not after a crash at its birth, a switch, or bad luck."""
        current = checkpoints.pointed(self.paths.current_model) or ""
        try:
            if current.startswith(f"{self.tip.hero}-") and checkpoints.verify(self.paths.vault / current):
                return
        except CheckpointError as problem:
            self._broken(current, str(problem))
        checkpoints.set_current(self.paths, self.tip.id)

    def _broken(self, checkpoint: str, why: str) -> None:
        log.error("checkpoint passed over: %s", why)
        self.ledger.event(
            "trainer", "checkpoint_corrupt", f"Checkpoint passed over: {why}", "alert", checkpoint=checkpoint
        )

    def _hatch(self) -> Manifest:
        manifest = hatch(self.paths, self.config)
        self.report.saved(manifest, "promoted")
        self.ledger.event(
            "trainer",
            "hero_hatched",
            f"{manifest.hero} is born from {manifest.settings['base_model']}.",
            checkpoint=manifest.id,
        )
        return manifest

    def _load(self, manifest: Manifest) -> None:
        folder = self.paths.vault / manifest.id
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
        )
        self.trainer = HeroTrainer(model, self.paths.state / "trainer", manifest.step)
        if has_state(folder):
            load_state(folder, self.trainer.optimizer)
        elif manifest.step > 0:
            raise CheckpointError(f"{manifest.id} has no optimizer state")
        else:
            torch.manual_seed(self.config.seed)
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.tip = manifest
        self._renderers: dict[int, Renderer] = {}

    def _settle(self) -> None:
        """Quests whose training the weights hold are finished; finished ones that they lack go back to wait."""
        for quest in self.queue.quests("processing"):
            if checkpoints.holds(self.tip.trained, quest.id):
                self.report.close(quest.id)
                self._finish(quest)
            elif self.last_exit not in ("", "0", "-9", "-15"):
                self._blame(quest, f"the trainer ended with {self.last_exit} while it was trained")
        known = self.ledger.all("SELECT DISTINCT quest FROM battles WHERE hero=? AND state='done'", (self.tip.hero,))
        trained_by_hero = {row["quest"] for row in known}
        for quest in self.queue.quests("recently_completed"):
            if quest.id in trained_by_hero and not checkpoints.holds(self.tip.trained, quest.id):
                self.queue.put_back(quest)
                self.ledger.event(
                    "trainer",
                    "quest_again",
                    f"{quest.stem} is trained again: the checkpoint that held it is gone.",
                    "warning",
                    quest=quest.id,
                )

    def hero_facts(self) -> dict:
        return {
            "model": self.trainer.model.config.model_type,
            "parameters": self.parameters,
            "global_step": self.trainer.global_step,
            "vocabulary": self.trainer.model.config.vocab_size,
            "peak_flops": self.trainer.peak_flops,
        }

    # Working

    def run(self) -> None:
        """Until `should_exit`: one quest after the other."""
        while not self.should_exit.is_set():
            if not self.loop():
                self.should_exit.wait(IDLE_SECONDS)

    def loop(self) -> bool:
        """One turn: wishes, then the next quest if there is one. True when something was trained."""
        self.beat()
        paused = self._idle_wishes()
        if paused or not self._has_room():
            self.report.idle(self.hero_facts(), "paused" if paused else "blocked")
            return False
        quest = next(iter(self.queue.quests("processing")), None) or self.queue.claim()
        if quest is None:
            self.report.idle(self.hero_facts())
            return False
        self._undertake(quest)
        return True

    def _idle_wishes(self) -> bool:
        for wish in control.waiting(self.ledger):
            if wish["verb"] == "cancel":
                self.cancel_waiting(wish)
            else:
                control.carried_out(
                    self.ledger, wish["id"], self._skip_left(wish) if wish["verb"] == "skip" else "done"
                )
        return control.is_paused(self.ledger)

    def _skip_left(self, wish: dict) -> str:
        """A skip of the battle that an earlier life left: it has not begun again yet."""
        for quest in self.queue.quests("processing"):
            if control.concerns(wish, quest.id):
                self._leave(quest, Ending("skip"))
                return "done"
        return "its battle was over"

    def cancel_waiting(self, wish: dict) -> None:
        try:
            quest = self.queue.find(int(wish["argument"]))
            if quest.state in ("recently_completed", "failed", "rejected"):
                raise UserError(f"quest {quest.id} is in {quest.state}, there is nothing to cancel")
            self.queue.give_up(quest, "cancelled")
            control.carried_out(self.ledger, wish["id"], "done")
        except UserError as problem:
            control.carried_out(self.ledger, wish["id"], str(problem))

    def _has_room(self) -> bool:
        return self.report.free_bytes() >= self.config.disk.reserve_bytes

    def _undertake(self, quest: Quest) -> None:
        """One battle, and what comes of it. The boundary at which a quest's errors are caught."""
        try:
            ending = self._fight(quest)
        except Exception as problem:
            if _is_no_space(problem):
                self._no_space(problem)
                return
            if isinstance(problem, OSError):
                raise
            log.exception("battle of %s failed", quest.name)
            self._reload()
            self._blame(quest, f"{type(problem).__name__}: {problem}")
        else:
            self._leave(quest, ending)

    def _leave(self, quest: Quest, ending: Ending | None) -> None:
        if ending is None:
            self._finish(quest)
        elif ending.kind == "skip":
            self.queue.put_back(quest, "low")
            self.ledger.event(
                "trainer", "quest_skipped", f"{quest.stem} waits in low, its place is kept.", quest=quest.id
            )
        elif ending.kind == "cancel":
            self.queue.give_up(quest, "cancelled")
            self.ledger.event("trainer", "quest_cancelled", f"{quest.stem} was cancelled.", quest=quest.id)
        if ending and ending.wish:
            control.carried_out(self.ledger, ending.wish, "done")

    def _fight(self, quest: Quest) -> Ending | None:
        """Train `quest` from where the tip left it; None when it was trained to its end."""
        card, settings = quest.card, quest.settings
        prepared = self._prepared(quest, card)
        plan = BattlePlan(prepared, settings, card["sha256"])
        if not plan.total_steps:
            raise UserError(f"{quest.stem} has no row that can be trained")
        first = self.tip.open.get(quest.id, 0)
        rate = settings.learning_rate or next(rate for size, rate in LEARNING_RATES if self.parameters < size)
        self.report.begin(quest, plan, first, self.tip.hero, self.hero_facts())
        battle = BetweenSteps(self, quest, plan, self._renderer(settings.max_length))
        self.trainer.fight(plan, first, rate, battle)
        self.report.end(battle.ending.kind if battle.ending else "done")
        return battle.ending

    def _prepared(self, quest: Quest, card: dict) -> Prepared:
        settings = quest.settings
        renderer = self._renderer(settings.max_length)
        name = cache_name(card["sha256"], card["form"], settings, renderer)
        return prepare(quest.path, card["form"], settings, renderer, self.paths.prepared / name, self.beat)

    def _renderer(self, max_length: int) -> Renderer:
        """The hero's tokenizer and template never change in its life, so they are read once."""
        if max_length not in self._renderers:
            self._renderers[max_length] = Renderer.load(self.paths.vault / self.tip.id, max_length)
        return self._renderers[max_length]

    # Endings

    def save(self, quest: Quest, plan: BattlePlan, global_step: int, step: int, validation_loss: float | None) -> None:
        """Commit a checkpoint and move the tip to it; after the last step it holds the quest as trained."""
        facts = Manifest(
            hero=self.tip.hero,
            campaign=self.tip.campaign,
            step=global_step,
            parent=self.tip.id,
            quest=quest.id,
            quest_sha256=plan.quest_sha256,
            trained=self.tip.trained,
            open=self.tip.open,
            validation_loss=validation_loss,
            settings=plan.settings.model_dump(),
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
        )
        facts = facts.finished(quest.id) if step >= plan.total_steps else facts.reached(quest.id, step)
        self.tip = checkpoints.commit(self.paths, facts, self._write)
        checkpoints.set_tip(self.paths, self.tip.id)
        self.report.saved(self.tip, "saved")
        self.ledger.change("quests", quest.id, failures=0)
        self.beat()

    def _write(self, folder) -> None:
        save_model(self.trainer.model, folder, self.paths.vault / self.tip.id)
        save_state(folder, self.trainer.optimizer)

    def _finish(self, quest: Quest) -> None:
        """Carry out the verdict: until the Temple judges, every finished battle is promoted."""
        checkpoints.set_current(self.paths, self.tip.id)
        self.report.promoted(self.tip)
        self.queue.finish(quest)
        self.ledger.event(
            "trainer",
            "quest_done",
            f"{quest.stem} is trained; {self.tip.id} is promoted.",
            quest=quest.id,
            checkpoint=self.tip.id,
            validation_loss=self.tip.validation_loss,
        )

    def _blame(self, quest: Quest, reason: str) -> None:
        moved = self.queue.blame(quest, reason)
        failed = moved.state == "failed"
        self.report.end("failed", reason)
        self.ledger.event(
            "trainer",
            "quest_failed",
            f"{quest.stem} failed: {reason}" + ("" if failed else "; it will be tried again."),
            "alert" if failed else "warning",
            quest=quest.id,
        )

    def _no_space(self, problem: Exception) -> None:
        log.error("no space: %s", problem)
        self.report.end("stopped", str(problem))
        self.ledger.event(
            "trainer",
            "disk_low",
            f"No room for a checkpoint: {problem}. Free space; training goes on by itself.",
            "alert",
        )
        self._reload()
        self.should_exit.wait(5.0)

    def _reload(self) -> None:
        """Weights may be half a step beyond the tip: go back to it. The old ones go first, two may not fit."""
        del self.trainer
        gc.collect()
        self._load(checkpoints.verify(self.paths.vault / self.tip.id))


def _is_no_space(problem: Exception) -> bool:
    """Whether the disk is full, in the words of Python, safetensors or SQLite."""
    told = (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT), "database or disk is full")
    return getattr(problem, "errno", None) in NO_SPACE or any(words in str(problem) for words in told)
