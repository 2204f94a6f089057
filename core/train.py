"""HeroTrainer: transformers' Trainer as a resident, one `fight` a quest, model and optimizer staying where they are.

It trains what a BattlePlan says and tells an Observer of every step; it knows nothing about folders, queues or ledgers.
One step of the Trainer is one optimizer step: a batch is the list of packs that its rows fill, normalised together.
"""

import math
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from core.battle import BattlePlan
from core.flops import peak_flops, training_flops
from core.forge.evaluate import Evaluation, evaluate
from core.forge.generate import greedy_answers
from core.forge.looks import Looks
from core.forge.packing import Pack, packs_of
from core.previews import Question, most_tokens
from core.schools import school
from core.time_budget import SHARE


@dataclass(frozen=True)
class StepFacts:
    """One optimizer step as it happened. `loss`: mean nats per trained token; `tokens`: all tokens of its rows;
    `flops`: the arithmetic they need. `loss` and `gradient_norm` may still be in the making: see `numbers`."""

    global_step: int
    step: int
    loss: torch.Tensor
    learning_rate: float
    gradient_norm: torch.Tensor | None
    tokens: int
    seconds: float
    flops: float


def numbers(steps: Sequence[StepFacts]) -> list[tuple[float, float | None]]:
    """Loss and gradient norm of each step as numbers; this waits for the device, once for all of them."""
    if not steps:
        return []
    device = steps[0].loss.device
    norms = [math.nan if facts.gradient_norm is None else facts.gradient_norm for facts in steps]
    columns = ([facts.loss for facts in steps], norms)
    losses, read = torch.stack(
        [torch.stack([torch.as_tensor(value, device=device).float() for value in column]) for column in columns]
    ).tolist()
    known = (None if facts.gradient_norm is None else norm for facts, norm in zip(steps, read, strict=True))
    return list(zip(losses, known, strict=True))


class Observer(Protocol):
    """Who wants to know. `after_step` may return True to end the battle there; answers end at one of `stop_ids`."""

    stop_ids: Collection[int]

    def after_step(self, facts: StepFacts) -> bool: ...
    def validated(self, global_step: int, evaluation: Evaluation) -> None: ...
    def answered(self, global_step: int, asked: Sequence[Question], answers: list[list[int]]) -> None: ...
    def save(self, global_step: int, step: int) -> None: ...


@dataclass(frozen=True)
class StepBatch:
    """The packs of one optimizer step, and what they hold in all."""

    packs: list[Pack]
    labels: int
    tokens: int


class StepLoader:
    """The batches of a plan from step `first` on; it starts there at no cost."""

    def __init__(self, plan: BattlePlan, first: int):
        self.plan, self.first = plan, first

    def __len__(self) -> int:
        return self.plan.total_steps - self.first

    def __iter__(self) -> Iterator[StepBatch]:
        for step in range(self.first, self.plan.total_steps):
            yield self._batch(self.plan.rows_of(step))

    def _batch(self, rows: list[int]) -> StepBatch:
        settings = self.plan.settings
        packs = packs_of(self.plan.sequences_of(rows), settings.pack_tokens, settings.packing)
        return StepBatch(packs, sum(len(pack.labels_N) for pack in packs), sum(len(pack.tokens_T) for pack in packs))


def arguments(folder: Path) -> TrainingArguments:
    """What every battle shares; a battle sets the rest by `adopt`."""
    return TrainingArguments(
        output_dir=str(folder),
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
        num_train_epochs=1,
        eval_strategy="steps",
        save_strategy="steps",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_nan_inf_filter=False,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        bf16=torch.cuda.is_available(),
        use_cpu=not torch.cuda.is_available(),
        eval_steps=1,
        save_steps=1,
        adam_beta2=0.95,
        warmup_steps=10,
    )


