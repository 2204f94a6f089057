"""HeroTrainer: transformers' Trainer as a resident, one `fight` a quest, model and optimizer staying where they are.

It trains what a BattlePlan says and tells an Observer of every step; it knows nothing about folders, queues or ledgers.
One step of the Trainer is one optimizer step: a batch is the list of packs that its rows fill, normalised together.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from core.battle import BattlePlan
from core.errors import UserError
from core.flops import peak_flops, training_flops
from core.forge import optimizers
from core.forge.arguments import PER_BATTLE, arguments
from core.forge.bond import bond
from core.forge.compiling import warm_up, worth_compiling
from core.forge.evaluate import Evaluation
from core.forge.generate import greedy_answers
from core.forge.gradient_release import GradientRelease
from core.forge.guard import Spoiled
from core.forge.lesson import Learner
from core.forge.looks import Looks
from core.forge.optimizers import OptimizerKind
from core.forge.out_of_memory import (
    CANNOT_BE_SHARED,
    halved,
    is_out_of_memory,
    random_state,
    set_random_state,
    smaller,
)
from core.forge.qwen3 import EAGER, Compute, autocast, understands
from core.forge.rolled import Rolled
from core.forge.step_facts import Observer
from core.forge.step_guard import StepGuard
from core.forge.step_loader import EVERYTHING, StepBatch, StepLoader
from core.forge.step_reporter import StepReporter
from core.learning_rate import Schedule, cooled
from core.machine import compiler
from core.memory_needs import Means
from core.memory_plan import check_numbers
from core.pack_limits import PackLimits
from core.previews import most_tokens
from core.quest import Settings
from core.schools import IMITATING, school
from core.schools.base import School
from core.time_budget import SHARE
from core.trainer_keys import layers_again


def _school_of(plan: BattlePlan) -> School:
    name, schools = plan.settings.school, plan.settings.schools
    return school(name, schools.settings(name), schools.surprise, plan.form)


class HeroTrainer(Trainer):
    """Keeps one hero in memory and fights battle after battle with it. `global_step` never resets.

    `look_share`: how much of a battle's time may go into evaluations and previews before its end.
    """

    look_share = SHARE

    def __init__(
        self,
        model: torch.nn.Module,
        folder: Path,
        global_step: int = 0,
        means: Means | None = None,
        kind: OptimizerKind | None = None,
        limits: PackLimits | None = None,
        seed: int = 0,
    ):
        """`means`, `kind`: how memory is used and what optimizer there is; `limits`: of passes; `seed`: of rounding."""
        super().__init__(model=model, args=arguments(folder), eval_dataset=[])
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)
        self.global_step = global_step
        self.means, self.limits, self._seed = means or Means(compute="fp32"), limits or PackLimits(), seed
        self._defaults = {key: getattr(self.args, key) for key in PER_BATTLE}
        self._plan: BattlePlan | None = None
        self._observer: Observer | None = None
        self.compute, self._autocast = EAGER, False
        self._release: GradientRelease | None = None
        self._look_rates: dict[str, float] = {}
        self.guard = StepGuard(self.args.device)
        self._shape = model.config.to_dict()
        self.peak_flops = peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        self.rolled = Rolled(self)
        self.add_callback(self.rolled)
        self.add_callback(StepReporter(self))
        self.kind = kind or OptimizerKind()
        self.optimizer = optimizers.make(self, self.kind, self.means, seed)

    def fight(
        self,
        plan: BattlePlan,
        first: int,
        learning_rate: float,
        observer: Observer,
        schedule: Schedule | None = None,
        compiled: bool | None = None,
        spoiled: Spoiled | None = None,
        companion: torch.nn.Module | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        """Train `plan` from its step `first` to its end, or until the observer says stop.

        Without a `schedule` the learning rate is constant after a warm-up of fresh moments, and falls as the settings'
        `cooldown_share` says. `compiled`: whether the battle's kernels were compiled until it was left; without it the
        battle's length decides. `spoiled`: why it went back to here, and which steps are passed over therefore.
        `companion`: the other model that its school wants; `alive` is called while the hero answers in its steps.
        """
        self._plan, self._first, self._observer = plan, first, observer
        self._go_to_school(plan, companion, alive)
        self.guard.take_up(plan.quest_sha256, first, spoiled)
        self._adopt(plan, learning_rate, schedule)
        self._choose_compute(plan, compiled, schedule is not None)
        self.rolled.begin(plan, first, cooldown=schedule is not None)
        self._loader = StepLoader(plan, first, self._room, self._lessons)
        self._looks = self._looks_at(plan)
        try:
            if first == 0 and self._looks.cheap_before:
                self._validate(self.global_step)
            self.train()
        finally:
            self._plan = self._observer = self._school = self._lessons = self._loader = None
            self.callback_handler.train_dataloader = None  # else it would hold the companion until the next battle
            if self._release:
                self._release.remove()
                self._release = None

    def _go_to_school(
        self,
        plan: BattlePlan,
        companion: torch.nn.Module | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        self._school = _school_of(plan)
        learner = Learner(self.model, self.compute_loss_context_manager, alive, companion)
        self._lessons = self._school.lessons(plan, learner)

    def held_out_loss(self, plan: BattlePlan) -> float | None:
        """Held-out loss of a battle that is not fought now."""
        self._go_to_school(plan)
        self._autocast = self.wants_autocast(plan.settings)
        evaluation = self._evaluation(self._looks_at(plan))
        return evaluation and evaluation.loss

    def bond(self, plan: BattlePlan) -> float | None:
        """How surely the held-out answers of `plan` belong to their prompts, as a z-score; None where it does not say which
        answers are good."""
        if plan.settings.school not in IMITATING:
            return None
        with self.compute_loss_context_manager(), optimizers.weights_to_use(self.optimizer):
            return bond(self.model, plan.sequences_of(plan.held_out_rows.tolist()))

    @torch.no_grad()
    def weight_size(self) -> float:
        """Root mean square of all weights, as they are used."""
        with optimizers.weights_to_use(self.optimizer):
            norms = torch._foreach_norm(list(self.model.parameters()), dtype=torch.float32)
            return float((sum(norm.double() ** 2 for norm in norms) / self.model.num_parameters()).sqrt())

    def _looks_at(self, plan: BattlePlan) -> Looks:
        room = self._room_at(plan.settings, self.global_step)
        asking = self._observer is not None and self._observer.stop_ids is not None
        return Looks(plan, self._lessons.held_out(), self._look_rates, self.look_share, room, asking)

    def _evaluation(self, looks: Looks) -> Evaluation | None:
        with self.compute_loss_context_manager(), optimizers.weights_to_use(self.optimizer):
            return self._school.evaluate(self.model, looks.packs)

    def _validate(self, global_step: int) -> Evaluation:
        """Held-out loss and accuracy of the running battle with the weights as they are."""
        with self._looks.validating():
            evaluation = self._evaluation(self._looks)
            self._observer.validated(global_step, evaluation)
        return evaluation

    def _preview(self, global_step: int, last: bool) -> None:
        """The hero's answers to the prompts of the running battle."""
        asked = self._looks.questions
        with self._looks.previewing(last) as enough:
            with self.compute_loss_context_manager(), optimizers.weights_to_use(self.optimizer):
                prompts = [question.prompt for question in asked]
                answers = greedy_answers(self.model, prompts, self._observer.stop_ids, most_tokens(asked), enough)
            self._observer.answered(global_step, asked, answers)

    def use_optimizer(self, kind: OptimizerKind) -> bool:
        """Train with an optimizer of this kind from now on; True when moments were lost by it."""
        if kind == self.kind:
            return False
        before, old = self.kind, getattr(self.optimizer, "optimizer", self.optimizer)
        self.optimizer, self.kind = optimizers.make(self, kind, self.means, self._seed), kind
        self.accelerator._optimizers.clear()  # it would keep the old one, and all its moments
        if before.is_adamw and kind.is_adamw:
            optimizers.take_over(self.optimizer, old)
            return False
        return True

    def _adopt(self, plan: BattlePlan, learning_rate: float, schedule: Schedule | None) -> None:
        """Make arguments, optimizer groups and schedule those of the battle; moments stay, unless it resets them."""
        settings, means, fresh = plan.settings, self.means, plan.settings.optimizer_state == "reset"
        if fresh and self._first == 0:
            self._forget_moments()
        self._autocast = self.wants_autocast(settings)
        honoured = self._defaults | {key: value for key, value in settings.trainer.items() if key in PER_BATTLE}
        for key, value in (honoured | {"eval_steps": settings.eval_steps}).items():
            setattr(self.args, key, value)
        optimizers.tune(self.optimizer, honoured, learning_rate)
        optimizers.begin(self.optimizer)
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        if means.release and self.kind.is_adamw:
            self._release = GradientRelease(optimizer, self.args.max_grad_norm)
        warmup = 1 if self.kind.warms_up_itself else max(1, int(honoured["warmup_steps"]))
        # Fresh moments warm up: those of the hero's birth by its global step, those of a battle by the battle's own.
        began = self.global_step - self._first
        cooldown = 0.0 if self.kind.is_schedule_free else settings.cooldown_share
        born, falls = began if fresh else 0, cooled(plan.total_steps, cooldown)
        share = schedule or (lambda step: min(1.0, (began + step - born + 1) / warmup) * falls(step))
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: share(step - began), last_epoch=self.global_step - 1
        )

    def wants_autocast(self, settings: Settings) -> bool:
        bf16 = settings.trainer.get("bf16", self.means.compute == "bf16")
        check_numbers(self.means.weights, settings.trainer.get("optim", self.kind.optim), "bf16" if bf16 else "fp32")
        return bf16 and self.means.weights == "fp32"

    def numbers_of(self, settings: Settings) -> torch.autocast:
        """What the passes of a battle with these settings are computed in."""
        return autocast(self.args.device.type, self.wants_autocast(settings))

    def _choose_compute(self, plan: BattlePlan, compiled: bool | None, short: bool) -> None:
        """Which layers are computed again, and whether kernels are compiled: as is wished, else where it pays."""
        keys, model = plan.settings.trainer, self.model
        every = layers_again(keys, self.means.recompute_every)
        if compiled is None:
            compiled = keys.get("torch_compile")
        if compiled is None:
            compiled = not short and worth_compiling(model, 6.0 * model.num_parameters() * plan.tokens)
        compiled = compiled and understands(model) and compiler(self.args.device.type) is not None
        self.compute = Compute(compiled, every)
        model.activation_checkpointing_disable()
        if every and not understands(model):
            model.activation_checkpointing_enable(every_n_layers=every)
        if compiled:
            warm_up(model, self._autocast)

    def _room(self, step: int) -> int:
        """Tokens of a pass at most in a step: as the battle, the plan and what was found out say."""
        if self._in_one_pass:
            return EVERYTHING
        return self._room_at(self._plan.settings, self._began + step - self._first + 1)

    def _room_at(self, settings: Settings, global_step: int) -> int:
        return min(filter(None, (settings.pass_tokens(self.means.pack_tokens), self.limits.at(global_step))))

    @property
    def _in_one_pass(self) -> bool:
        """Whether weights change within the backward pass, so that there can be only one in a step."""
        return self._release is not None or self.kind.steps_in_backward

    def compute_loss_context_manager(self) -> torch.autocast:
        return autocast(self.args.device.type, self._autocast)

    def _forget_moments(self) -> None:
        """Moments and counts of steps are kept by tensor; without them the optimizer begins anew, from the weights in use."""
        with optimizers.weights_to_use(self.optimizer):
            self.optimizer.state.clear()

    # What transformers' loop asks for

    def get_train_dataloader(self) -> StepLoader:
        return self._loader

    def _init_training_state(self, max_steps: int, *rest: Any) -> tuple[int, int]:
        result = super()._init_training_state(max_steps, *rest)
        self.state.global_step = self.global_step
        self.state.max_steps = self.global_step + self._plan.total_steps - self._first
        return result

    def get_batch_samples(
        self, epoch_iterator: Iterator[StepBatch], num_batches: int, device: torch.device
    ) -> tuple[list, int]:
        batch = next(epoch_iterator)
        return [batch], batch.labels

    def training_step(
        self, model: torch.nn.Module, batch: StepBatch, num_items_in_batch: int | None = None
    ) -> torch.Tensor:
        """Forward and backward of every pack of the step; returns the mean loss over its labels, detached.

        Where memory runs out, the rows are shared out over smaller passes and the step begins again.
        """
        if self.guard.record.passes_over(batch.step + 1):
            self._step_loss, self._step_tokens, self._step_flops = self.guard.pass_over(), 0, 0.0
            self._told, self._empty = {}, True
            return torch.zeros((), device=self.args.device)
        chance = random_state(self.args.device)
        while True:
            try:
                total = self._passes(model, batch)
                break
            except (RuntimeError, MemoryError) as problem:
                if not is_out_of_memory(problem):
                    raise
                if self._in_one_pass or not self._plan.settings.packing:
                    raise UserError(CANNOT_BE_SHARED) from problem
            self._narrow(model, batch)
            batch = self._loader.batch(batch.step)
            set_random_state(chance)
        lengths = [length for pack in batch.packs for length in pack.lengths]
        self._step_loss, self._step_tokens = total if batch.loss is None else total * 0 + batch.loss, batch.tokens
        self._told, self._empty = {**batch.told, **self._school.told()}, not batch.packs or self.rolled.nothing
        self._step_flops = training_flops(self._shape, lengths, batch.labels)
        return total

    def _passes(self, model: torch.nn.Module, batch: StepBatch) -> torch.Tensor:
        model.train()
        if self._release:
            self._release.begin(self.guard.bound())
        rate = {"learning_rate": self.lr_scheduler.get_last_lr()[0]} if self.kind.steps_in_backward else {}
        total, units = torch.zeros((), device=self.args.device), self._school.units(batch.packs)
        with self.compute_loss_context_manager():
            self._school.begin(batch.step, model, batch.packs)
        self.rolled.begin_passes(batch.step)
        for pack in batch.packs:
            pack = pack.to(self.args.device)
            with self.compute_loss_context_manager():
                loss = self._school.loss_sum(model, pack, self.compute) / units
            total += loss.detach()
            if self._release:
                self._release.mind(loss)
            elif self.kind.steps_in_backward and not total.isfinite():
                break
            if (loss := self.rolled.weigh(loss)) is not None:
                self.accelerator.backward(loss, **rate)
        return self._school.settled(total, model)

    def _narrow(self, model: torch.nn.Module, batch: StepBatch) -> None:
        """Memory ran out in this step: let go of what is left of it, and remember how large a pass may be from now on."""
        model.zero_grad()
        if self.args.device.type == "cuda":
            torch.cuda.empty_cache()
        self.limits.add(self.state.global_step + 1, smaller(batch.packs, self._school.together))

    def narrow(self, plan: BattlePlan, first: int, last: int) -> None:
        """The kernel ended the last life after step `last` of `plan`: from step `first` on, passes are half as large."""
        if self.kind.steps_in_backward or self.means.release:
            return  # a step is one pass
        room, together = self._room_at(plan.settings, self.global_step + 1), _school_of(plan).together
        if tokens := halved(plan, range(first, min(last + 1, plan.total_steps)), room, together):
            self.limits.add(self.global_step + 1, tokens)

    def floating_point_ops(self, inputs: StepBatch) -> int:
        return 0

    def _clip_grad_norm(self, model: torch.nn.Module) -> None:
        """Left to what is asked for next, whether gradients are clipped or not."""

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor | None:
        """The norm before clipping. From here on the optimizer finds no gradient of a step that is no number."""
        norm, guard = None, self.guard
        loss = self._step_loss if self._school.leaps else self._step_loss * 0 + 1  # what is no number stays that
        if guard.record.passes_over(self._first + self.state.global_step - self._began + 1):
            pass
        elif self._empty:
            guard.skip()
        elif self._in_one_pass:  # the gradients are gone; what was released was clipped and looked at then
            norm = self._release.norm() if self._release else None
            guard.look(loss, torch.ones_like(loss) if norm is None else norm)
        else:
            optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
            norm = guard.clip(model.parameters(), optimizer, loss, self.args.max_grad_norm)
        self._step_norm = norm
        return norm

    def _get_learning_rate(self) -> float:
        self._step_rate = self.lr_scheduler.get_last_lr()[0] * self.rolled.rate_factor
        return self._step_rate

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """When `eval_steps` says so and the battle's time allows it; at its end always."""
        step, last = self.state.global_step, self.state.global_step >= self.state.max_steps
        evaluation = self._validate(step) if self._looks.validation_due(last) else None
        if self._looks.preview_due(last):
            self._preview(step, last)
        metrics = {} if evaluation is None else {"eval_loss": evaluation.loss}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        self._observer.save(self.global_step, self._first + self.global_step - self._began)
