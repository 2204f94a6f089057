"""How far a student's next-token distributions are from a teacher's; the logits of neither ever live all at once.

The generalised Jensen-Shannon divergence of Agarwal et al. 2024 ("On-Policy Distillation of Language Models", section 3),
with beta the weight of the teacher in the mixture M = beta · teacher + (1 - beta) · student:

    beta · KL(teacher ‖ M) + (1 - beta) · KL(student ‖ M)

Its limits are taken at the ends: beta 0 is forward KL(teacher ‖ student), beta 1 reverse KL(student ‖ teacher).
Legend: N label positions, D and E hidden widths of student and teacher, V vocabulary, C rows of a chunk.
"""

from collections.abc import Iterator
from math import log

import torch
from torch.nn import functional as F

LOGITS_AT_ONCE = 1 << 21  # of a chunk; measured, docs/LOG.md
LEAST_ROWS = 256  # fewer would read a large head again and again


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
    found, same = [], []
    for mine_CD, theirs_CE, _ in _chunks(student_ND, student_VD, teacher_NE, teacher_VE, None):
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
    """The gradient by the logits is taken chunk by chunk while they are there, as in loss.py, and in their own place: four
    numbers a token of the vocabulary and position live at once."""

    @staticmethod
    def forward(ctx, student_ND, student_VD, teacher_NE, teacher_VE, weights_N, beta, temperature):
        wanted = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        found, grads, grad_VD = [], [], None
        for mine_CD, theirs_CE, weight_C in _chunks(student_ND, student_VD, teacher_NE, teacher_VE, weights_N):
            mine_CV = _softened(mine_CD, student_VD, temperature)
            found_C, slope_CV = divergence_and_slope(mine_CV, _softened(theirs_CE, teacher_VE, temperature), beta)
            found.append(found_C)
            if wanted:
                share = 1 / temperature if weight_C is None else weight_C[:, None] / temperature
                slope_CV = slope_CV.mul_(share).to(mine_CD.dtype)
                grads.append(slope_CV @ student_VD)
                grad_VD = slope_CV.T @ mine_CD if grad_VD is None else grad_VD.addmm_(slope_CV.T, mine_CD)
            del mine_CV, slope_CV  # else they would live beside the next chunk's
        if wanted:
            ctx.save_for_backward(torch.cat(grads), grad_VD)
        found_N = torch.cat(found)
        ctx.mark_non_differentiable(found_N)
        return (found_N if weights_N is None else found_N * weights_N).sum(), found_N

    @staticmethod
    def backward(ctx, grad_total, _):
        grad_ND, grad_VD = ctx.saved_tensors
        return grad_ND * grad_total, grad_VD.mul_(grad_total), None, None, None, None, None


def divergence_and_slope(
    student_CV: torch.Tensor, teacher_CV: torch.Tensor, beta: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """`divergence` (C), and its derivative by the student's logits (C, V), of log-probabilities that are used up.

    With D the divergence and p the student's probabilities, dD/dp is (1 - beta) log(p / M) and by a logit p (dD/dp - E_p dD/dp);
    at the ends p - teacher for beta 0, and for beta 1 the same with M the teacher.
    """
    if beta == 0:
        chances_CV = teacher_CV.exp()
        found_C = teacher_CV.sub_(student_CV).mul_(chances_CV).sum(-1)
        return found_C, student_CV.exp_().sub_(chances_CV)
    if beta == 1:
        return _against(student_CV, teacher_CV)
    mixture_CV = teacher_CV + log(beta)
    torch.logaddexp(mixture_CV, student_CV + log(1 - beta), out=mixture_CV)
    chances_CV = teacher_CV.exp()
    found_C = teacher_CV.sub_(mixture_CV).mul_(chances_CV).sum(-1).mul_(beta)
    del chances_CV
    own_C, slope_CV = _against(student_CV, mixture_CV)
    return found_C.add_(own_C, alpha=1 - beta), slope_CV.mul_(1 - beta)


def _against(of_CV: torch.Tensor, to_CV: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL(of ‖ to), and p (log(p / to) - KL), both used up."""
    apart_CV = torch.sub(of_CV, to_CV, out=to_CV)
    chances_CV = of_CV.exp_()
    found_C = (chances_CV * apart_CV).sum(-1)
    return found_C, apart_CV.sub_(found_C[:, None]).mul_(chances_CV)


def _softened(states_CD: torch.Tensor, head_VD: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log-probabilities (C, V), float32."""
    logits_CV = (states_CD @ head_VD.T).float()
    if temperature != 1:
        logits_CV /= temperature
    logits_CV -= logits_CV.amax(-1, keepdim=True)  # first, and not in one with the sum: a digit more is left of it
    return logits_CV.sub_(logits_CV.exp().sum(-1, keepdim=True).log_())


def _chunks(student_ND, student_VD, teacher_NE, teacher_VE, weights_N) -> Iterator[tuple]:
    """Positions in step; at least one chunk, of none where there are none."""
    rows = rows_compared(max(len(student_VD), len(teacher_VE)))
    count = max(1, -(-len(student_ND) // rows))
    weights = [None] * count if weights_N is None else weights_N.split(rows)
    return zip(student_ND.split(rows), teacher_NE.split(rows), weights, strict=True)


def rows_compared(vocabulary: int) -> int:
    """How many positions have their logits in memory together: fewer than of a loss alone, there are several of each."""
    return max(LEAST_ROWS, LOGITS_AT_ONCE // vocabulary)
