"""Batches as a model takes them: texts are tokenised, tensors moved to its device. It knows nothing of training."""

from collections.abc import Mapping
from typing import Any

import torch

from core.errors import UserError

IGNORED = -100  # a label that no loss counts


def prepared(batch: Mapping[str, Any], tokenizer: Any, device: torch.device) -> dict[str, Any]:
    """The batch as keywords of the model. `text` with `label` becomes what a classifier takes, `text` alone what a language
    model does. Raises UserError."""
    if not isinstance(batch, Mapping):
        raise UserError(f"a batch is {type(batch).__name__}, must be a mapping that model(**batch) takes")
    values = dict(batch)
    if "text" in values:
        values = _tokenised(values, tokenizer)
    return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in values.items()}


def _tokenised(values: dict[str, Any], tokenizer: Any) -> dict[str, Any]:
    if tokenizer is None:
        raise UserError('a batch holds "text", which needs tokenizer=…')
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    texts, label = values.pop("text"), values.pop("label", None)
    texts = [texts] if isinstance(texts, str) else list(texts)
    coded = dict(tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))
    if label is not None:
        coded["labels"] = torch.atleast_1d(torch.as_tensor(label))
    elif "labels" not in values:
        coded["labels"] = coded["input_ids"].masked_fill(coded["attention_mask"] == 0, IGNORED)
    return {**values, **coded}


def loss_of(model: torch.nn.Module, batch: dict[str, Any]) -> torch.Tensor:
    """The loss that the model answers with. Raises UserError where it has none."""
    output = model(**batch)
    loss = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        known = ", ".join(batch)
        raise UserError(
            f"model(**batch) with {known} answered no loss: its output needs `.loss`; are the labels in the batch?"
        )
    return loss.squeeze()
