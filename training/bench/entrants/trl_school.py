"""TRL's trainer of a school's method, on the same rows as tokens: DPO, GRPO, GKD, and SFT beside surprise weighting."""

import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from trl.experimental.gkd import GKDConfig, GKDTrainer

from core.learning_rate import SHARES
from training.bench.entrants.hugging_face import pad, shared_arguments
from training.bench.entrants.stopwatch import Stopwatch
from training.bench.entrants.task import IGNORED, Task
from training.bench.material import MAX_LENGTH
from training.bench.school_work import read_rows, read_tokens, vowels


class _Counted:
    """Any of TRL's trainers, its real tokens counted as its passes come."""

    tokens = 0
    reference_seconds = 0.0

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], *args: Any, **options: Any) -> Any:
        if "prompt_mask" in inputs:
            self.tokens += int(inputs["prompt_mask"].sum() + inputs["completion_mask"].sum())
        else:  # without padding there is no mask
            self.tokens += int(inputs.get("attention_mask", torch.ones_like(inputs["input_ids"])).sum())
        return super().compute_loss(model, inputs, *args, **options)


class _DPO(_Counted, DPOTrainer):
    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset  # tokens already

    def _precompute_ref_logps(self, *args: Any) -> Dataset:
        began = time.monotonic()
        found = super()._precompute_ref_logps(*args)
        self.reference_seconds = time.monotonic() - began
        return found


class _GRPO(_Counted, GRPOTrainer):
    pass


class _GKD(_Counted, GKDTrainer):
    pass


class _SFT(_Counted, SFTTrainer):
    pass


def run(task: Task) -> dict[str, Any]:
    disable_progress_bars()
    stopwatch = Stopwatch(task.started, 0, task.steps)
    trainer = {"judge": _judge, "champion": _champion, "whisper": _whisper, "oracle": _oracle}[task.options["school"]](
        task
    )
    trainer.add_callback(_Steps(stopwatch, trainer))
    trainer.train()
    return stopwatch.result() | {"reference_seconds": trainer.reference_seconds}


def _judge(task: Task) -> _DPO:
    pairs = []
    for chosen, rejected in read_tokens(Path(task.root)):
        begin = chosen[1].index(True)
        pairs.append(
            {"prompt_ids": chosen[0][:begin], "chosen_ids": chosen[0][begin:], "rejected_ids": rejected[0][begin:]}
        )
    options = {"max_length": MAX_LENGTH, "beta": 0.1, "train_sampling_strategy": "sequential"}
    return _DPO(
        _model(task),
        args=DPOConfig(**_arguments(task), **options),
        train_dataset=Dataset.from_list(pairs),
        processing_class=_words(task),
    )


def _champion(task: Task) -> _GRPO:
    prompts = [[{"role": "user", "content": row["prompt"]}] for row in read_rows(Path(task.root))]
    load = task.options["load"]
    options = {
        "num_generations": load["answers"],
        "max_completion_length": load["answer_tokens"],
        "beta": 0.0,
        "shuffle_dataset": False,
    }

    def reward(completions: list[list[dict[str, str]]], **_: Any) -> list[float]:
        return [vowels(said[0]["content"]) for said in completions]

    return _GRPO(
        _model(task),
        reward,
        args=GRPOConfig(**_arguments(task, load["rows"] * load["answers"]), **options),
        train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
        processing_class=_words(task),
    )


def _whisper(task: Task) -> _GKD:
    teacher = AutoModelForCausalLM.from_pretrained(task.material.paths.models / "teacher", dtype=torch.float32)
    options = {"lmbda": 0.0, "beta": 0.0, "max_length": MAX_LENGTH, "train_sampling_strategy": "sequential"}
    return _GKD(
        _model(task),
        teacher,
        GKDConfig(**_arguments(task), **options),
        data_collator=pad,
        train_dataset=_examples(task),
        processing_class=_words(task),
    )


def _oracle(task: Task) -> _SFT:
    length = None if task.options.get("padding_free") else MAX_LENGTH
    options = {"packing": False, "max_length": length, "train_sampling_strategy": "sequential"}
    return _SFT(
        _model(task),
        SFTConfig(**_arguments(task), **options),
        train_dataset=_examples(task),
        processing_class=_words(task),
    )


def _arguments(task: Task, rows: int | None = None) -> dict[str, Any]:
    """`rows` of a step, `micro` of them a pass; the rest of the options are the trainer's own."""
    own = {key: value for key, value in task.options.items() if key not in ("school", "load", "micro")}
    rows = rows or task.options["load"]["rows"]
    micro = min(task.options["micro"] or rows, rows)
    shared = shared_arguments(task)
    shared["learning_rate"] *= SHARES.get(task.options["school"], 1.0)
    equal = {"bf16": False, "gradient_checkpointing": False}
    return {**shared, **equal, "per_device_train_batch_size": micro, "gradient_accumulation_steps": rows // micro} | own


def _examples(task: Task) -> Dataset:
    rows = [row[0] for row in read_tokens(Path(task.root))]
    return Dataset.from_list(
        [
            {
                "input_ids": ids,
                "labels": [each if learned else IGNORED for each, learned in zip(ids, trained, strict=True)],
            }
            for ids, trained in rows
        ]
    )


def _model(task: Task) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(task.material.weights, dtype=torch.float32)


def _words(task: Task) -> Any:
    return AutoTokenizer.from_pretrained(task.material.weights)


class _Steps(TrainerCallback):
    """Tells the stopwatch when training begins, and of every optimizer step."""

    def __init__(self, stopwatch: Stopwatch, trainer: _Counted):
        self._stopwatch, self._trainer, self._told = stopwatch, trainer, 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._stopwatch.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._stopwatch.step(self._trainer.tokens - self._told)
        self._told = self._trainer.tokens
