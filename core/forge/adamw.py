"""AdamW for weights in bf16 or fp32, with moments in fp32, bf16 or 8 bits; no update is lost to rounding.

An update far below a bf16 weight's last digit vanishes when it is rounded to the nearest (Zamirai et al., "Revisiting
BFloat16 training", arXiv 2010.06192, section 3). `rounding` says what is done about it:

    stochastic  round up or down by chance, so that the mean is right; no memory
    kahan       keep what rounding leaves (2 bytes a weight). Kahan's compensation holds it as bf16 and then loses
                updates below the remainder's own last digit; here the same two bytes hold the sixteen bits that bf16
                lacks, and the weights are those of an fp32 master, bit for bit
    none        naive; only to show what is lost

Moments below fp32 are always rounded by chance: to the nearest, a moment whose change is less than half a digit would
never decay. Tensors below `SMALL` elements (norms) always have fp32 moments and, unless naive, exact remainders: they
cost nothing, and chance needs many elements to be right in the mean.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from math import sqrt
from typing import Any, NamedTuple

import torch

from core.forge import quantized as q

SMALL = 4096
PIECE = {"cpu": 1 << 15, "cuda": 1 << 22}  # elements worked on at once; multiples of q.BLOCK
PIECE_COMPILED = 1 << 24
STATES, ROUNDINGS = ("fp32", "8bit", "bf16"), ("stochastic", "kahan", "none")
FIRST, SECOND = "exp_avg", "exp_avg_sq"  # as torch's AdamW names them, whose state can be loaded
CODES, SCALES, REMAINDER = "_codes", "_scales", "remainder"
Number = float | torch.Tensor


class Rates(NamedTuple):
    """The numbers of one update: w ← keep · w - size · m / (√v / root + eps)."""

    keep: Number
    size: Number
    beta1: Number
    beta2: Number
    root: Number
    eps: Number


class Stream(NamedTuple):
    """Where in the optimizer's random stream the pieces of one update begin."""

    start: int | torch.Tensor
    key: int | torch.Tensor
    second_key: int | torch.Tensor


