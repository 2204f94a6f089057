"""Which `transformers.TrainingArguments` a user may set under `trainer` in config.json; it imports no transformers.

`HONOURED` keys reach the arguments unchanged. `OWNED` keys belong to the realm, which says what to use instead.
"""

from math import inf
from typing import Any

from core.errors import nearest

HONOURED: dict[str, tuple[type, float, float]] = {  # kind, least value, value it must stay below
    "weight_decay": (float, 0, 1),
    "adam_beta1": (float, 0, 1),
    "adam_beta2": (float, 0, 1),
    "adam_epsilon": (float, 1e-20, 1),
    "max_grad_norm": (float, 0, inf),
    "warmup_steps": (int, 0, inf),
}

OWNED: dict[str, str] = {
    "output_dir": "checkpoints go to models/vault",
    "num_train_epochs": "use training_defaults.epochs or `epochs` in the quest's sidecar",
    "max_steps": "a battle is as long as its quest; use `epochs`",
    "per_device_train_batch_size": "use batch_size",
    "gradient_accumulation_steps": "follows from batch_size and pack_tokens",
    "learning_rate": "use learning_rate",
    "lr_scheduler_type": "constant with warm-up: an endless training has no horizon",
    "eval_steps": "use eval_steps",
    "eval_strategy": "evaluation is always by steps; use eval_steps",
    "save_steps": "use save_steps",
    "save_strategy": "saving is always by steps and minutes; use save_steps and save_minutes",
    "save_total_limit": "use retention",
    "seed": "use seed",
    "data_seed": "use seed",
    "logging_nan_inf_filter": "a loss that is not finite is never hidden",
    "logging_steps": "every step is recorded",
    "report_to": "metrics go to state/metrics.db and the Tavern",
    "resume_from_checkpoint": "the realm resumes by itself",
    "push_to_hub": "nothing leaves this machine",
    "remove_unused_columns": "rows are rendered before the trainer sees them",
    "load_best_model_at_end": "the champion is chosen by evaluation",
    "auto_find_batch_size": "use pack_tokens",
}


def check_trainer_keys(values: dict[str, Any]) -> dict[str, Any]:
    """`values` unchanged if every key is honoured and every value in its bounds; ValueError that names all mistakes."""
    problems = [problem for key, value in values.items() if (problem := _problem(key, value))]
    if problems:
        raise ValueError("; ".join(problems))
    return values


def _problem(key: str, value: Any) -> str | None:
    if key in OWNED:
        return f"trainer.{key} belongs to the realm: {OWNED[key]}"
    if key not in HONOURED:
        return f"trainer.{key} is not honoured{nearest(key, HONOURED)}. Honoured: {', '.join(HONOURED)}"
    kind, least, below = HONOURED[key]
    if isinstance(value, bool) or not isinstance(value, (kind, int)) or not least <= value < below:
        return f"trainer.{key} = {value!r} must be {kind.__name__} ≥ {least}" + (f" < {below}" if below < inf else "")
    return None
