"""Which `transformers.TrainingArguments` a user may set under `trainer` in config.json; it imports no transformers.

`HONOURED` keys act as they do in transformers' Trainer. `OWNED` keys belong to the realm, which says what to use
instead. `IRRELEVANT` ones mean nothing here, and why. The three name every argument there is.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Any

from core.errors import nearest
from core.optimizer_names import DEFAULT, OPTIMIZERS, arguments_problem, optimizer_problem


@dataclass(frozen=True)
class Rule:
    """What a value must be: in words, as a test of it, and what the key does; `example` is a value that passes."""

    words: str
    fits: Callable[[Any], bool]
    does: str
    example: Any


def _number(least: float, below: float, does: str, example: float) -> Rule:
    words = f"float ≥ {least}" + (f" < {below}" if below < inf else "")
    return Rule(words, lambda value: type(value) in (int, float) and least <= value < below, does, example)


def _switch(does: str) -> Rule:
    return Rule("true or false", lambda value: isinstance(value, bool), does, True)


def _is_layers(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"every_n_layers"} and _is_count(value["every_n_layers"], 1)


def _is_count(value: Any, least: int) -> bool:
    return type(value) is int and value >= least


def _is_targets(value: Any) -> bool:
    names = value if isinstance(value, list) else [value]
    return bool(names) and all(isinstance(name, str) and name for name in names)


HONOURED: dict[str, Rule] = {
    "weight_decay": _number(0, 1, "decay of matrices at each step; norms and biases never decay", 0.5),
    "adam_beta1": _number(0, 1, "decay of AdamW's mean of gradients", 0.5),
    "adam_beta2": _number(0, 1, "decay of AdamW's mean of squares; the realm's default is 0.95", 0.5),
    "adam_epsilon": _number(1e-20, 1, "what AdamW adds to the root of the mean of squares", 0.5),
    "max_grad_norm": _number(0, inf, "gradients are clipped to this norm; 0 never clips", 0.5),
    "warmup_steps": Rule(
        "int ≥ 0 (a share of all steps has no meaning: an endless training has no last step)",
        lambda value: _is_count(value, 0),
        "steps of the hero's life in which the learning rate rises; the realm's default is 10",
        5,
    ),
    "optim": Rule(
        "the name of an optimizer",
        lambda value: isinstance(value, str),
        "the optimizer, any name of transformers whose state a checkpoint can hold",
        "sgd",
    ),
    "optim_args": Rule(
        "text: NAME=VALUE,…", lambda value: isinstance(value, str), "arguments of that optimizer", "momentum=0.9"
    ),
    "optim_target_modules": Rule(
        "a module's name, a regular expression, a list of names or all-linear",
        _is_targets,
        "the matrices that GaLore and APOLLO project",
        "all-linear",
    ),
    "bf16": _switch("matrices are multiplied in bf16 (autocast), or in fp32; by default as `plan` says"),
    "torch_compile": _switch("whether a battle's step is compiled; by default the forge decides"),
    "activation_checkpointing": _switch(
        "layers are computed again in the backward pass, for memory; by default as `plan` says"
    ),
    "activation_checkpointing_kwargs": Rule(
        '{"every_n_layers": int ≥ 1}', _is_layers, "which layers are computed again", {"every_n_layers": 2}
    ),
    "gradient_checkpointing": _switch("the older name of activation_checkpointing"),
    "gradient_checkpointing_kwargs": Rule(
        '{"every_n_layers": int ≥ 1}', _is_layers, "the older name of activation_checkpointing_kwargs", {"every_n_layers": 2}
    ),
}  # fmt: skip

_SHOWN = "the Tavern and state/metrics.db show every step"
_LOADER = "rows come ready from memory-mapped files"
SCHEDULE = "constant, but for a warm-up and each battle's end (`cooldown_share`): endless training has no horizon"
OWNED: dict[str, str] = {
    "output_dir": "checkpoints go to models/vault",
    "num_train_epochs": "use training_defaults.epochs or `epochs` in the quest's sidecar",
    "max_steps": "a battle is as long as its quest; use `epochs`",
    "per_device_train_batch_size": "use batch_size",
    "gradient_accumulation_steps": "follows from batch_size and pack_tokens",
    "learning_rate": "use learning_rate",
    "lr_scheduler_type": SCHEDULE,
    "lr_scheduler_kwargs": SCHEDULE,
    "eval_steps": "use eval_steps",
    "eval_strategy": "evaluation is always by steps; use eval_steps",
    "eval_delay": "use eval_steps",
    "eval_on_start": "use eval_steps",
    "per_device_eval_batch_size": "held-out rows are packed; use pack_tokens",
    "bf16_full_eval": "an evaluation uses the battle's own numbers; use bf16",
    "fp16": "bf16 is as small and does not overflow; use bf16",
    "fp16_full_eval": "an evaluation uses the battle's own numbers; use bf16",
    "tf32": "use bf16",
    "save_steps": "use save_steps",
    "save_strategy": "saving is always by steps and minutes; use save_steps and save_minutes",
    "save_total_limit": "use retention",
    "save_only_model": "a checkpoint is always whole; otherwise training could not go on exactly",
    "seed": "use seed",
    "data_seed": "use seed",
    "full_determinism": "a battle on the CPU is always repeatable, bit for bit",
    "train_sampling_strategy": "every epoch has its own order, which follows from seed; use packing",
    "dataloader_drop_last": "every row is trained",
    "label_smoothing_factor": "the Scribe's loss is the plain log-likelihood of the answer",
    "neftune_noise_alpha": "its noise is scaled by a row's length, and here rows share a pass",
    "use_liger_kernel": "the forge chooses its kernels",
    "liger_kernel_config": "the forge chooses its kernels",
    "torch_compile_backend": "the forge chooses; use torch_compile",
    "torch_compile_mode": "the forge chooses; use torch_compile",
    "torch_empty_cache_steps": "use memory",
    "auto_find_batch_size": "a pass that is too large for memory is halved by itself",
    "use_cache": "off while training, on in the saved model",
    "use_cpu": "a GPU is used where there is one; hide it with CUDA_VISIBLE_DEVICES",
    "logging_nan_inf_filter": "a loss that is not finite is never hidden",
    "logging_steps": "every step is recorded",
    "logging_strategy": "every step is recorded",
    "logging_first_step": "every step is recorded",
    "include_num_input_tokens_seen": "every step is recorded with its tokens",
    "report_to": "metrics go to state/metrics.db and the Tavern; use sinks for TensorBoard and Trackio",
    "run_name": "a battle has its quest's name",
    "log_level": "logs go to logs/, all of them",
    "disable_tqdm": _SHOWN,
    "resume_from_checkpoint": "the realm resumes by itself",
    "ignore_data_skip": "the realm resumes by itself, at the very step",
    "restore_callback_states_from_checkpoint": "the realm resumes by itself",
    "enable_jit_checkpoint": "SIGTERM always saves at the next step's end",
    "push_to_hub": "nothing leaves this machine",
    "remove_unused_columns": "rows are rendered before the trainer sees them",
    "load_best_model_at_end": "the champion is chosen by evaluation",
    "metric_for_best_model": "the champion is chosen by evaluation",
    "greater_is_better": "the champion is chosen by evaluation",
    "dataloader_num_workers": _LOADER,
    "dataloader_pin_memory": _LOADER,
    "skip_memory_metrics": "use `plan`",
}

_GPUS = "there is one device; several are not supported"
_HUB = "nothing is pushed to a hub"
_METRICS = "an evaluation computes the loss alone"
_FLAGS = "transformers reads it in its example scripts only"
_TRACKIO = "use sinks.trackio"
IRRELEVANT: dict[str, str] = {
    **dict.fromkeys(("average_tokens_across_devices", "log_on_each_node", "log_level_replica", "local_rank"), _GPUS),
    **dict.fromkeys(("save_on_each_node", "accelerator_config", "parallelism_config"), _GPUS),
    **dict.fromkeys(("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers"), _GPUS),
    **dict.fromkeys(("ddp_static_graph", "ddp_backend", "ddp_timeout", "fsdp", "fsdp_config", "deepspeed"), _GPUS),
    **dict.fromkeys(("hub_token", "hub_private_repo", "hub_model_id", "hub_strategy", "hub_always_push"), _HUB),
    "hub_revision": _HUB,
    **dict.fromkeys(("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), _TRACKIO),
    **dict.fromkeys(("prediction_loss_only", "eval_do_concat_batches", "eval_use_gather_object"), _METRICS),
    **dict.fromkeys(("eval_accumulation_steps", "include_for_metrics", "batch_eval_metrics"), _METRICS),
    **dict.fromkeys(("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_in_order"), _LOADER),
    "dataloader_multiprocessing_context": _LOADER,
    "label_names": "the school knows what is learned",
    "length_column_name": "rows are packed by their length in any case",
    "debug": "it looks for overflow in fp16 and at TPUs",
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), _FLAGS),
}


def check_trainer_keys(values: dict[str, Any]) -> dict[str, Any]:
    """`values` unchanged if every key is honoured and every value in its bounds; ValueError that names all mistakes."""
    problems = [problem for key, value in values.items() if (problem := _problem(key, value))]
    problems = problems or [problem for problem in _optimizer_problems(values) if problem]
    if problems:
        raise ValueError("; ".join(problems))
    return values


def _problem(key: str, value: Any) -> str | None:
    if key in OWNED:
        return f"trainer.{key} belongs to the realm: {OWNED[key]}"
    if key in IRRELEVANT:
        return f"trainer.{key} means nothing here: {IRRELEVANT[key]}"
    if key not in HONOURED:
        return f"trainer.{key} is not honoured{nearest(key, HONOURED)}. Honoured: {', '.join(HONOURED)}"
    rule = HONOURED[key]
    return None if rule.fits(value) else f"trainer.{key} = {value!r} must be {rule.words}"


def _optimizer_problems(values: dict[str, Any]) -> list[str | None]:
    """What is wrong with the three keys of the optimizer together."""
    name, text, targets = values.get("optim", DEFAULT), values.get("optim_args"), values.get("optim_target_modules")
    if problem := optimizer_problem(name):
        return [f"trainer.optim = {name!r}: {problem}"]
    needs = OPTIMIZERS[name].needs_targets
    return [
        f"trainer.optim_args = {text!r}: {problem}" if text and (problem := arguments_problem(name, text)) else None,
        f'trainer.optim = {name!r} needs trainer.optim_target_modules, e.g. "all-linear"' if needs and not targets else None,
        f"trainer.optim_target_modules: {name} projects no matrices; it is for GaLore and APOLLO" if targets and not needs else None,
    ]  # fmt: skip


def layers_again(values: dict[str, Any], planned: int) -> int:
    """Every how many layers one is computed again: as `values` of `trainer` say, else as `planned`; 0 is none."""
    kwargs = values.get("activation_checkpointing_kwargs") or values.get("gradient_checkpointing_kwargs") or {}
    switch = values.get("activation_checkpointing", values.get("gradient_checkpointing"))
    if switch is None and kwargs:
        switch = True
    return planned if switch is None else kwargs.get("every_n_layers", 1) if switch else 0