class HeroTrainer(Trainer):
    """Keeps one hero in memory and fights battle after battle with it. `global_step` never resets.

    `look_share`: how much of a battle's time may go into evaluations and previews before its end.
    """

    look_share = SHARE

    def __init__(self, model: torch.nn.Module, folder: Path, global_step: int = 0):
        super().__init__(model=model, args=arguments(folder), eval_dataset=[])
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)
        self.global_step = global_step
        self._defaults = {key: getattr(self.args, key) for key in _PER_BATTLE}
        self._plan: BattlePlan | None = None
        self._look_rates: dict[str, float] = {}
        self._shape = model.config.to_dict()
        self.peak_flops = peak_flops(torch.cuda.get_device_name()) if torch.cuda.is_available() else None
        self.add_callback(_Reporter(self))
        self.create_optimizer()
        decays, stays = self.optimizer.param_groups  # norms and biases never decay
        decays["decays"], stays["decays"] = True, False

    def fight(self, plan: BattlePlan, first: int, learning_rate: float, observer: Observer) -> None:
        """Train `plan` from its step `first` to its end, or until the observer says stop."""
        self._plan, self._first, self._observer = plan, first, observer
        self._school = school(plan.settings.school)
        self._looks = Looks(plan, self._look_rates, self.look_share)
        self._adopt(plan, learning_rate)
        try:
            if first == 0 and self._looks.cheap_before:
                self._validate(self.global_step)
            self.train()
        finally:
            self._plan = self._observer = None

    def _validate(self, global_step: int) -> Evaluation:
        """Held-out loss and accuracy of the running battle with the weights as they are."""
        with self._looks.validating():
            with self.compute_loss_context_manager():
                evaluation = evaluate(self.model, self._looks.packs)
            self._observer.validated(global_step, evaluation)
        return evaluation

    def _preview(self, global_step: int, last: bool) -> None:
        """The hero's answers to the prompts of the running battle."""
        asked = self._looks.questions
        with self._looks.previewing(last) as enough:
            with self.compute_loss_context_manager():
                prompts = [question.prompt for question in asked]
                answers = greedy_answers(self.model, prompts, self._observer.stop_ids, most_tokens(asked), enough)
            self._observer.answered(global_step, asked, answers)

    def _adopt(self, plan: BattlePlan, learning_rate: float) -> None:
        """Make arguments, optimizer groups and schedule those of the battle; moments stay."""
        settings = plan.settings
        honoured = self._defaults | settings.trainer
        for key, value in (honoured | {"eval_steps": settings.eval_steps, "save_steps": settings.save_steps}).items():
            setattr(self.args, key, value)
        for group in self.optimizer.param_groups:
            group.update(
                lr=learning_rate,
                initial_lr=learning_rate,
                eps=honoured["adam_epsilon"],
                betas=(honoured["adam_beta1"], honoured["adam_beta2"]),
            )
            group["weight_decay"] = honoured["weight_decay"] if group["decays"] else 0.0
        warmup = max(1, int(honoured["warmup_steps"]))
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min(1.0, (step + 1) / warmup), last_epoch=self.global_step - 1
        )

    # What transformers' loop asks for

    def get_train_dataloader(self) -> StepLoader:
        return StepLoader(self._plan, self._first)

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
        """Forward and backward of every pack of the step; returns the mean loss over its labels, detached."""
        model.train()
        total = torch.zeros((), device=self.args.device)
        for pack in batch.packs:
            pack = pack.to(self.args.device)
            with self.compute_loss_context_manager():
                loss = self._school.loss_sum(model, pack) / batch.labels
            self.accelerator.backward(loss)
            total += loss.detach()
        self._step_loss, self._step_tokens = total, batch.tokens
        lengths = [length for pack in batch.packs for length in pack.lengths]
        self._step_flops = training_flops(self._shape, lengths, batch.labels)
        return total

    def floating_point_ops(self, inputs: StepBatch) -> int:
        return 0

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: torch.Tensor | None = None) -> torch.Tensor | None:
        self._step_norm = grad_norm
        return grad_norm

    def _get_learning_rate(self) -> float:
        self._step_rate = self.lr_scheduler.get_last_lr()[0]
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


_PER_BATTLE = ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "warmup_steps")


class _Reporter(TrainerCallback):
    """Turns the Trainer's callbacks into an Observer's."""

    def __init__(self, trainer: HeroTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        self.trainer._began = state.global_step
        self._clock = time.perf_counter()

    def on_step_end(self, args, state, control, **kwargs):
        trainer = self.trainer
        trainer.global_step = state.global_step
        now = time.perf_counter()
        trainer._looks.trained(now - self._clock, trainer._step_tokens)
        facts = StepFacts(
            state.global_step,
            trainer._first + state.global_step - trainer._began,
            trainer._step_loss,
            trainer._step_rate,
            trainer._step_norm,
            trainer._step_tokens,
            now - self._clock,
            trainer._step_flops,
        )
        if trainer._observer.after_step(facts) and not control.should_training_stop:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False
        self._clock = time.perf_counter()

    def on_evaluate(self, args, state, control, **kwargs):
        self._clock = time.perf_counter()  # a step's seconds are those of training

    on_save = on_evaluate
