"""transformers' Trainer as most people use it: rows padded to the longest of a pass, in order or grouped by length."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from training.bench.entrants.stopwatch import Stopwatch
from training.bench.entrants.task import IGNORED, Task
from training.bench.material import OPTIMIZER, SEED


def run(task: Task, stopwatch: Stopwatch) -> torch.nn.Module:
    size = task.material.size
    micro = task.options.get("micro", size.micro)
    trainer = Trainer(
        model=AutoModelForCausalLM.from_pretrained(task.material.weights, dtype=torch.float32),
        args=TrainingArguments(
            **shared_arguments(task),
            bf16=task.precision == "bf16",
            gradient_checkpointing=False,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=size.rows // micro,
            train_sampling_strategy=task.options.get("sampling", "sequential"),
        ),
        train_dataset=task.examples(),
        data_collator=pad,
    )
    return measured(trainer, stopwatch)


def shared_arguments(task: Task) -> dict[str, Any]:
    """What every trainer built on transformers is told, so that all of them do the same mathematics."""
    return {
        **OPTIMIZER,
        "output_dir": str(task.material.paths.root / "out"),
        "max_steps": task.steps,
        "learning_rate": task.material.size.learning_rate,
        "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }


def pad(examples: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """One pass: rows filled up on the right."""
    longest = max(len(example["input_ids"]) for example in examples)

    def filled(key: str, filler: int) -> torch.Tensor:
        return torch.tensor([example[key] + [filler] * (longest - len(example[key])) for example in examples])

    mask = torch.arange(longest) < torch.tensor([[len(example["input_ids"])] for example in examples])
    return {"input_ids": filled("input_ids", 0), "labels": filled("labels", IGNORED), "attention_mask": mask.long()}


def measured(trainer: Trainer, stopwatch: Stopwatch) -> torch.nn.Module:
    """Train under the stopwatch; real tokens are counted as the passes are put together."""
    passes: list[int] = []
    collate = trainer.data_collator

    def counting(examples: list) -> dict[str, torch.Tensor]:
        batch = collate(examples)
        passes.append(int(batch["attention_mask"].sum()) if "attention_mask" in batch else batch["input_ids"].numel())
        return batch

    trainer.data_collator = counting
    per_epoch = -(-len(trainer.train_dataset) // trainer.args.per_device_train_batch_size)
    trainer.add_callback(_Steps(stopwatch, passes, per_epoch, trainer.args.gradient_accumulation_steps))
    stopwatch.begin()
    trainer.train()
    return trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)


class _Steps(TrainerCallback):
    """Tells the stopwatch of every optimizer step. The last one of an epoch may have fewer passes."""

    def __init__(self, stopwatch: Stopwatch, passes: list[int], per_epoch: int, accumulated: int):
        self.stopwatch, self.passes, self.per_epoch, self.accumulated = stopwatch, passes, per_epoch, accumulated
        self.done = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        until = min(self.done + self.accumulated, (self.done // self.per_epoch + 1) * self.per_epoch)
        self.stopwatch.step(sum(self.passes[self.done : until]))
        self.done = until
