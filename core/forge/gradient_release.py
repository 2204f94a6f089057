"""The optimizer's step inside the backward pass: a gradient is used and dropped as soon as it is whole.

So about one gradient lives at a time instead of all (Lv et al., "Full parameter fine-tuning for large language models
with limited resources", arXiv 2306.09782, section 3.1, for SGD; here for AdamW). What it costs:

- One backward pass per step. A second pass before `begin` is an error: the weights have moved already.
- Nobody sees all gradients at once. What looks at them between backward pass and step (callbacks, a check for numbers
  that are not finite) comes too late; a step that went wrong is undone by going back to the checkpoint.
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

    def begin(self) -> None:
        """A new step: its one backward pass may follow."""
        self._released: set[torch.Tensor] = set()
        self._squares: torch.Tensor | None = None

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
        self._squares = square if self._squares is None else self._squares + square
        if self.max_norm > 0:
            parameter.grad.mul_((self.max_norm / (self._squares.sqrt() + 1e-6)).clamp(max=1.0))
        self.optimizer.update(parameter, self.optimizer.param_groups[self._group_of[parameter]])
        parameter.grad = None
