"""Qwen3's forward pass over a pack, on the weights of transformers' own module: fewer operations, the same numbers.

What it leaves out beside transformers' is work that nobody needs: the last layer's output where nothing is learned,
masks, and what pads. Its three stretches between attention can be compiled. It knows no loss and no optimizer.
Legend: T tokens of a pack, N label positions, D hidden width, H heads, K key heads, W head width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from core.forge.attend import attend
from core.forge.packing import Pack

Kernel = Callable[..., torch.Tensor | tuple[torch.Tensor, ...]]


@dataclass(frozen=True)
class Compute:
    """How a pass is computed. `compiled`: by torch.compile; `recompute_every`: the first and each n-th layer after it
    are computed again in the backward pass instead of keeping their activations, 0 none."""

    compiled: bool = False
    recompute_every: int = 0


EAGER = Compute()


def autocast(device: str, enabled: bool) -> torch.autocast:
    """Matrices multiplied in bf16. Nothing is cached: a pass reads each weight once, and a cache would hold copies of
    them all until its end, beside the logits."""
    return torch.autocast(device, torch.bfloat16, enabled=enabled, cache_enabled=False)


def understands(model: torch.nn.Module) -> bool:
    """Whether `model` is a Qwen3 without features that would change the numbers; others take transformers' own way."""
    config = model.config
    return (
        config.model_type == "qwen3"
        and config.hidden_act == "silu"
        and not model.model.layers[0].self_attn.attention_dropout
        and set(config.layer_types) == {"full_attention"}
        and not config.attention_bias
    )


def states_at_labels(model: torch.nn.Module, pack: Pack, compute: Compute = EAGER) -> torch.Tensor:
    """The last layer's output before the final norm at the pack's label positions, (N, D)."""
    inner = model.model
    x_TD = inner.embed_tokens(pack.tokens_T)
    cosine_1TW, sine_1TW = inner.rotary_emb(x_TD, pack.positions_T[None])
    angles = cosine_1TW[0, :, None], sine_1TW[0, :, None]
    for number, layer in enumerate(inner.layers):
        at_N = pack.at_N if number == len(inner.layers) - 1 else None
        if compute.recompute_every and number % compute.recompute_every == 0 and torch.is_grad_enabled():
            x_TD = checkpoint(
                _layer, layer, x_TD, angles, pack.lengths, at_N, compute.compiled,
                use_reentrant=False, preserve_rng_state=False,
            )  # fmt: skip
        else:
            x_TD = _layer(layer, x_TD, angles, pack.lengths, at_N, compute.compiled)
    return x_TD


def _layer(
    layer: torch.nn.Module,
    x_TD: torch.Tensor,
    angles: tuple[torch.Tensor, torch.Tensor],
    lengths: tuple[int, ...],
    at_N: torch.Tensor | None,
    compiled: bool,
) -> torch.Tensor:
    """One layer; with `at_N` its output at those positions only."""
    attention, mlp = layer.self_attn, layer.mlp
    three = kernel(before_attention, compiled, len(x_TD))(
        x_TD, layer.input_layernorm.weight, attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight,
        attention.q_norm.weight, attention.k_norm.weight, *angles, layer.input_layernorm.variance_epsilon,
    )  # fmt: skip
    seen_TD = attend(*three, lengths, attention.scaling).flatten(1)
    if at_N is not None:
        x_TD, seen_TD = x_TD[at_N], seen_TD[at_N]
    return kernel(after_attention, compiled, len(x_TD))(
        x_TD, seen_TD, attention.o_proj.weight, layer.post_attention_layernorm.weight, mlp.gate_proj.weight,
        mlp.up_proj.weight, mlp.down_proj.weight, layer.post_attention_layernorm.variance_epsilon,
    )  # fmt: skip


@cache
def _compiled(function: Kernel) -> Kernel:
    return torch.compile(function, dynamic=True, fullgraph=True)


def kernel(function: Kernel, compiled: bool, count: int) -> Kernel:
    """`function` for `count` tokens, or what torch.compile makes of it: one graph for every number of tokens but one."""
    return _compiled(function) if compiled and count > 1 else function


def norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Root mean square norm (Zhang & Sennrich, arXiv 1910.07467), computed in float32 as transformers does."""
    if x.dtype == weight.dtype:
        return F.rms_norm(x, weight.shape, weight, epsilon)
    return F.rms_norm(x.float(), weight.shape, weight, epsilon)  # autocast: float32 weights, x in bf16


def _narrow(x: torch.Tensor) -> torch.Tensor:
    """`x` in autocast's type where autocast is on: once, and not again by each product that reads it."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


def before_attention(
    x_TD: torch.Tensor,
    norm_D: torch.Tensor,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    query_norm_W: torch.Tensor,
    key_norm_W: torch.Tensor,
    cosine_T1W: torch.Tensor,
    sine_T1W: torch.Tensor,
    epsilon: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query (T, H, W), key and value (T, K, W), the first two turned by their positions."""
    normed_TD, width = _narrow(norm(x_TD, norm_D, epsilon)), query_norm_W.shape[0]
    query_THW, key_TKW, value_TKW = (
        F.linear(normed_TD, weight).unflatten(1, (-1, width)) for weight in (query, key, value)
    )
    query_THW = turned(norm(query_THW, query_norm_W, epsilon), cosine_T1W, sine_T1W)
    key_TKW = turned(norm(key_TKW, key_norm_W, epsilon), cosine_T1W, sine_T1W)
    return query_THW.to(value_TKW.dtype), key_TKW.to(value_TKW.dtype), value_TKW


def turned(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding (Su et al., arXiv 2104.09864), halves as in Llama."""
    left, right = x.chunk(2, -1)
    return x * cosine + torch.cat([-right, left], -1) * sine


def after_attention(
    x_TD: torch.Tensor,
    seen_TD: torch.Tensor,
    output: torch.Tensor,
    norm_D: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    epsilon: float,
) -> torch.Tensor:
    """The residual stream after a layer: attention's projection, then the gated MLP (SwiGLU, arXiv 2002.05202)."""
    x_TD = x_TD + F.linear(seen_TD, output)
    normed_TD = _narrow(norm(x_TD, norm_D, epsilon))
    return x_TD + F.linear(F.silu(F.linear(normed_TD, gate)) * F.linear(normed_TD, up), down)
