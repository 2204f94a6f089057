"""Keeps a step whose loss or gradient is no number from the weights, and clips gradients that spike.

It looks at two numbers a step, on the device where they are: nothing waits for it but a CPU, where waiting costs
nothing. What follows from what it finds is decided elsewhere (guard.py); it knows nothing about battles.

A spike is a logarithm of the gradient norm, or of the loss, more than 6 deviations above its running mean (Kumar et
al., "ZClip", arXiv 2504.02507, with its memory of 0.97 and its 25 steps of warm-up). The gradient is then scaled to
that bound, the mean learns of the bound and not of the spike. Other steps are clipped as ever, bit for bit.
"""

from collections.abc import Iterable
from math import inf, nan

import torch

from core.forge.adamw import RealmAdamW
from core.forge.guard import LOSS_SPIKE, NORM_SPIKE, NOT_FINITE, PASSED_OVER, Record, Spoiled

DEVIATIONS = 6.0
MEMORY, WARM_UP = 0.97, 25
LEAST_DEVIATION = 0.1  # of a logarithm: what is less than 1.8 times the mean is no spike, however calm it was
TINY, EPS = 1e-30, 1e-6  # EPS as in torch's clip_grad_norm_


class StepGuard:
    """One battle's. `running`: its statistics; `record`: what went wrong so far; `flags`: what the last step was."""

    def __init__(self, device: torch.device):
        self.device = device
        self._codes = torch.tensor([float(NORM_SPIKE), float(LOSS_SPIKE)], device=device)
        self.begin("")

    def take_up(self, battle: str, first: int, spoiled: Spoiled | None) -> None:
        """`battle` is fought from its step `first` on; after going back for what was `spoiled`, if it was."""
        if first == 0 or self.record.battle != battle:
            self.begin(battle)
        if spoiled:
            self.record = Record.after(battle, spoiled)

    def begin(self, battle: str) -> None:
        """Another battle, other numbers."""
        self.record = Record(battle)
        self.running = torch.zeros(3, 2, device=self.device)  # mean, variance, count; of log norm and log loss
        self.flags = torch.zeros((), device=self.device)

    def load(self, running: torch.Tensor, record: Record) -> None:
        """Go on as a checkpoint says."""
        self.running, self.record = running.to(self.device, copy=True), record

    def pass_over(self) -> torch.Tensor:
        """A step is not trained; its loss, which is unknown."""
        self.flags = torch.full((), float(PASSED_OVER), device=self.device)
        return torch.full((), nan, device=self.device)

    def skip(self) -> None:
        """There was nothing to train in a step."""
        self.flags = torch.zeros((), device=self.device)

    def bound(self) -> torch.Tensor:
        """The norm above which the next gradient is a spike; inf as long as too little is known."""
        mean, variance, count = self.running[:, 0]
        return torch.where(count >= WARM_UP, (mean + _margin(variance)).exp(), inf)

    @torch.no_grad()
    def look(self, loss: torch.Tensor, norm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Take in a step's loss and gradient norm: whether one is no number, and the norm's bound if it is a spike."""
        values = torch.stack((norm.to(self.device).float(), loss.float()))
        whole = values.isfinite().all()
        mean, variance, count = self.running
        logs, limits = values.clamp_min(TINY).log(), mean + _margin(variance)
        spikes = (logs > limits) & (count >= WARM_UP)
        change = torch.where(spikes, limits, logs) - mean
        share = (1 / (count + 1)).clamp_min(1 - MEMORY)
        after = torch.stack((mean + share * change, (1 - share) * (variance + share * change * change), count + 1))
        self.running = torch.where(whole, after, self.running)
        self.flags = torch.where(whole, (spikes * self._codes).sum(), float(NOT_FINITE))
        return ~whole, torch.where(spikes[0], limits[0].exp(), inf)

    @torch.no_grad()
    def clip(
        self,
        parameters: Iterable[torch.nn.Parameter],
        optimizer: torch.optim.Optimizer,
        loss: torch.Tensor,
        max_norm: float,
    ) -> torch.Tensor:
        """Look at the step, clip its gradients, and keep them from `optimizer` if it is bad; the norm before clipping.

        `max_norm`: 0 clips spikes only.
        """
        holders = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in holders]
        norm = torch.nn.utils.get_total_norm(gradients)
        bad, bound = self.look(loss, norm)
        if self._is_left_out(bad, optimizer):
            for parameter in holders:
                parameter.grad = None
            return norm
        scale = (max_norm / (norm + EPS)).clamp(max=1.0) if max_norm > 0 else torch.ones_like(norm)
        scale = torch.where(norm > bound, torch.minimum(scale, bound / (norm + EPS)), scale)
        if norm.is_cuda or scale < 1:
            torch._foreach_mul_(gradients, scale)
        return norm

    def _is_left_out(self, bad: torch.Tensor, optimizer: torch.optim.Optimizer) -> bool:
        """Whether the optimizer must not see the step; one on a GPU that can hears of it there, and nobody waits."""
        if bad.is_cuda and listens(optimizer):
            optimizer.found_inf = bad.float()
            return False
        return bool(bad)


def _margin(variance: torch.Tensor) -> torch.Tensor:
    return DEVIATIONS * variance.sqrt().clamp_min(LEAST_DEVIATION)


def listens(optimizer: torch.optim.Optimizer) -> bool:
    """Whether its step leaves everything as it is where `found_inf` is 1: torch's fused AdamW and the realm's do."""
    fused = isinstance(optimizer, torch.optim.AdamW) and bool(optimizer.defaults.get("fused"))
    return fused or isinstance(optimizer, RealmAdamW)
