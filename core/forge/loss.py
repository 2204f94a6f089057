"""Next-token loss at label positions only; the logits of other positions are never computed. Legend as in packing.

The head runs in chunks, and each chunk's gradient is taken while its logits are there: so they live once, are computed
once, and memory grows neither with the vocabulary nor with the number of labels.
"""

import torch
from torch.nn import functional as F

from core.forge.packing import Pack
from core.forge.qwen3 import EAGER, Compute, kernel, norm, states_at_labels, understands

LOGITS_AT_ONCE = 1 << 26


def hidden_states(model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
    """Final hidden states at the pack's label positions, (N, width)."""
    if understands(model):
        last = model.model.norm
        return norm(states_at_labels(model, pack, compute), last.weight, last.variance_epsilon)
    no_mask = dict.fromkeys(model.config.layer_types)  # else transformers builds one of T² for positions that restart
    output = model.model(
        input_ids=pack.tokens_T[None],
        position_ids=pack.positions_T[None],
        attention_mask=no_mask,
        use_cache=False,
        lengths=pack.lengths,
    )
    return output.last_hidden_state[0, pack.at_N]


def loss_sum(model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
    """Sum of -log p(label) over the pack's label positions, in nats, as float32."""
    states_ND, head_VD = lowered(hidden_states(model, pack, compute), model.lm_head.weight)
    return _HeadLoss.apply(states_ND, head_VD, pack.labels_N, compute.compiled)


def lowered(states_ND: torch.Tensor, head_VD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in the type that autocast multiplies matrices in; as they are where it is off."""
    device = head_VD.device.type
    if not torch.is_autocast_enabled(device):
        return states_ND, head_VD
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in (states_ND, head_VD))


def rows_at_once(head_VD: torch.Tensor) -> int:
    """How many label positions have their logits in memory together."""
    return max(1, LOGITS_AT_ONCE // len(head_VD))


class _HeadLoss(torch.autograd.Function):
    """Summed cross-entropy of `states_ND` · `head_VD`ᵀ against `labels_N`."""

    @staticmethod
    def forward(
        ctx, states_ND: torch.Tensor, head_VD: torch.Tensor, labels_N: torch.Tensor, compiled: bool
    ) -> torch.Tensor:
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        rows = rows_at_once(head_VD)
        total, grads, grad_VD = torch.zeros((), device=states_ND.device), [], None
        for chunk_CD, labels_C in zip(states_ND.split(rows), labels_N.split(rows), strict=True):
            loss, slope_CV = kernel(loss_and_slope, compiled, len(labels_C))(chunk_CD @ head_VD.T, labels_C)
            total += loss
            if wanted:
                grads.append(slope_CV @ head_VD)
                grad_VD = slope_CV.T @ chunk_CD if grad_VD is None else grad_VD.addmm_(slope_CV.T, chunk_CD)
            del slope_CV  # else it would live beside the next chunk's logits
        if wanted:
            ctx.save_for_backward(torch.cat(grads), grad_VD)
        return total

    @staticmethod
    def backward(ctx, grad_loss: torch.Tensor):
        grad_ND, grad_VD = ctx.saved_tensors
        return grad_ND * grad_loss, grad_VD.mul_(grad_loss), None, None


def loss_and_slope(logits_CV: torch.Tensor, labels_C: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Summed cross-entropy in float32, and its derivative by the logits in their own type: softmax minus one-hot."""
    chances_CV = F.log_softmax(logits_CV, -1, dtype=torch.float32)
    loss = -chances_CV.gather(1, labels_C[:, None]).sum()
    chances_CV.exp_()
    chances_CV.scatter_add_(1, labels_C[:, None], -torch.ones_like(chances_CV[:, :1]))
    return loss, chances_CV.to(logits_CV.dtype)