class RealmAdamW(torch.optim.Optimizer):
    """AdamW (Loshchilov & Hutter, "Decoupled weight decay regularization", arXiv 1711.05101, algorithm 2).

    Random bits are a function of `seed`, the tensor's place, the element and the tensor's step, so a run that is
    resumed from `state_dict` is the uninterrupted run, bit for bit. `compiled` fuses an update by torch.compile.

    `found_inf`, as in torch's fused AdamW: where it is 1, on the device, weights and moments stay; their step counts.
    """

    found_inf: torch.Tensor | None = None

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        state: str = "fp32",
        rounding: str = "stochastic",
        seed: int = 0,
        compiled: bool = False,
    ):
        """`state`: of the moments, one of `STATES`; `rounding`: of bf16 weights, one of `ROUNDINGS`."""
        assert state in STATES and rounding in ROUNDINGS, (state, rounding)
        self.kind, self.rounding, self.compiled = state, rounding, compiled
        self._advance = torch.compile(advance, dynamic=True, fullgraph=True) if compiled else advance
        self._starts: dict[torch.Tensor, int] = {}
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay, "seed": seed}
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        place = sum(parameter.numel() for parameter in self._starts)
        for parameter in self.param_groups[-1]["params"]:
            assert parameter.dtype in (torch.float32, torch.bfloat16) and parameter.is_contiguous(), parameter.dtype
            self._starts[parameter] = place
            place += parameter.numel()

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, group)
        return loss

    @torch.no_grad()
    def update(self, parameter: torch.Tensor, group: dict[str, Any]) -> None:
        """One step of one tensor of `group` by the gradient that it holds."""
        state = self.state[parameter]
        if not state:
            state.update(self._fresh(parameter))
        state["step"] += 1
        step = int(state["step"])
        rates, keys = _rates(group, step), q.stream_keys(group["seed"], step)
        weight_N, gradient_N, count = parameter.view(-1), parameter.grad.reshape(-1), parameter.numel()
        stay = None if self.found_inf is None else self.found_inf.bool()
        piece = PIECE_COMPILED if self.compiled else PIECE[parameter.device.type]
        for first in range(0, count, piece):
            end = min(first + piece, count)
            kept = {name: _part(name, tensor, first, end) for name, tensor in state.items() if name != "step"}
            numbers = rates, Stream(_wrapped(self._starts[parameter] + first), *keys)
            if self.compiled:
                numbers = _as_inputs(*numbers)
            by_chance = self.rounding == "stochastic"
            self._advance(weight_N[first:end], gradient_N[first:end], kept, *numbers, by_chance, stay)

    def _fresh(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        """The state of a tensor before its first step."""
        small, rows = parameter.numel() < SMALL, -(-parameter.numel() // q.BLOCK)
        shapes: dict[str, tuple[Sequence[int], torch.dtype]] = {}
        if self.kind == "8bit" and not small:
            for name, dtype in ((FIRST, torch.int8), (SECOND, torch.uint8)):
                shapes |= {name + CODES: ((rows, q.BLOCK), dtype), name + SCALES: ((rows, 1), torch.float32)}
        else:
            dtype = torch.bfloat16 if self.kind == "bf16" and not small else torch.float32
            shapes |= {name: (parameter.shape, dtype) for name in (FIRST, SECOND)}
        if parameter.dtype == torch.bfloat16 and (self.rounding == "kahan" or (small and self.rounding != "none")):
            shapes[REMAINDER] = (parameter.shape, torch.int16)
        zeros = {
            name: torch.zeros(shape, dtype=dtype, device=parameter.device) for name, (shape, dtype) in shapes.items()
        }
        return {"step": torch.zeros((), dtype=torch.int64)} | zeros

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but tensors keep their own types. Moments of another kind, torch's AdamW's too, are converted."""
        own_seeds = [group["seed"] for group in self.param_groups]
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        for group, seed in zip(self.param_groups, own_seeds, strict=True):
            group.setdefault("seed", seed)
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for number, parameter in zip(numbers, parameters, strict=True):
            if number in state_dict["state"]:
                self.state[parameter] = self._adopt(parameter, state_dict["state"][number])

    def _adopt(self, parameter: torch.Tensor, saved: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """`saved` as the state of `parameter`: its very numbers where the kind is the same."""
        state = self._fresh(parameter)
        saved = {**saved, "step": torch.as_tensor(saved["step"]).to("cpu", torch.int64, copy=True)}
        if any(name not in state or tensor.dtype != state[name].dtype for name, tensor in saved.items()):
            saved = {name: saved[name] for name in ("step", REMAINDER) if name in saved} | _converted(saved, state)
        return state | {name: tensor.to(state[name].device) for name, tensor in saved.items() if name in state}


def _converted(saved: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The moments of `saved` in the form that they have in `wanted`."""
    half = torch.full((), 0x8000, dtype=torch.int32)  # in place of random bits: to the nearest, or nearly so
    moments: dict[str, torch.Tensor] = {}
    for name, moment, encode in zip(
        (FIRST, SECOND), read_moments(saved), (q.encode_first, q.encode_second), strict=True
    ):
        if name in wanted:
            count = wanted[name].numel()
            moments[name] = moment.reshape(-1)[:count].to(wanted[name].dtype).view(wanted[name].shape)
        else:
            codes, scales = encode(q.blocks(moment.reshape(-1)), half.to(moment.device))
            moments |= {name + CODES: codes, name + SCALES: scales}
    return moments


def _rates(group: dict[str, Any], step: int) -> Rates:
    beta1, beta2 = group["betas"]
    keep, size = 1 - group["lr"] * group["weight_decay"], group["lr"] / (1 - beta1**step)
    return Rates(keep, size, beta1, beta2, sqrt(1 - beta2**step), group["eps"])


def _part(name: str, tensor: torch.Tensor, first: int, end: int) -> torch.Tensor:
    """What belongs to elements `first` to `end`: rows of blocks, or the elements themselves."""
    if name.endswith((CODES, SCALES)):
        return tensor[first // q.BLOCK : -(-end // q.BLOCK)]
    return tensor.view(-1)[first:end]


def _wrapped(number: int) -> int:
    """`number` as an int32 sees it."""
    return (number + (1 << 31)) % (1 << 32) - (1 << 31)


def _as_inputs(rates: Rates, stream: Stream) -> tuple[Rates, Stream]:
    """Numbers that change from step to step as tensors, so that what is compiled takes them as inputs."""
    return (
        Rates(*(torch.tensor(number, dtype=torch.float32) for number in rates)),
        Stream(*(torch.tensor(number, dtype=torch.int32) for number in stream)),
    )


# One update, in pure functions of tensors. Legend: N elements of a piece, B blocks of them.


def advance(
    weight_N: torch.Tensor,
    gradient_N: torch.Tensor,
    kept: dict[str, torch.Tensor],
    rates: Rates,
    stream: Stream,
    stochastic: bool,
    stay: torch.Tensor | None = None,
) -> None:
    """Move weights and moments one step, in place; not where `stay` is true."""
    count = weight_N.numel()
    gradient_N = gradient_N.float()
    exact_N = q.join(weight_N, kept[REMAINDER]) if REMAINDER in kept else weight_N.float()
    first, second = (moment.view(-1)[:count] for moment in read_moments(kept))
    first = rates.beta1 * first + (1 - rates.beta1) * gradient_N
    second = rates.beta2 * second + (1 - rates.beta2) * gradient_N.square()
    exact_N = rates.keep * exact_N - rates.size * (first / (second.sqrt() / rates.root + rates.eps))
    by_chance = stochastic and weight_N.dtype == torch.bfloat16 and REMAINDER not in kept
    coarse = SECOND not in kept or kept[SECOND].dtype == torch.bfloat16
    bits_N = q.random_bits(count, *stream, weight_N.device) if by_chance or coarse else None
    if by_chance:
        _put(weight_N, q.round_stochastically(exact_N, q.low_half(bits_N)), stay)
    elif REMAINDER in kept:
        upper_N, rest_N = q.split(exact_N)
        _put(weight_N, upper_N, stay)
        _put(kept[REMAINDER], rest_N, stay)
    else:
        _put(weight_N, exact_N, stay)
    _write_moments(kept, first, second, bits_N, stay)


def _put(place: torch.Tensor, new: torch.Tensor, stay: torch.Tensor | None) -> None:
    place.copy_(new if stay is None else torch.where(stay, place, new.to(place.dtype)))


def read_moments(kept: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Both moments as float32, in blocks where they are kept so."""
    if FIRST in kept:
        return kept[FIRST].float(), kept[SECOND].float()
    return (
        q.decode_first(kept[FIRST + CODES], kept[FIRST + SCALES]),
        q.decode_second(kept[SECOND + CODES], kept[SECOND + SCALES]),
    )


def _write_moments(
    kept: dict[str, torch.Tensor],
    first_N: torch.Tensor,
    second_N: torch.Tensor,
    bits_N: torch.Tensor | None,
    stay: torch.Tensor | None,
) -> None:
    """Put the moments back, rounded stochastically where they are kept in fewer than 32 bits."""
    if bits_N is None:
        _put(kept[FIRST], first_N, stay)
        _put(kept[SECOND], second_N, stay)
        return
    first_bits_N, second_bits_N = q.high_half(bits_N), q.low_half(q.mix(~bits_N))
    if FIRST in kept:
        _put(kept[FIRST], q.round_stochastically(first_N, first_bits_N), stay)
        _put(kept[SECOND], q.round_stochastically(second_N, second_bits_N), stay)
        return
    first = q.encode_first(q.blocks(first_N), q.blocks(first_bits_N))
    second = q.encode_second(q.blocks(second_N), q.blocks(second_bits_N))
    for name, (codes_B, scales_B) in ((FIRST, first), (SECOND, second)):
        _put(kept[name + CODES], codes_B, stay)
        _put(kept[name + SCALES], scales_B, stay)
