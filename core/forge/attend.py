"""Causal attention inside each sequence of a pack, by the fastest means of the device; it knows no weights, and no transformers.

A dense block mask would cost T² work and memory; attention sequence by sequence costs the sum of their squares. On a CPU
a sequence is one chain of matrix products up to `SHORT` tokens, torch's flash kernel beyond. On CUDA all sequences go
into one variable-length kernel. Legend: H heads, K key heads, T tokens, W head width.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch.nn import functional as F

SHORT = {torch.float32: 640, torch.bfloat16: 1024}  # tokens up to which the products win on a CPU
HALVES = (torch.float16, torch.bfloat16)


def attend(
    query_THW: torch.Tensor, key_TKW: torch.Tensor, value_TKW: torch.Tensor, lengths: tuple[int, ...], scale: float
) -> torch.Tensor:
    """Attention's output (T, H, W); position t sees those before it in its own sequence, and itself."""
    if query_THW.is_cuda and value_TKW.dtype in HALVES and (varlen_attn := _varlen_attention()):
        return _attend_on_cuda(varlen_attn, query_THW, key_TKW, value_TKW, lengths, scale)
    parts = zip(*(tensor.split(lengths) for tensor in (query_THW, key_TKW, value_TKW)), strict=True)
    outputs = [_one_sequence(*(part.transpose(0, 1) for part in three), scale) for three in parts]
    return torch.cat([output.transpose(0, 1) for output in outputs])


def _one_sequence(
    query_HTW: torch.Tensor, key_KTW: torch.Tensor, value_KTW: torch.Tensor, scale: float
) -> torch.Tensor:
    heads, tokens, width = query_HTW.shape
    if not query_HTW.is_cuda and tokens <= SHORT.get(query_HTW.dtype, 0):
        grouped = query_HTW.reshape(len(key_KTW), -1, width)
        return _ShortAttention.apply(grouped, key_KTW, value_KTW, scale).view(heads, tokens, width)
    three = (tensor[None] for tensor in (query_HTW, key_KTW, value_KTW))
    return F.scaled_dot_product_attention(*three, is_causal=True, scale=scale, enable_gqa=heads != len(key_KTW))[0]


@cache
def _varlen_attention() -> Callable[..., torch.Tensor] | None:
    """CUDA's kernel for sequences of many lengths; imported where it is used, for its import takes a second and a half."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # an older torch: CUDA then goes sequence by sequence, too
        return None
    return varlen_attn


def _attend_on_cuda(varlen_attn, query_THW, key_TKW, value_TKW, lengths: tuple[int, ...], scale: float) -> torch.Tensor:
    ends = torch.tensor((0, *lengths), dtype=torch.int32).cumsum(0, dtype=torch.int32)
    ends = ends.pin_memory().to(query_THW.device, non_blocking=True)
    return varlen_attn(
        query_THW,
        key_TKW,
        value_TKW,
        ends,
        ends,
        max(lengths),
        max(lengths),
        scale=scale,
        window_size=(-1, 0),
        enable_gqa=query_THW.shape[1] != key_TKW.shape[1],
    )


class _ShortAttention(torch.autograd.Function):
    """softmax(q·kᵀ·scale)·v of one short sequence, its probabilities kept for the backward pass.

    The heads that share a key head stand below one another: query (K, H/K·T, W), key and value (K, T, W).
    """

    @staticmethod
    def forward(ctx, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float) -> torch.Tensor:
        tokens = key.shape[1]
        unseen_TT = torch.full((tokens, tokens), -torch.inf, dtype=query.dtype).triu_(1)
        unseen = unseen_TT.repeat(query.shape[1] // tokens, 1)
        chances = torch.baddbmm(unseen, query, key.transpose(1, 2), alpha=scale).softmax(-1)
        ctx.save_for_backward(query, key, value, chances)
        ctx.scale = scale
        return torch.bmm(chances, value)

    @staticmethod
    def backward(ctx, grad_output: torch.Tensor):
        query, key, value, chances = ctx.saved_tensors
        grad_value = torch.bmm(chances.transpose(1, 2), grad_output)
        grad_chances = torch.bmm(grad_output, value.transpose(1, 2))
        grad_scores = torch._softmax_backward_data(grad_chances, chances, -1, chances.dtype)
        grad_query = torch.bmm(grad_scores, key).mul_(ctx.scale)
        grad_key = torch.bmm(grad_scores.transpose(1, 2), query).mul_(ctx.scale)
        return grad_query, grad_key, grad_value, None
