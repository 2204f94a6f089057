"""Optimizers by transformers' names, and the realm's AdamW where memory asks for it; they come back from a checkpoint.

It knows a Trainer's arguments and a hero's means, and nothing of battles.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from itertools import chain
from typing import Any

import torch
from transformers import Trainer

from core.errors import UserError
from core.forge.adamw import FIRST, SECOND, RealmAdamW, read_moments
from core.forge.schedule_free import OPTIM as SCHEDULE_FREE
from core.forge.schedule_free import ScheduleFreeAdamW
from core.memory_needs import Means
from core.optimizer_names import ADAMW, DEFAULT, OPTIMIZERS, optimizer_problem

GOES_ON = "training_weights"
_PROJECTORS = {"GaLoreProjector": "galore_torch.galore_projector", "GradientProjector": "apollo_torch.random_projector"}
_PROJECTOR, _TRANSPOSED = "$projector", "$transposed"


@dataclass(frozen=True)
class OptimizerKind:
    """What decides whose state fits whom: the name, its arguments, the matrices it projects."""

    optim: str = DEFAULT
    optim_args: str | None = None
    optim_target_modules: str | tuple[str, ...] | None = None

    @classmethod
    def of(cls, trainer: dict[str, Any]) -> "OptimizerKind":
        """As the keys of `trainer` in config.json say."""
        targets = trainer.get("optim_target_modules")
        targets = tuple(targets) if isinstance(targets, list) else targets
        return cls(trainer.get("optim", DEFAULT), trainer.get("optim_args"), targets)

    @property
    def is_adamw(self) -> bool:
        return self.optim in ADAMW

    @property
    def steps_in_backward(self) -> bool:
        return self.optim == "lomo"

    @property
    def warms_up_itself(self) -> bool:
        return self.optim == "schedule_free_sgd"

    @property
    def is_schedule_free(self) -> bool:
        """Whether it uses the mean of its steps, in place of a rate that falls."""
        return self.optim.startswith("schedule_free")


def is_realms(means: Means) -> bool:
    """Whether AdamW is the realm's own: torch's knows neither bf16 weights nor moments of fewer bits."""
    return means.weights == "bf16" or means.moments != "fp32" or means.release


def make(trainer: Trainer, kind: OptimizerKind, means: Means, seed: int) -> torch.optim.Optimizer:
    """A fresh optimizer for the trainer's model, made by transformers' own machinery. Raises UserError."""
    if problem := optimizer_problem(kind.optim):
        raise UserError(f"trainer.optim = {kind.optim!r}: {problem}")
    args, targets = trainer.args, kind.optim_target_modules
    if OPTIMIZERS[kind.optim].needs_gpu and args.device.type != "cuda":
        raise UserError(f"trainer.optim = {kind.optim!r} needs a GPU, and there is none")
    args.optim, args.optim_args = kind.optim, kind.optim_args
    args.optim_target_modules = list(targets) if isinstance(targets, tuple) else targets
    trainer.optimizer_cls_and_kwargs = None
    if kind.is_adamw and is_realms(means):
        options = {
            "state": means.moments,
            "rounding": means.rounding,
            "seed": seed,
            "compiled": _can_compile(args.device),
        }
        adam = {"lr": args.learning_rate, "betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon}
        trainer.optimizer_cls_and_kwargs = RealmAdamW, adam | options
    if kind.optim == SCHEDULE_FREE:
        betas = args.adam_beta1, args.adam_beta2
        trainer.optimizer_cls_and_kwargs = ScheduleFreeAdamW, {"betas": betas, "eps": args.adam_epsilon}
    for parameter in trainer.model.parameters():
        (parameter._backward_hooks or {}).clear()  # LOMO's, which would go on training
    trainer.optimizer = None
    try:
        optimizer = Trainer.create_optimizer(trainer)
    except (ImportError, ValueError, TypeError) as problem:
        raise UserError(f"trainer.optim = {kind.optim!r} cannot be made: {problem}") from problem
    _mark(optimizer, trainer)
    if kind.is_adamw and not is_realms(means):
        optimizer.register_load_state_dict_pre_hook(_as_torchs)
    if OPTIMIZERS[kind.optim].package:
        optimizer.register_state_dict_post_hook(_portable)
        optimizer.register_load_state_dict_pre_hook(_restored)
        optimizer.register_load_state_dict_post_hook(_settle)
    return optimizer


def _can_compile(device: torch.device) -> bool:
    """Whether an update can be one kernel: on a GPU, where Triton and the C compiler it asks for are there."""
    return device.type == "cuda" and find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))


def _mark(optimizer: torch.optim.Optimizer, trainer: Trainer) -> None:
    """Groups know whether they decay (norms and biases never do) and what may be changed from battle to battle."""
    decaying = set(trainer.get_decay_parameter_names(trainer.model))
    numbers = {id(parameter) for name, parameter in trainer.model.named_parameters() if name in decaying}
    for group in optimizer.param_groups:
        group["decays"] = all(id(parameter) in numbers for parameter in group["params"])


def tune(optimizer: torch.optim.Optimizer, values: dict[str, Any], learning_rate: float) -> None:
    """Give the optimizer a battle's numbers; moments stay."""
    betas = values["adam_beta1"], values["adam_beta2"]
    for group in optimizer.param_groups:
        group.update(lr=learning_rate, initial_lr=learning_rate)
        if isinstance(group.get("betas"), tuple) and len(group["betas"]) == 2:
            group.update(betas=betas)
            if "eps" in group:
                group["eps"] = values["adam_epsilon"]
        elif "beta1" in group and "beta2" in group:
            group.update(beta1=betas[0], beta2=betas[1], eps=values["adam_epsilon"])
        if "weight_decay" in group:
            group["weight_decay"] = values["weight_decay"] if group["decays"] else 0.0
        if "warmup_steps" in group:
            group["warmup_steps"] = values["warmup_steps"]


