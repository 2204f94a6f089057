"""Greedy answers to a few prompts at once, with a key-value cache; it changes neither weights nor random streams.

Legend: B prompts, T tokens of the longest one.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import DynamicCache

THREADS_PAY = 1024  # hidden size from which on threads that share one token's matrices do more than wait for each other


@torch.no_grad()
def greedy_answers(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    stops: Collection[int],
    most: int,
    enough: Callable[[], bool] = lambda: False,
) -> list[list[int]]:
    """For each prompt the most likely token after token, at most `most`, up to and with the first of `stops`.

    `enough` is asked before each token; when it says so, the answers stay as long as they are.
    """
    device = next(model.parameters()).device
    with _answering(model):
        tokens_BT, mask_BT = _left_padded(prompts, device)
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        cache, written = DynamicCache(config=model.config), []
        while len(written) < most and not enough():
            hidden = model.model(
                input_ids=tokens_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            tokens_BT = model.lm_head(hidden).float().argmax(-1, keepdim=True)
            written.append(tokens_BT[:, 0].tolist())
            if all(any(token in stops for token in answer) for answer in zip(*written, strict=True)):
                break
            mask_BT = torch.cat([mask_BT, torch.ones_like(tokens_BT)], dim=1)
            positions_BT = positions_BT[:, -1:] + 1
    return [_until(answer, stops) for answer in zip(*written, strict=True)] if written else [[] for _ in prompts]


@contextmanager
def _answering(model: torch.nn.Module) -> Iterator[None]:
    """The model in evaluation mode, on one thread where it is small (measured: half the time); then as it was."""
    was_training, threads = model.training, torch.get_num_threads()
    model.eval()
    torch.set_num_threads(1 if model.config.hidden_size < THREADS_PAY else threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        model.train(was_training)


def _left_padded(prompts: Sequence[np.ndarray], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask; every prompt ends in the last column, so that answers begin together."""
    longest = max(map(len, prompts))
    tokens_BT = np.zeros((len(prompts), longest), dtype=np.int64)
    mask_BT = np.zeros_like(tokens_BT)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, longest - len(prompt) :] = prompt
        mask_BT[row, longest - len(prompt) :] = 1
    return torch.from_numpy(tokens_BT).to(device), torch.from_numpy(mask_BT).to(device)


def _until(answer: Sequence[int], stops: Collection[int]) -> list[int]:
    """`answer` up to and with its first stop."""
    end = next((place + 1 for place, token in enumerate(answer) if token in stops), len(answer))
    return list(answer[:end])
