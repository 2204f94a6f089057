"""Carries turns out on a model and its optimizer: gradients, learning rate, steps, weights. It knows neither dice nor rules."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

import torch

from core.dice.turn import Turn

INTEGERS = {  # what a floating type is bit for bit, and how many bits its fraction has
    torch.float64: (torch.int64, 52),
    torch.float32: (torch.int32, 23),
    torch.bfloat16: (torch.int16, 7),
    torch.float16: (torch.int16, 10),
}
TOUCHED_BITS, ABOVE = 3, 4  # bits of the fraction that a monster turns over; those above them, which it does not reach


class Hand:
    """Of one model and its optimizer. `kept`: the weights as of the last `keep`, by name; `rate_factor`: of the last step."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer):
        self.model, self.optimizer = model, optimizer
        self.kept: dict[str, torch.Tensor] = {}
        self._haunted: int | None = None
        self.rate_factor = 1.0
        self._rates: list[tuple[dict, float | torch.Tensor]] = []

    # Weights

    def haunt(self, seed: int | None) -> None:
        """Lay a monster's touch on the weights until `lift`; None for no monster."""
        self.lift()
        if seed is not None:
            self._turn_bits(seed)
            self._haunted = seed

    def lift(self) -> None:
        """Take the touch off; the weights have the bits that they had before."""
        if self._haunted is not None:
            self._turn_bits(self._haunted)
            self._haunted = None

    @torch.no_grad()
    def _turn_bits(self, seed: int) -> None:
        """Turn over bits of the weights' fractions that follow from the seed; done twice, nothing has happened.

        Bits worth 2^-5, 2^-6 and 2^-7 of the leading one, each by a fair coin. Adding noise and subtracting it again
        would round, and by much where weights have 16 bits.
        """
        streams: dict[torch.device, torch.Generator] = {}
        for parameter in self.model.parameters():
            if not parameter.requires_grad or parameter.dtype not in INTEGERS:
                continue
            device = parameter.device
            if device not in streams:
                streams[device] = torch.Generator(device).manual_seed(seed)
            kind, fraction = INTEGERS[parameter.dtype]
            size = {"dtype": kind, "device": device, "generator": streams[device]}
            bits = torch.randint(0, 1 << TOUCHED_BITS, parameter.shape, **size) << (fraction - ABOVE - TOUCHED_BITS)
            parameter.data.view(kind).bitwise_xor_(bits)

    @torch.no_grad()
    def keep(self) -> None:
        """Copy the weights, over the copy before."""
        for name, parameter in self.model.named_parameters():
            if name in self.kept:
                self.kept[name].copy_(parameter)
            else:
                self.kept[name] = parameter.detach().clone()

    @torch.no_grad()
    def restore(self) -> None:
        """Put the copy back."""
        for name, parameter in self.model.named_parameters():
            parameter.copy_(self.kept[name])

    # Gradients

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """Those that the optimizer trains."""
        return [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @property
    def gradients(self) -> list[torch.Tensor]:
        return [parameter.grad for parameter in self.parameters if parameter.grad is not None]

    def norm(self) -> torch.Tensor:
        """Of all gradients together; 0 where there is none."""
        return torch.nn.utils.get_total_norm(self.gradients)

    def drop(self) -> None:
        """The optimizer finds no gradient, and touches nothing."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def scale(self, factor: float) -> None:
        """Multiply all gradients. By 0 they become 0 whatever they are: infinity times 0 would be no number."""
        gradients = self.gradients
        if not gradients or factor == 1.0:
            return
        if factor == 0.0:
            torch._foreach_zero_(gradients)
        else:
            torch._foreach_mul_(gradients, factor)

    # A step

    def before_step(self, turns: Sequence[Turn], scaled: bool) -> int:
        """Get all ready for the optimizer's step; how often it is to be taken. `scaled`: the losses were, each by its turn.

        Without a turn nothing was rolled. Of several the learning rate's factors count by their mean.
        """
        self.lift()
        self.rate_factor = 1.0
        for turn in turns:
            if turn.restore:
                self.restore()
            elif turn.keep:
                self.keep()
        if turns and (any(turn.restore for turn in turns) or all(turn.discarded for turn in turns)):
            self.drop()
            return 1
        if not scaled:
            for turn in turns:
                self.scale(turn.factor)
        if turns:
            self._raise_rates(fmean(turn.rate_factor for turn in turns))
        return max((turn.steps for turn in turns), default=1)

    def after_step(self) -> None:
        """Learning rates are again what the schedule says."""
        for group, rate in self._rates:
            group["lr"] = rate
        self._rates = []

    @contextmanager
    def step(self, turns: Sequence[Turn], scaled: bool) -> Iterator[int]:
        """`before_step`, and `after_step` whatever happens."""
        try:
            yield self.before_step(turns, scaled)
        finally:
            self.after_step()

    def _raise_rates(self, factor: float) -> None:
        self.rate_factor = factor
        if factor != 1.0:
            self._rates = [(group, group["lr"]) for group in self.optimizer.param_groups]
            for group, rate in self._rates:
                group["lr"] = rate * factor
