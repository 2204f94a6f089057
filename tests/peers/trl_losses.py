"""TRL's losses and gradients of given batches, for tests/test_losses_as_trl.py. Runs in .venv-bench, where TRL is.

    python trl_losses.py FOLDER

FOLDER holds hero/ and teacher/ (models with a tokenizer), cases.json and batches.safetensors, and gets results.safetensors:
for each case its loss and the gradients of all parameters.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import (
    DistillationConfig,
    DistillationTrainer,
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    SFTConfig,
    SFTTrainer,
)

COMMON = {"report_to": "none", "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "logging_steps": 1000}


def sft(folder, model, tokenizer, batch, options):
    rows = Dataset.from_list([{"text": "one two three"}])
    trainer = SFTTrainer(model=model, args=_args(SFTConfig, folder), train_dataset=rows, processing_class=tokenizer)
    labels = batch["input_ids"].masked_fill(batch["trained"] == 0, -100)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "labels": labels}
    return trainer.compute_loss(model, inputs)


def dpo(folder, model, tokenizer, batch, options):
    rows = Dataset.from_list([{"prompt": "one", "chosen": " two", "rejected": " three"}])
    args = _args(
        DPOConfig, folder, loss_type=[options["loss_type"]], beta=options["beta"], precompute_ref_log_probs=True
    )
    trainer = DPOTrainer(model=model, args=args, train_dataset=rows, processing_class=tokenizer)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    inputs["completion_mask"] = batch["trained"]
    inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = batch["reference"].sum(-1).chunk(2)
    return trainer.compute_loss(model, inputs)


def grpo(folder, model, tokenizer, batch, options):
    rows, count = Dataset.from_list([{"prompt": "one"}] * 8), len(batch["input_ids"])
    sizes = {
        "per_device_train_batch_size": count,
        "num_generations": count,
        "max_completion_length": options["max_new_tokens"],
    }
    wanted = {name: options[name] for name in ("loss_type", "beta", "epsilon", "epsilon_high")}
    args = _args(GRPOConfig, folder, **sizes, **wanted)
    trainer = GRPOTrainer(
        model=model, args=args, reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=rows, processing_class=tokenizer,
    )  # fmt: skip
    trainer.current_gradient_accumulation_steps = 1
    first = options["prompt_tokens"]
    mask = batch["trained"][:, first:]
    inputs = {
        "prompt_ids": batch["input_ids"][:, :first],
        "prompt_mask": batch["attention_mask"][:, :first],
        "completion_ids": batch["input_ids"][:, first:],
        "completion_mask": mask,
        "advantages": batch["advantage"],
        "old_per_token_logps": batch["old"][:, first:],
        "ref_per_token_logps": batch["reference"][:, first:],
        "num_items_in_batch": mask.sum(),
    }
    return trainer._compute_loss(model, inputs)


def distillation(folder, model, tokenizer, batch, options):
    rows, first = Dataset.from_list([{"prompt": "one"}] * 8), options["prompt_tokens"]
    args = _args(DistillationConfig, folder, beta=options["beta"], temperature=options["temperature"])
    teacher = AutoModelForCausalLM.from_pretrained(folder / "teacher", dtype=torch.float32)
    trainer = DistillationTrainer(
        model=model, teacher_model=teacher, args=args, train_dataset=rows, processing_class=tokenizer
    )
    inputs = {
        "prompt_ids": batch["input_ids"][:, :first],
        "prompt_mask": batch["attention_mask"][:, :first],
        "completion_ids": batch["input_ids"][:, first:],
        "completion_mask": batch["trained"][:, first:],
    }
    loss, _, _ = trainer._compute_loss(model, inputs, None)
    return loss


def _args(kind, folder, **options):
    return kind(output_dir=str(folder / "out"), **COMMON, **options)


def main(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "hero")
    batches, results = load_file(folder / "batches.safetensors"), {}
    for name, case in json.loads((folder / "cases.json").read_text()).items():
        model = AutoModelForCausalLM.from_pretrained(folder / "hero", dtype=torch.float32)
        start = f"{case['batch']}."
        batch = {key.removeprefix(start): tensor for key, tensor in batches.items() if key.startswith(start)}
        loss = {"sft": sft, "dpo": dpo, "grpo": grpo, "distillation": distillation}[case["method"]](
            folder, model, tokenizer, batch, case["options"]
        )
        loss.backward()
        results[f"{name}.loss"] = loss.detach().float().reshape(1)
        for key, parameter in model.named_parameters():
            if parameter.grad is not None:
                results[f"{name}.{key}"] = parameter.grad.clone()
    save_file(results, folder / "results.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
