"""The optimizers of transformers by name: what each needs installed, which `optim_args` act, and why some are refused.

It imports none of them. Names are those of transformers' OptimizerNames; a test compares.
"""

import re
from dataclasses import dataclass, replace
from importlib.util import find_spec

from core.errors import nearest

DEFAULT = "adamw_torch_fused"
ADAMW = ("adamw_torch", "adamw_torch_fused")  # whose moments RealmAdamW takes over, and they its


@dataclass(frozen=True)
class Known:
    """`package`: what must be importable beside torch and transformers; `install`: what pip calls it."""

    package: str = ""
    install: str = ""
    arguments: tuple[str, ...] = ()
    needs_targets: bool = False
    needs_gpu: bool = False
    remark: str = ""
    refused: str = ""


_LAYERWISE = (
    "it steps inside the backward pass and keeps its state where no checkpoint finds it; use {} without _layerwise"
)
_TORCHAO = (
    'its state is a kind of tensor that a checkpoint cannot hold; memory.moments = "8bit" keeps AdamW\'s in 8 bits'
)
_GALORE = Known("galore_torch", "galore-torch", ("rank", "update_proj_gap", "scale", "proj_type"), True)
_APOLLO = Known(
    "apollo_torch", "apollo-torch", ("rank", "proj", "scale_type", "update_proj_gap", "scale", "proj_type"), True
)
_BNB = Known("bitsandbytes", "bitsandbytes")
_ADEMAMIX = Known("bitsandbytes", "bitsandbytes", ("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3"))
_FREE = Known("schedulefree", "schedulefree", ("weight_lr_power", "r"))

OPTIMIZERS: dict[str, Known] = {
    "adamw_torch": Known(),
    "adamw_torch_fused": Known(),
    "adafactor": Known(),
    "sgd": Known(arguments=("momentum", "dampening", "nesterov")),
    "adagrad": Known(arguments=("lr_decay", "eps")),
    "rmsprop": Known(arguments=("momentum", "alpha", "eps", "centered")),
    "adamw_anyprecision": Known(
        "torchdistx",
        "torchdistx",
        ("use_kahan_summation", "momentum_dtype", "variance_dtype", "compensation_buffer_dtype"),
    ),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"), _BNB),
    **dict.fromkeys(("lion_8bit", "lion_32bit", "paged_lion_8bit", "paged_lion_32bit"), _BNB),
    **dict.fromkeys(("ademamix", "ademamix_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit"), _ADEMAMIX),
    **dict.fromkeys(("rmsprop_bnb", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit"), _BNB),
    **dict.fromkeys(("galore_adamw", "galore_adafactor"), _GALORE),
    "galore_adamw_8bit": replace(_GALORE, needs_gpu=True),
    "apollo_adamw": _APOLLO,
    "lomo": Known("lomo_optim", "lomo-optim", remark="a step is one pass; weight_decay and max_grad_norm do not act"),
    "schedule_free_adamw": Known(),  # the realm's own, core/forge/schedule_free.py
    **dict.fromkeys(("schedule_free_radam", "schedule_free_sgd"), _FREE),
    "stable_adamw": Known("optimi", "torch-optimi", ("max_lr",)),
    "galore_adamw_layerwise": Known(refused=_LAYERWISE.format("galore_adamw")),
    "galore_adamw_8bit_layerwise": Known(refused=_LAYERWISE.format("galore_adamw_8bit")),
    "galore_adafactor_layerwise": Known(refused=_LAYERWISE.format("galore_adafactor")),
    "apollo_adamw_layerwise": Known(refused=_LAYERWISE.format("apollo_adamw")),
    "adalomo": Known(refused="it keeps its moments where no checkpoint finds them; use lomo or adafactor"),
    "grokadamw": Known(refused="it keeps its moments where no checkpoint finds them; use adamw_torch_fused"),
    "adamw_torch_8bit": Known(refused=_TORCHAO),
    "adamw_torch_4bit": Known(refused=_TORCHAO),
    "adamw_torch_xla": Known(refused="it is made for TPUs"),
    "adamw_torch_npu_fused": Known(refused="it is made for Ascend NPUs"),
}


def optimizer_problem(name: str) -> str | None:
    """What keeps the optimizer `name` from being used here, with the remedy; None where nothing does."""
    known = OPTIMIZERS.get(name)
    if known is None:
        usable = [other for other, one in OPTIMIZERS.items() if not one.refused]
        return (
            f"no optimizer of transformers has that name{nearest(name, OPTIMIZERS) or '.'} Known: {', '.join(usable)}"
        )
    if known.refused:
        return known.refused
    if known.package and find_spec(known.package) is None:
        return f"the package {known.package} is not installed; `pip install {known.install}` where the realm runs"
    return None


def arguments_problem(name: str, text: str) -> str | None:
    """What is wrong with `text` as `optim_args` of the optimizer `name`; None where nothing is."""
    allowed = OPTIMIZERS[name].arguments if name in OPTIMIZERS else ()
    for part in text.replace(" ", "").split(","):
        key, equals, value = part.partition("=")
        if not equals or not value or not re.fullmatch(r"\w+", key) or "=" in value:
            return f"{part!r} must be NAME=VALUE, several with commas between"
        if key not in allowed:
            choice = f"it takes {', '.join(allowed)}" if allowed else "it takes none"
            return f"{name} has no argument {key!r}{nearest(key, allowed) or ';'} {choice}"
    return None
