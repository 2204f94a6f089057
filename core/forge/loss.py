"""Next-token loss at label positions only; the logits of other positions are never computed. Legend as in packing."""

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from core.forge.packing import Pack

LOGITS_AT_ONCE = 1 << 26


def hidden_states(model: torch.nn.Module, pack: Pack) -> torch.Tensor:
    """Final hidden states at the pack's label positions, (N, width)."""
    no_mask = dict.fromkeys(model.config.layer_types)  # else transformers builds one of T² for positions that restart
    output = model.model(
        input_ids=pack.tokens_T[None],
        position_ids=pack.positions_T[None],
        attention_mask=no_mask,
        use_cache=False,
        lengths=pack.lengths,
    )
    return output.last_hidden_state[0, pack.at_N]


def loss_sum(model: torch.nn.Module, pack: Pack) -> torch.Tensor:
    """Sum of -log p(label) over the pack's label positions, in nats, as float32.

    Above `LOGITS_AT_ONCE` logits the head runs in chunks that are computed again in the backward pass, so that memory
    does not grow with the vocabulary times the number of labels.
    """
    states_ND = hidden_states(model, pack)
    vocabulary = model.lm_head.weight.shape[0]
    rows = max(1, LOGITS_AT_ONCE // vocabulary)
    if len(states_ND) <= rows:
        return _head_loss(states_ND, pack.labels_N, model.lm_head)
    chunks = zip(states_ND.split(rows), pack.labels_N.split(rows), strict=True)
    return sum(checkpoint(_head_loss, states, labels, model.lm_head, use_reentrant=False) for states, labels in chunks)


def _head_loss(states_ND: torch.Tensor, labels_N: torch.Tensor, head: torch.nn.Module) -> torch.Tensor:
    return F.cross_entropy(head(states_ND).float(), labels_N, reduction="sum")
