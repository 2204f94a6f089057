"""The optimizer's step inside the backward pass: a gradient is used and dropped as soon as it is whole.

So about one gradient lives at a time instead of all (Lv et al., "Full parameter fine-tuning for large language models
with limited resources", arXiv 2306.09782, section 3.1, for SGD; here for AdamW). What it costs:

- One backward pass per step. A second pass before `begin` is an error: the weights have moved already.
- Nobody sees all gradients at once. A loss that is no number moves nothing. From the first gradient on that is no number
  nothing moves any more in this step; what was released before it, whose gradients were whole, has moved.
- No clipping by the norm of all gradients, which is known only at the end. Instead a gradient is scaled by
  min(1, max_norm / norm of what was released in this pass, itself included). Nothing is clipped where clipping by the
  whole norm would clip nothing; a spike is damped in the step it comes in; no state needs to be saved. Scaling by the
  last step's norm would let the spike through and damp the step after it.
- A tied embedding's gradient lives from the head's backward pass to the embedding's: to the very end.
- Snapshots are taken between steps only: within a backward pass the weights are a mixture of two steps.
"""

import torch

from core.forge.adamw import RealmAdamW


class GradientRelease:
    """Steps `optimizer` tensor by tensor in backward passes, until `remove`; its `step` then finds nothing to do."""

    def __init__(self, optimizer: RealmAdamW, max_norm: float = 0.0):
        """`max_norm`: see above; 0 never clips."""
        self.optimizer, self.max_norm = optimizer, max_norm
        self._group_of = {
            parameter: number for number, group in enumerate(optimizer.param_groups) for parameter in group["params"]
        }
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(self._release)
            for parameter in self._group_of
            if parameter.requires_grad
        ]
        self.begin()

    def begin(self, bound: torch.Tensor | None = None) -> None:
        """A new step: its one backward pass may follow. `bound`: the norm above which it is a spike, clipped to it."""
        self._released: set[torch.Tensor] = set()
        self._squares: torch.Tensor | None = None
        self._bound, self._spoiled = bound, None

    def mind(self, loss: torch.Tensor) -> None:
        """The loss whose backward pass follows: if it is no number, nothing moves."""
        self._spoiled = loss.detach() * 0

    def norm(self) -> torch.Tensor | None:
        """The norm of all gradients of this step as they were before clipping; None where there was none yet."""
        return None if self._squares is None else self._squares.sqrt()

    def remove(self) -> None:
        """Gradients stay again until somebody calls `optimizer.step`."""
        for hook in self._hooks:
            hook.remove()

    @torch.no_grad()
    def _release(self, parameter: torch.Tensor) -> None:
        assert parameter not in self._released, "a second backward pass in one step; gradient release allows only one"
        self._released.add(parameter)
        square = torch.linalg.vector_norm(parameter.grad, dtype=torch.float32).square()
        if self._squares is None:
            self._squares = square if self._spoiled is None else square + self._spoiled
        else:
            self._squares = self._squares + square
        if not self._is_left_out(~self._squares.isfinite()):
            if (scale := self._scale()) is not None:
                parameter.grad.mul_(scale)
            self.optimizer.update(parameter, self.optimizer.param_groups[self._group_of[parameter]])
        parameter.grad = None

    def _scale(self) -> torch.Tensor | None:
        norm = self._squares.sqrt()
        scale = (self.max_norm / (norm + 1e-6)).clamp(max=1.0) if self.max_norm > 0 else None
        if self._bound is None:
            return scale
        scale = torch.ones_like(norm) if scale is None else scale
        return torch.where(norm > self._bound, torch.minimum(scale, self._bound / (norm + 1e-6)), scale)

    def _is_left_out(self, bad: torch.Tensor) -> bool:
        """Whether nothing is to move; on a GPU the optimizer hears of it there, and nobody waits."""
        if bad.is_cuda:
            self.optimizer.found_inf = bad.float()
            return False
        return bool(bad)
