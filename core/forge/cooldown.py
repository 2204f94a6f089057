"""A cooldown: a checkpoint is trained on along a branch while its learning rate falls to nothing. The tip hears nothing.

A constant rate keeps weights in motion and so above the loss they could have; letting it fall at the end of a training
wins what a planned schedule would have won. A hero's training has no end, so it is done aside, whenever a model is wanted.
It trains by the same trainer as a battle and knows nothing of who asks or where it goes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import transformers

from core.checkpoints import Manifest
from core.cooldown_plan import CooldownPlan
from core.errors import NotFinite, RealmError
from core.forge import means
from core.forge.evaluate import Evaluation
from core.forge.load_hero import load_hero
from core.forge.optimizers import OptimizerKind, weights_to_use
from core.forge.state import save_model
from core.forge.step_facts import StepFacts
from core.forge.tensor_file import not_finite
from core.learning_rate import learning_rate_of, one_minus_sqrt
from core.memory_needs import Means
from core.paths import RealmPaths
from core.previews import Question

transformers.utils.logging.disable_progress_bar()

BRANCH = "cooldown"
Tell = Callable[[int, float], None]  # steps done, their seconds


@dataclass(frozen=True)
class Cooldown:
    """How it went: held-out loss of the quests that were trained on, before and after."""

    steps: int
    learning_rate: float
    quests: list[int]
    rows: int
    loss_before: float | None
    loss_after: float | None


class CooledHero:
    """The hero of a checkpoint after `plan`, in this process's own memory; nothing is written before `write` is asked to."""

    def __init__(self, paths: RealmPaths, manifest: Manifest, plan: CooldownPlan, tell: Tell):
        self.manifest, self.plan = manifest, plan
        folder = paths.vault / manifest.id
        known, kind = means.read(folder)
        self.trainer = load_hero(
            folder, paths.state / "trainer", manifest.step, known or Means(compute="fp32"), kind or OptimizerKind()
        )
        parameters = sum(parameter.numel() for parameter in self.trainer.model.parameters())
        rate = learning_rate_of(plan.settings, parameters, manifest.step)
        before = self.trainer.held_out_loss(plan)
        watch = _Watch(tell)
        self.trainer.fight(plan, 0, rate, watch, one_minus_sqrt(plan.steps))
        rows = sum(len(plan.rows_of(step)) for step in range(plan.steps))
        self.told = Cooldown(plan.steps, rate, list(plan.quest_ids), rows, before, watch.loss)

    def branch(self) -> Manifest:
        """What the checkpoint says that its weights become."""
        return replace(
            self.manifest,
            step=self.manifest.step + self.told.steps,
            parent=self.manifest.id,
            branch=BRANCH,
            quest=None,
            quest_sha256=None,
            validation_loss=self.told.loss_after,
            settings=self.plan.settings.model_dump() | {"cooldown": asdict(self.told)},
            versions={"torch": torch.__version__, "transformers": transformers.__version__},
            exams=[],  # nobody has asked or judged these weights
            verdict=None,
            weight_size=None,
        )

    def write(self, folder: Path, tokenizer: Path) -> None:
        """Weights and tokenizer; the optimizer's state ends here, for nothing is trained on from a branch."""
        with weights_to_use(self.trainer.optimizer):
            if name := not_finite(self.trainer.model.state_dict()):
                raise NotFinite(f"the cooldown ended with a number in {name} that is not finite; nothing was written")
            save_model(self.trainer.model, folder, tokenizer)


class _Watch:
    """The observer of a cooldown."""

    stop_ids = None

    def __init__(self, tell: Tell):
        self.tell = tell
        self.loss: float | None = None

    def after_step(self, facts: StepFacts) -> bool:
        if not torch.isfinite(facts.loss):
            raise RealmError(f"the cooldown's loss is {facts.loss.item()} in step {facts.step}; nothing was written")
        self.tell(facts.step, facts.seconds)
        return False

    def validated(self, global_step: int, evaluation: Evaluation) -> None:
        self.loss = evaluation.loss

    def answered(self, global_step: int, asked: Sequence[Question], answers: list[list[int]]) -> None:
        """Nobody asks: the rows have no keys to choose prompts by."""

    def save(self, global_step: int, step: int) -> None:
        """Nothing: a cooldown is short, and done again when it was ended."""
