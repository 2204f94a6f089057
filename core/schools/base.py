"""What every school is: how rows become lessons, a loss over packs, what a step's losses are divided by, what it reports.

A school knows tensors, a model and a battle's plan, and nothing about files or queues. Legend as in packing: N label positions of a
pack, S its sequences.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch

from core.battle import BattlePlan
from core.forge.evaluate import Evaluation, evaluate
from core.forge.label_scores import LabelScores, label_scores
from core.forge.lesson import FileLessons, Learner, Lessons
from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute
from core.forge.step_facts import Mean
from core.school_config import Surprise, default_settings
from core.schools.surprise import Weighing


class School(ABC):
    """One way to learn. A step's loss is the sum of `loss_sum` over its packs by `units` of them all, times `factor`.

    `settings`: the school's own, of `core/school_config.py`. `surprise`: weighs labels, if given. `form`: of the rows.
    """

    name: ClassVar[str]
    needs_reference = False  # whether packs have the parent's log-probabilities beside their labels, as "reference"
    companion: str | None = None  # which other model has to be in memory: "parent" or "teacher"
    leaps = True  # whether a loss far above the ones before is worth a word
    temperature = 1.0  # that logits are divided by

    def __init__(self, settings: Any = None, surprise: Surprise | None = None, form: str = "messages"):
        self.settings = settings or default_settings(self.name)
        self.surprise, self.form = surprise, form
        self.step = 0  # of the battle, from 0
        self._told: dict[str, Mean] = {}
        self._weighing = Weighing(surprise) if surprise else None

    @property
    def together(self) -> int:
        """How many sequences, one after the other, must go through the same pass."""
        return 1

    def lessons(self, plan: BattlePlan, learner: Learner) -> Lessons:
        """What is trained in each step of `plan`; to be asked for before the first loss."""
        return FileLessons(plan, self.together)

    def units(self, packs: Sequence[Pack]) -> float:
        """What the summed losses of `packs` are divided by."""
        return sum(len(pack.labels_N) for pack in packs)

    @abstractmethod
    def loss_sum(self, model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
        """The pack's part of a step's loss, not yet divided: float32, a scalar with a gradient."""

    def begin(self, step: int, model: torch.nn.Module | None = None, packs: Sequence[Pack] = ()) -> None:
        """The passes of `step`, counted from 0, come now; once more where memory ran out. `packs`: all of them, for `model`."""
        self.step, self._told = step, {}
        self._weighing = Weighing(self.surprise) if self.weighs else None

    def factor(self) -> torch.Tensor | None:
        """What the losses of all passes of the step, and their gradients, are to be multiplied by; None where by nothing."""
        return self._weighing.factor if self._weighing and self._weighing.passes > 1 else None

    def settled(self, total: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
        """After the passes of a step: its loss, with the gradients of `model`, as if it had been one pass."""
        if (factor := self.factor()) is None:
            return total
        torch._foreach_mul_([parameter.grad for parameter in model.parameters() if parameter.grad is not None], factor)
        return total * factor

    def told(self) -> dict[str, Mean]:
        """What the passes of the last step reported beside their loss."""
        return {name: mean for name, mean in self._told.items() if mean.count}

    def evaluate(self, model: torch.nn.Module, packs: Sequence[Pack]) -> Evaluation | None:
        """`model` on rows that are not trained; None where there are none."""
        return evaluate(model, packs)

    # For siblings

    @contextmanager
    def unweighed(self) -> Iterator[None]:
        """In which surprise counts for nothing, so that losses before and after its warm-up, and without it, compare."""
        surprise, self.surprise = self.surprise, None
        try:
            yield
        finally:
            self.surprise = surprise

    @property
    def weighs(self) -> bool:
        """Whether surprise weighs the labels of this step."""
        return self.surprise is not None and self.step >= self.surprise.warmup_steps

    def scores(self, model: torch.nn.Module, pack: Pack, compute: Compute, entropy: bool = False) -> LabelScores:
        """The labels' log-probabilities, and what the weights of this step are made from."""
        measure = self.surprise.measure if self.weighs else None
        wanted = {"entropy": entropy or measure == "entropy", "runner_up": measure == "margin"}
        return label_scores(model, pack, compute, self.temperature, **wanted)

    def weights(self, scores: LabelScores) -> torch.Tensor | float:
        """Of each label (N), 1 on average over the step, as `Weighing` says; 1.0 where surprise counts for nothing."""
        return self._weighing.weights(scores) if self.weighs else 1.0

    def tell(self, name: str, values: torch.Tensor) -> None:
        """Report each of `values` as one more of those whose mean is shown as `name`."""
        self._told[name] = self._told.get(name, Mean()).of(values)
