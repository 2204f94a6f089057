"""Answers to many prompts at once, the likeliest or drawn, with a key-value cache; it changes neither weights nor random streams.

A prompt that comes more than once is read once. Answers that have ended leave the batch when half of it has.
Legend: B answers, T tokens of the longest prompt, V vocabulary.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import DynamicCache

from core.forge.out_of_memory import is_out_of_memory

THREADS_PAY = 1024  # hidden size from which on threads that share one token's matrices do more than wait for each other
TOKENS_AT_ONCE = 16_384  # of prompts and answers together, which bounds the memory of their keys and values
Choice = Callable[[torch.Tensor, list[int], int], torch.Tensor]  # of logits (B, V), for these answers, at this place
Answer = list[int]


def greedy_answers(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    stops: Collection[int],
    most: int,
    enough: Callable[[], bool] = lambda: False,
) -> list[Answer]:
    """For each prompt the most likely token after token, at most `most`, up to and with the first of `stops`.

    `enough` is asked before each token; when it says so, the answers stay as long as they are.
    """
    return _answers(model, prompts, stops, most, lambda logits_BV, *_: logits_BV.argmax(-1), enough)


def drawn_answers(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    stops: Collection[int],
    dice_BT: torch.Tensor,
    temperature: float,
    enough: Callable[[], bool] = lambda: False,
) -> list[Answer]:
    """As `greedy_answers`, each token drawn by a number of `dice_BT`, from 0 to 1; so many tokens at most."""
    dice_BT = dice_BT.to(next(model.parameters()).device)

    def draw(logits_BV: torch.Tensor, rows: list[int], place: int) -> torch.Tensor:
        return drawn(logits_BV / temperature, dice_BT[rows, place])

    return _answers(model, prompts, stops, dice_BT.shape[1], draw, enough)


def drawn(logits_BV: torch.Tensor, dice_B: torch.Tensor) -> torch.Tensor:
    """Of each row of logits the token at which the sum of probabilities rises above the number given."""
    sums_BV = logits_BV.softmax(-1).cumsum(-1)
    total_B1 = sums_BV[:, -1:]
    wanted_B1 = torch.minimum(dice_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    return torch.searchsorted(sums_BV, wanted_B1, right=True)[:, 0]


def shared_out(ask: Callable[[list[int]], list[Answer]], places: list[int]) -> list[Answer]:
    """`ask(places)`, in two halves where memory runs out."""
    try:
        return ask(places)
    except (RuntimeError, MemoryError) as problem:
        if len(places) == 1 or not is_out_of_memory(problem):
            raise
    half = len(places) // 2
    return shared_out(ask, places[:half]) + shared_out(ask, places[half:])


@torch.no_grad()
def _answers(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    stops: Collection[int],
    most: int,
    choose: Choice,
    enough: Callable[[], bool],
) -> list[Answer]:
    device = next(model.parameters()).device
    answers: list[Answer] = [[] for _ in prompts]
    speaking, ended = list(range(len(prompts))), set()
    with _answering(model):
        different, owner_B = _different(prompts)
        tokens_BT, mask_BT = _left_padded(different, device)
        positions_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
        cache = DynamicCache(config=model.config)
        for place in range(most):
            if enough():
                break
            hidden_BD = model.model(
                input_ids=tokens_BT,
                attention_mask=mask_BT,
                position_ids=positions_BT,
                past_key_values=cache,
                use_cache=True,
            ).last_hidden_state[:, -1]
            positions_BT = positions_BT[:, -1:] + 1
            if place == 0 and len(different) < len(prompts):
                at_B = torch.tensor(owner_B, device=device)
                cache.batch_select_indices(at_B)
                hidden_BD, mask_BT, positions_BT = hidden_BD[at_B], mask_BT[at_B], positions_BT[at_B]
            chosen_B = choose(model.lm_head(hidden_BD).float(), speaking, place)
            for row, token in zip(speaking, chosen_B.tolist(), strict=True):
                if row not in ended:
                    answers[row].append(token)
                    if token in stops:
                        ended.add(row)
            going = [at for at, row in enumerate(speaking) if row not in ended]
            if not going:
                break
            if 2 * len(going) <= len(speaking):
                at_B = torch.tensor(going, device=device)
                cache.batch_select_indices(at_B)
                chosen_B, mask_BT, positions_BT = chosen_B[at_B], mask_BT[at_B], positions_BT[at_B]
                speaking = [speaking[at] for at in going]
            tokens_BT = chosen_B[:, None]
            mask_BT = torch.cat([mask_BT, torch.ones_like(tokens_BT)], dim=1)
    return answers


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


def _different(prompts: Sequence[np.ndarray]) -> tuple[list[np.ndarray], list[int]]:
    """Each prompt once, and which of them stands at each place."""
    known: dict[bytes, int] = {}
    different, owners = [], []
    for prompt in prompts:
        number = known.setdefault(np.asarray(prompt, np.int64).tobytes(), len(different))
        if number == len(different):
            different.append(prompt)
        owners.append(number)
    return different, owners


def _left_padded(prompts: Sequence[np.ndarray], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and attention mask; every prompt ends in the last column, so that answers begin together."""
    longest = max(map(len, prompts))
    tokens_BT = np.zeros((len(prompts), longest), dtype=np.int64)
    mask_BT = np.zeros_like(tokens_BT)
    for row, prompt in enumerate(prompts):
        tokens_BT[row, longest - len(prompt) :] = prompt
        mask_BT[row, longest - len(prompt) :] = 1
    return torch.from_numpy(tokens_BT).to(device), torch.from_numpy(mask_BT).to(device)
