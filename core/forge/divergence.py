"""How far a student's next-token distributions are from a teacher's; the logits of neither ever live all at once.

The generalised Jensen-Shannon divergence of Agarwal et al. 2024 ("On-Policy Distillation of Language Models", section 3),
with beta the weight of the teacher in the mixture M = beta · teacher + (1 - beta) · student:

    beta · KL(teacher ‖ M) + (1 - beta) · KL(student ‖ M)

Its limits are taken at the ends: beta 0 is forward KL(teacher ‖ student), beta 1 reverse KL(student ‖ teacher).
Legend: N label positions, D and E hidden widths of student and teacher, V vocabulary, C rows of a chunk.
"""

from math import log

import torch
from torch.nn import functional as F

from core.forge.loss import rows_at_once


def divergence_sum(
    student_ND: torch.Tensor,
    student_VD: torch.Tensor,
    teacher_NE: torch.Tensor,
    teacher_VE: torch.Tensor,
    weights_N: torch.Tensor | None = None,
    beta: float = 0.0,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The weighted sum over all positions, in nats, and each position's divergence (N), which has no gradient.

    Hidden states and heads of both; their logits are divided by `temperature`. Only the student's have a gradient.
    """
    return _Divergence.apply(student_ND, student_VD, teacher_NE, teacher_VE, weights_N, beta, temperature)


def compared(
    student_ND: torch.Tensor,
    student_VD: torch.Tensor,
    teacher_NE: torch.Tensor,
    teacher_VE: torch.Tensor,
    beta: float = 0.0,
    temperature: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each position's divergence (N), and whether both have the same likeliest token there; to look at, not to train by."""
    rows, found, same = min(rows_at_once(student_VD), rows_at_once(teacher_VE)), [], []
    for mine_CD, theirs_CE in zip(student_ND.split(rows), teacher_NE.split(rows), strict=True):
        mine_CV, theirs_CV = (mine_CD @ student_VD.T).float(), (theirs_CE @ teacher_VE.T).float()
        same.append(mine_CV.argmax(-1) == theirs_CV.argmax(-1))
        softened = ((logits_CV / temperature).log_softmax(-1) for logits_CV in (mine_CV, theirs_CV))
        found.append(divergence(*softened, beta))
    return torch.cat(found), torch.cat(same)


def divergence(student_CV: torch.Tensor, teacher_CV: torch.Tensor, beta: float) -> torch.Tensor:
    """Of log-probabilities (C, V), row by row: (C)."""
    if beta == 0:
        return _kl(teacher_CV, student_CV)
    if beta == 1:
        return _kl(student_CV, teacher_CV)
    mixture_CV = torch.logaddexp(teacher_CV + log(beta), student_CV + log(1 - beta))
    return beta * _kl(teacher_CV, mixture_CV) + (1 - beta) * _kl(student_CV, mixture_CV)


def _kl(of_CV: torch.Tensor, to_CV: torch.Tensor) -> torch.Tensor:
    """KL(of ‖ to)."""
    return F.kl_div(to_CV, of_CV, reduction="none", log_target=True).sum(-1)


class _Divergence(torch.autograd.Function):
    """The gradient by the logits is taken chunk by chunk while they are there, as in loss.py."""

    @staticmethod
    def forward(ctx, student_ND, student_VD, teacher_NE, teacher_VE, weights_N, beta, temperature):
        rows = min(rows_at_once(student_VD), rows_at_once(teacher_VE))
        total, found, grads, grad_VD = torch.zeros((), device=student_ND.device), [], [], None
        weights = [None] * max(1, -(-len(student_ND) // rows)) if weights_N is None else weights_N.split(rows)
        for mine_CD, theirs_CE, weight_C in zip(student_ND.split(rows), teacher_NE.split(rows), weights, strict=True):
            teacher_CV = ((theirs_CE @ teacher_VE.T).float() / temperature).log_softmax(-1)
            with torch.enable_grad():
                logits_CV = (mine_CD @ student_VD.T).detach().float().requires_grad_()
                found_C = divergence((logits_CV / temperature).log_softmax(-1), teacher_CV, beta)
                share = (found_C if weight_C is None else found_C * weight_C).sum()
            (slope_CV,) = torch.autograd.grad(share, logits_CV)
            slope_CV = slope_CV.to(mine_CD.dtype)
            total += share.detach()
            found.append(found_C.detach())
            grads.append(slope_CV @ student_VD)
            grad_VD = slope_CV.T @ mine_CD if grad_VD is None else grad_VD.addmm_(slope_CV.T, mine_CD)
            del logits_CV, teacher_CV, slope_CV, found_C, share  # else they would live beside the next chunk's
        ctx.save_for_backward(torch.cat(grads), grad_VD)
        found_N = torch.cat(found)
        ctx.mark_non_differentiable(found_N)
        return total, found_N

    @staticmethod
    def backward(ctx, grad_total, _):
        grad_ND, grad_VD = ctx.saved_tensors
        return grad_ND * grad_total, grad_VD * grad_total, None, None, None, None, None
