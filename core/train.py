"""HeroTrainer: transformers' Trainer as a resident, one `fight` a quest, model and optimizer staying where they are.

It trains what a BattlePlan says and tells an Observer of every step; it knows nothing about folders, queues or ledgers.
One step of the Trainer is one optimizer step: a batch is the list of packs that its rows fill, normalised together.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from core.battle import BattlePlan
from core.errors import CheckpointError
from core.forge.attention import ATTENTION
from core.forge.evaluate import held_out_loss
from core.forge.packing import Pack, packs_of
from core.forge.schedule_free import OPTIM as SCHEDULE_FREE
from core.forge.schedule_free import ScheduleFreeAdamW, weights_to_use
from core.forge.state import has_state, load_state
from core.quest import Settings
from core.schools import school

LEARNING_RATES = ((10e6, 1e-3), (100e6, 5e-4), (1e9, 1e-5), (float("inf"), 5e-6))
Schedule = Callable[[int], float]  # share of the learning rate in a battle's step, counted from 0


@dataclass(frozen=True)
class StepFacts:
    """One optimizer step as it happened. `loss`: mean nats per trained token; `tokens`: all tokens of its rows."""

    global_step: int
    step: int
    loss: torch.Tensor
    learning_rate: float
    gradient_norm: torch.Tensor | None
    tokens: int
    seconds: float


class Observer(Protocol):
    """Who wants to know. `after_step` may return True to end the battle there."""

    def after_step(self, facts: StepFacts) -> bool: ...
    def validated(self, global_step: int, loss: float) -> None: ...
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


def learning_rate_of(settings: Settings, parameters: int) -> float:
    """The rate that the settings name, else the usual one for a model of this size."""
    return settings.learning_rate or next(rate for size, rate in LEARNING_RATES if parameters < size)


def load_hero(folder: Path, scratch: Path, step: int, optim: str | None = None) -> "HeroTrainer":
    """The hero of a checkpoint, its optimizer and random streams as they were; at step 0 there are none yet."""
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        attn_implementation=ATTENTION,
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=True,
    )
    trainer = HeroTrainer(model, scratch, step, optim)
    if has_state(folder):
        load_state(folder, trainer.optimizer)
    elif step > 0:
        raise CheckpointError(f"{folder.name} has no optimizer state")
    return trainer


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
    """Keeps one hero in memory and fights battle after battle with it. `global_step` never resets."""

    def __init__(self, model: torch.nn.Module, folder: Path, global_step: int = 0, optim: str | None = None):
        super().__init__(model=model, args=arguments(folder), eval_dataset=[])
        self.args.optim = optim or self.args.optim
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)
        self.global_step = global_step
        self._defaults = {key: getattr(self.args, key) for key in _PER_BATTLE}
        self._plan: BattlePlan | None = None
        self.add_callback(_Reporter(self))
        self.create_optimizer()
        decays, stays = self.optimizer.param_groups  # norms and biases never decay
        decays["decays"], stays["decays"] = True, False

    def fight(
        self,
        plan: BattlePlan,
        first: int,
        learning_rate: float,
        observer: Observer,
        schedule: Schedule | None = None,
    ) -> None:
        """Train `plan` from its step `first` to its end, or until the observer says stop.

        Without a `schedule` the learning rate is constant, after a warm-up of fresh moments.
        """
        self._plan, self._first, self._observer = plan, first, observer
        self._school = school(plan.settings.school)
        self._held_out = list(self._held_out_packs(plan))
        self._adopt(plan, learning_rate, schedule)
        try:
            self.train()
        finally:
            self._plan = self._observer = None

    def validation_loss(self) -> float | None:
        """Held-out loss of the running battle with the weights as they are."""
        return self._loss(self._held_out)

    def held_out_loss(self, plan: BattlePlan) -> float | None:
        """Held-out loss of a battle that is not fought now."""
        return self._loss(self._held_out_packs(plan))

    def _loss(self, packs: list[Pack]) -> float | None:
        with self.compute_loss_context_manager(), weights_to_use(self.optimizer):
            return held_out_loss(self.model, packs)

    def _adopt(self, plan: BattlePlan, learning_rate: float, schedule: Schedule | None) -> None:
        """Make arguments, optimizer groups and schedule those of the battle; moments stay, unless it resets them."""
        settings, fresh = plan.settings, plan.settings.optimizer_state == "reset"
        if fresh and self._first == 0:
            self._forget_moments()
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
        warmup, began = max(1, int(honoured["warmup_steps"])), self.global_step - self._first
        # Fresh moments warm up: those of the hero's birth by its global step, those of a battle by the battle's own.
        born = began if fresh or schedule else 0
        share = schedule or (lambda step: min(1.0, (step + 1) / warmup))
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: share(step - born), last_epoch=self.global_step - 1
        )

    def _forget_moments(self) -> None:
        """Moments and counts of steps are kept by tensor; without them the optimizer begins anew, from the weights in use."""
        with weights_to_use(self.optimizer):
            self.optimizer.state.clear()

    def _held_out_packs(self, plan: BattlePlan) -> list[Pack]:
        sequences = plan.sequences_of([int(row) for row in plan.held_out_rows])
        return packs_of(sequences, plan.settings.pack_tokens, plan.settings.packing) if sequences else []

    # What transformers' loop asks for

    @staticmethod
    def get_optimizer_cls_and_kwargs(args: TrainingArguments, model: torch.nn.Module | None = None) -> tuple[Any, dict]:
        if args.optim == SCHEDULE_FREE:
            betas = args.adam_beta1, args.adam_beta2
            return ScheduleFreeAdamW, {"lr": args.learning_rate, "betas": betas, "eps": args.adam_epsilon}
        return Trainer.get_optimizer_cls_and_kwargs(args, model)

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
        loss = self.validation_loss()
        if loss is not None:
            self._observer.validated(self.state.global_step, loss)
        metrics = {} if loss is None else {"eval_loss": loss}
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
        facts = StepFacts(
            state.global_step,
            trainer._first + state.global_step - trainer._began,
            trainer._step_loss,
            trainer._step_rate,
            trainer._step_norm,
            trainer._step_tokens,
            now - self._clock,
        )
        if trainer._observer.after_step(facts) and not control.should_training_stop:
            control.should_training_stop = control.should_save = True
            control.should_evaluate = False
        self._clock = time.perf_counter()
