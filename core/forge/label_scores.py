"""The log-probability of each label, and what else the same logits tell; the logits never live all at once.

For losses that are more than one sum over labels: preferences, rewards, weights. `loss.py` does the sum, for less. What a
label's gradient is worth is known only in the backward pass, so the logits are computed again there, chunk by chunk.
Legend: N label positions, D hidden width, V vocabulary, C rows of a chunk.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from core.forge.loss import hidden_states, lowered, rows_at_once
from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute


@dataclass(frozen=True)
class LabelScores:
    """What a model makes of the labels of a pack, float32 of shape (N), in nats. Only `logps_N` has a gradient.

    `entropy_N`: of the next-token distribution; `runner_up_N`: log-probability of the likeliest token but the label.
    Both are None unless they were asked for.
    """

    logps_N: torch.Tensor
    entropy_N: torch.Tensor | None = None
    runner_up_N: torch.Tensor | None = None


def label_scores(
    model: torch.nn.Module,
    pack: Pack,
    compute: Compute = EAGER,
    temperature: float = 1.0,
    entropy: bool = False,
    runner_up: bool = False,
) -> LabelScores:
    """The scores of the pack's labels, logits being divided by `temperature`."""
    states_ND, head_VD = lowered(hidden_states(model, pack, compute), model.lm_head.weight)
    wanted = entropy, runner_up
    logps_N, entropy_N, runner_up_N = _LabelScores.apply(states_ND, head_VD, pack.labels_N, temperature, wanted)
    return LabelScores(logps_N, entropy_N if entropy else None, runner_up_N if runner_up else None)


class _LabelScores(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states_ND, head_VD, labels_N, temperature, wanted):
        with_entropy, with_runner_up = wanted
        logps, entropies, runners_up, norms = [], [], [], []
        for chunk_CD, labels_C in _chunks(head_VD, states_ND, labels_N):
            logits_CV = (chunk_CD @ head_VD.T).float() / temperature
            norm_C = logits_CV.logsumexp(-1)
            norms.append(norm_C)
            logps.append(logits_CV.gather(1, labels_C[:, None])[:, 0] - norm_C)
            if with_entropy:
                chances_CV = (logits_CV - norm_C[:, None]).exp_()
                entropies.append(norm_C - (chances_CV * logits_CV).sum(-1))
            if with_runner_up:
                logits_CV.scatter_(1, labels_C[:, None], -torch.inf)
                runners_up.append(logits_CV.amax(-1) - norm_C)
        logps_N, entropy_N, runner_up_N, norms_N = (
            torch.cat(parts) if parts else states_ND.new_empty(0, dtype=torch.float32)
            for parts in (logps, entropies, runners_up, norms)
        )
        ctx.save_for_backward(states_ND, head_VD, labels_N, norms_N)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy_N, runner_up_N)
        return logps_N, entropy_N, runner_up_N

    @staticmethod
    def backward(ctx, grad_logps_N, *_):
        states_ND, head_VD, labels_N, norms_N = ctx.saved_tensors
        grads, grad_VD = [], None
        for chunk_CD, labels_C, norm_C, grad_C in _chunks(head_VD, states_ND, labels_N, norms_N, grad_logps_N):
            slope_CV = (chunk_CD @ head_VD.T).float().div_(ctx.temperature).sub_(norm_C[:, None]).exp_()
            grad_C = grad_C / ctx.temperature
            slope_CV.mul_(-grad_C[:, None]).scatter_add_(1, labels_C[:, None], grad_C[:, None])
            slope_CV = slope_CV.to(chunk_CD.dtype)
            grads.append(slope_CV @ head_VD)
            grad_VD = slope_CV.T @ chunk_CD if grad_VD is None else grad_VD.addmm_(slope_CV.T, chunk_CD)
            del slope_CV  # else it would live beside the next chunk's logits
        if grad_VD is None:
            return torch.zeros_like(states_ND), torch.zeros_like(head_VD), None, None, None
        return torch.cat(grads), grad_VD, None, None, None


def _chunks(head_VD: torch.Tensor, *per_label: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """All of `per_label` in step, so many rows at a time as may have their logits in memory."""
    rows = rows_at_once(head_VD)
    return zip(*(tensor.split(rows) for tensor in per_label), strict=True) if len(per_label[0]) else iter(())
