"""What an optimizer step tells of itself, and who may listen. It knows nothing about trainers, files or pages."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from core.forge.evaluate import Evaluation
from core.previews import Question


@dataclass(frozen=True)
class Mean:
    """`total` of `count` values, which may still be in the making."""

    total: torch.Tensor | float = 0.0
    count: int = 0

    def of(self, values: torch.Tensor) -> "Mean":
        """These and `values`."""
        return Mean(self.total + values.detach().float().sum(), self.count + values.numel())

    def __float__(self) -> float:
        """This waits for the device."""
        return float(self.total) / self.count


@dataclass(frozen=True)
class StepFacts:
    """One optimizer step as it happened. `loss`: mean nats per trained token; `tokens`: all tokens of its rows;
    `flops`: the arithmetic they need; `flags`: what guard.py calls it; `told`: what the school reports beside the loss;
    `rolls`: what was rolled for it.
    `loss`, `gradient_norm`, `flags` and `told` may still be in the making: see `numbers`."""

    global_step: int
    step: int
    loss: torch.Tensor
    learning_rate: float
    gradient_norm: torch.Tensor | None
    tokens: int
    seconds: float
    flops: float
    flags: torch.Tensor | int = 0
    told: Mapping[str, Mean] = field(default_factory=dict)
    rolls: Sequence[Mapping[str, Any]] = ()


def numbers(steps: Sequence[StepFacts]) -> list[tuple[float, float | None, int]]:
    """Loss, gradient norm and flags of each step as numbers; this waits for the device, once for all of them."""
    if not steps:
        return []
    device = steps[0].loss.device
    norms = [math.nan if facts.gradient_norm is None else facts.gradient_norm for facts in steps]
    columns = ([facts.loss for facts in steps], norms, [facts.flags for facts in steps])
    losses, read, flags = torch.stack(
        [torch.stack([torch.as_tensor(value, device=device).float() for value in column]) for column in columns]
    ).tolist()
    known = (None if facts.gradient_norm is None else norm for facts, norm in zip(steps, read, strict=True))
    return list(zip(losses, known, map(int, flags), strict=True))


class Observer(Protocol):
    """Who wants to know. `after_step` may return True to end the battle there; answers end at one of `stop_ids`,
    None where nobody wants any."""

    stop_ids: Collection[int] | None

    def after_step(self, facts: StepFacts) -> bool: ...
    def validated(self, global_step: int, evaluation: Evaluation) -> None: ...
    def answered(self, global_step: int, asked: Sequence[Question], answers: list[list[int]]) -> None: ...
    def save(self, global_step: int, step: int) -> None: ...
