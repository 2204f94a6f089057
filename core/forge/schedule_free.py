"""Schedule-free AdamW: no horizon and no falling rate, for the weights that are used are an average of those it steps to.

Defazio et al., "The road less scheduled", arXiv 2405.15682, algorithm 1. It knows nothing about battles. Of each tensor:

    z   what is stepped, by Adam's rule for the second moment
    x   the mean of all z, weighted by the square of the largest rate so far; evaluated, saved and used
    y   between both, (1 - beta1) z + beta1 x; where gradients are taken, so it is in the model while training

Only y and z are kept, as in the paper's AdamW, and x is reckoned from them: no more memory than AdamW needs. Reckoning x
and back would round, so whoever looks at x by `average` has y kept aside meanwhile, and a checkpoint made there
holds both: evaluating or saving changes nothing, and a run that is taken up is the uninterrupted one, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

OPTIM = "schedule_free_adamw"
ASIDE = "training_weights"


class ScheduleFreeAdamW(torch.optim.Optimizer):
    """As torch's optimizers; the rate may warm up and should then stay, beta1 is above 0 and stays.

    All it remembers is kept by tensor.
    """

    def __init__(
        self,
        params: Iterable,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._advance(group, parameters)
        return loss

    def _advance(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        """One step of the tensors of a group, which all have taken as many steps as the first."""
        states = [self._state(parameter) for parameter in parameters]
        assert ASIDE not in states[0], "the weights to use are in the model; training goes on with others"
        rate, (beta1, beta2) = group["lr"], group["betas"]
        for state in states:
            state["step"] += 1
            state["largest_rate"] = max(state["largest_rate"], rate)
            state["weights"] += state["largest_rate"] ** 2
        first = states[0]
        share = first["largest_rate"] ** 2 / first["weights"] if first["weights"] else 1.0
        z, seconds = [state["z"] for state in states], [state["exp_avg_sq"] for state in states]
        gradients = [parameter.grad for parameter in parameters]
        torch._foreach_mul_(seconds, beta2)
        torch._foreach_addcmul_(seconds, gradients, gradients, 1 - beta2)
        roots = torch._foreach_div(seconds, 1 - beta2 ** first["step"])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        updates = torch._foreach_div(gradients, roots)
        if group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=group["weight_decay"])
        # With z' = z - rate u and x' = (1 - share) x + share z':  y' = (1 - share) y + share z - rate (1 - beta1 (1 - share)) u
        torch._foreach_lerp_(parameters, z, share)
        torch._foreach_add_(parameters, updates, alpha=-rate * (1 - beta1 * (1 - share)))
        torch._foreach_add_(z, updates, alpha=-rate)

    def _state(self, parameter: torch.Tensor) -> dict[str, Any]:
        state = self.state[parameter]
        if not state:
            state.update(step=0, largest_rate=0.0, weights=0.0)
            state.update(z=parameter.detach().clone(), exp_avg_sq=torch.zeros_like(parameter))
        return state

    @torch.no_grad()
    def show_average(self) -> None:
        """Put x into the model, y aside."""
        for group in self.param_groups:
            beta1, _ = group["betas"]
            for parameter in filter(self.state.get, group["params"]):
                state = self.state[parameter]
                state[ASIDE] = parameter.detach().clone()
                parameter.lerp_(state["z"], 1 - 1 / beta1)

    @torch.no_grad()
    def go_on(self) -> None:
        """Put y back into the model."""
        for parameter, state in self.state.items():
            if ASIDE in state:
                parameter.copy_(state.pop(ASIDE))

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What was saved while x was in the model goes on with y."""
        super().load_state_dict(state_dict)
        self.go_on()

    @contextmanager
    def average(self) -> Iterator[None]:
        """Within it the model has x, afterwards y again."""
        self.show_average()
        try:
            yield
        finally:
            self.go_on()
