"""TRL's SFTTrainer: padded, packed or padding-free, on rows that are tokenised already."""

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer, pack_dataset

from training.bench.entrants.hugging_face import measured, shared_arguments
from training.bench.entrants.stopwatch import Stopwatch
from training.bench.entrants.task import Task
from training.bench.material import MAX_LENGTH


def run(task: Task, stopwatch: Stopwatch) -> torch.nn.Module:
    disable_progress_bars()
    size, data = task.material.size, Dataset.from_list(task.examples())
    options = {"packing": False, **task.options}
    micro, passes = size.micro, size.rows // size.micro
    if options["packing"]:  # as many packs a step as make the rows of a step
        packs = max(1, round(len(pack_dataset(data, MAX_LENGTH, "bfd")) / task.steps))
        micro, passes = (1, packs) if options.pop("alone", False) else (packs, 1)
    equal = {"bf16": task.precision == "bf16", "gradient_checkpointing": False} if task.equal else {}
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(task.material.weights, dtype=torch.float32),
        args=SFTConfig(
            **shared_arguments(task),
            **options,
            **equal,
            max_length=None if options.get("padding_free") else MAX_LENGTH,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=passes,
            train_sampling_strategy="sequential",
        ),
        train_dataset=data,
        processing_class=AutoTokenizer.from_pretrained(task.material.weights),
    )
    return measured(trainer, stopwatch)
