"""Attention of a pack (core/forge/attend.py) under the name `ATTENTION` in transformers, whose own models then use it, also
to generate and to score single sequences. Legend: B batch, H heads, K key heads, T tokens, W head width.
"""

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from core.forge.attend import attend

ATTENTION = "realm_packed"


def packed_attention(
    module: torch.nn.Module,
    query_BHTW: torch.Tensor,
    key_BKTW: torch.Tensor,
    value_BKTW: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    lengths: tuple[int, ...] | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention output (B, T, H, W) and no weights, in the signature that transformers calls; without `lengths`, SDPA's."""
    if lengths is None:
        return sdpa_attention_forward(
            module, query_BHTW, key_BKTW, value_BKTW, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    three = (tensor[0].transpose(0, 1).to(value_BKTW.dtype) for tensor in (query_BHTW, key_BKTW, value_BKTW))
    return attend(*three, lengths, scaling)[None], None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
