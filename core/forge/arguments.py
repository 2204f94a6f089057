"""The TrainingArguments that all battles share; it knows nothing about what a battle or a user sets of them."""

from pathlib import Path

import torch
from transformers import TrainingArguments

PER_BATTLE = ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "warmup_steps")


def arguments(folder: Path) -> TrainingArguments:
    """What every battle shares; a battle sets those of `PER_BATTLE`."""
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
        use_cpu=not torch.cuda.is_available(),
        eval_steps=1,
        save_steps=1 << 30,  # at the end; what is saved before is the observer's to say
        adam_beta2=0.95,
        warmup_steps=10,
    )
