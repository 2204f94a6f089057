"""Causal attention inside each sequence of a pack, registered with transformers under the name `ATTENTION`.

Without `lengths` it is plain attention, so a model with this attention also generates and scores single sequences.
A dense block mask would cost T² work and memory; a loop over the sequences costs the sum of their squares.
Legend: B batch, H heads, T tokens, D head width.
"""

import torch
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "realm_packed"


def packed_attention(
    module: torch.nn.Module,
    query_BHTD: torch.Tensor,
    key_BHTD: torch.Tensor,
    value_BHTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    lengths: tuple[int, ...] | None = None,
    **kwargs,
) -> tuple[torch.Tensor, None]:
    """Attention output (B, T, H, D) and no weights, in the signature that transformers calls."""
    if lengths is None:
        return sdpa_attention_forward(
            module, query_BHTD, key_BHTD, value_BHTD, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    parts = zip(*(tensor.split(lengths, dim=2) for tensor in (query_BHTD, key_BHTD, value_BHTD)), strict=True)
    grouped = query_BHTD.shape[1] != key_BHTD.shape[1]
    outputs = [
        F.scaled_dot_product_attention(
            query, key, value, is_causal=True, dropout_p=dropout, scale=scaling, enable_gqa=grouped
        )
        for query, key, value in parts
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