def _as_torchs(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """The state of any AdamW as torch's takes it: groups keep options of their own, moments of few bits become fp32."""
    groups = [{**own, **saved} for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True)]
    numbers = chain.from_iterable(group["params"] for group in groups)
    parameters = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    shapes = {number: parameter.shape for number, parameter in zip(numbers, parameters, strict=True)}
    moved = {
        number: {"step": saved["step"], **_as_fp32(saved, shapes[number])} for number, saved in state["state"].items()
    }
    return {"state": moved, "param_groups": groups}


def _as_fp32(saved: dict[str, torch.Tensor], shape: torch.Size) -> dict[str, torch.Tensor]:
    moments = zip((FIRST, SECOND), read_moments(saved), strict=True)
    return {name: moment.reshape(-1)[: shape.numel()].view(shape) for name, moment in moments}


def take_over(new: torch.optim.Optimizer, old: torch.optim.Optimizer) -> None:
    """Both are AdamW: `new` goes on with the moments of `old`."""
    own = [{key: value for key, value in group.items() if key != "params"} for group in new.param_groups]
    new.load_state_dict(old.state_dict())
    for group, values in zip(new.param_groups, own, strict=True):
        group.update(values)


# Schedule-free training goes on with other weights than those that are to be used.


@contextmanager
def weights_to_use(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within it the model has the weights that are evaluated and saved; afterwards those that training goes on with.

    They differ for schedule-free optimizers only. Going back and forth by their `eval` and `train` rounds, so the
    weights are kept and put back, and are part of the optimizer's state meanwhile.
    """
    raw = getattr(optimizer, "optimizer", optimizer)
    if isinstance(raw, ScheduleFreeAdamW):
        with raw.average():
            yield
        return
    if not any(group.get("train_mode") for group in raw.param_groups):
        yield
        return
    kept = {parameter: parameter.detach().clone() for parameter in raw.state}
    raw.eval()
    for parameter, weights in kept.items():
        raw.state[parameter][GOES_ON] = weights
    try:
        yield
    finally:
        for parameter in kept:
            parameter.data.copy_(raw.state[parameter].pop(GOES_ON))
        for group in raw.param_groups:
            group["train_mode"] = True


def begin(optimizer: torch.optim.Optimizer) -> None:
    """Training goes on: what knows a mode for it is put into it."""
    raw = getattr(optimizer, "optimizer", optimizer)
    if hasattr(raw, "train"):
        raw.train()


# State of other packages, as a checkpoint can hold it: tensors, numbers, text.


def _portable(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    return _plain(state, set())


def _plain(node: Any, seen: set[int]) -> Any:
    """`node` with projectors as mappings, and no two tensors in the same memory."""
    if isinstance(node, torch.Tensor):
        place = node.untyped_storage().data_ptr()
        shared = place in seen
        seen.add(place)
        return node.clone() if shared else node
    if type(node).__name__ in _PROJECTORS:
        values = {name: _by_rows(value) for name, value in vars(node).items()}
        return {_PROJECTOR: type(node).__name__, **_plain(values, seen)}
    if isinstance(node, dict):
        return {key: _plain(value, seen) for key, value in node.items()}
    return type(node)(_plain(value, seen) for value in node) if isinstance(node, (list, tuple)) else node


def _by_rows(value: Any) -> Any:
    """A matrix that lies in memory by columns as the transpose of one by rows: another order, other last bits."""
    by_columns = isinstance(value, torch.Tensor) and value.dim() == 2 and value.stride(0) < value.stride(1)
    return {_TRANSPOSED: value.t().contiguous()} if by_columns else value


def _restored(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    return _with_projectors(state)


def _with_projectors(node: Any) -> Any:
    if isinstance(node, dict) and _TRANSPOSED in node:
        return node[_TRANSPOSED].t()
    if isinstance(node, dict) and node.get(_PROJECTOR) in _PROJECTORS:
        values = {name: _with_projectors(value) for name, value in node.items()}
        name = values.pop(_PROJECTOR)
        kind = getattr(import_module(_PROJECTORS[name]), name)
        projector = kind.__new__(kind)
        vars(projector).update(values)
        return projector
    return {key: _with_projectors(value) for key, value in node.items()} if isinstance(node, dict) else node


def _settle(optimizer: torch.optim.Optimizer) -> None:
    """After loading: projectors move to their parameters' device, training weights to their parameters."""
    for parameter, state in optimizer.state.items():
        projector = state.get("projector") if isinstance(state, dict) else None
        for name, value in vars(projector).items() if projector else ():
            if isinstance(value, torch.Tensor):
                setattr(projector, name, value.to(parameter.device))
        if isinstance(state, dict) and GOES_ON in state:
            parameter.data.copy_(state.pop(GOES_ON))
            optimizer.param_groups[0]["train_mode"] = True
    if any(group.get("train_mode") for group in optimizer.param_groups):
        for group in optimizer.param_groups:
            group["train_mode"] = True
