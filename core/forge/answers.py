"""Greedy answers to many prompts, in batches that memory holds. It judges none, and changes neither weights nor random streams."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch

from core.forge.generate import TOKENS_AT_ONCE, Answer, greedy_answers, shared_out
from core.rendering import Rendered, Renderer

ENOUGH_SHORT = 32  # answers for which a batch of their own pays


def asked(rows: Iterable[Rendered]) -> tuple[list[np.ndarray], list[int]]:
    """The tokens that stand before each row's first trained one, and how many come from there on."""
    sequences = [row.sequences[0] for row in rows]
    firsts = [int(sequence.trained.argmax()) for sequence in sequences]
    prompts = [np.asarray(each.input_ids[:first], np.int64) for each, first in zip(sequences, firsts, strict=True)]
    return prompts, [len(each.input_ids) - first for each, first in zip(sequences, firsts, strict=True)]


def answers(
    model: torch.nn.Module,
    renderer: Renderer,
    prompts: Sequence[np.ndarray],
    rooms: Sequence[int],
    beat: Callable[[float], None] = lambda share: None,
) -> list[str]:
    """What the model says to each of `prompts`, in at least as many tokens as it has room for. `beat` is told before each
    token what share of all is done, and may end the work by raising."""
    said, done = [""] * len(prompts), 0
    for batch in batches(prompts, rooms):
        most = max(rooms[place] for place in batch)
        alive = _Alive(beat, done / len(prompts), len(batch) / len(prompts), most)

        def ask(places: list[int], most: int = most, alive: Callable[[], bool] = alive) -> list[Answer]:
            return greedy_answers(model, [prompts[place] for place in places], renderer.stop_ids, most, alive)

        for place, answer in zip(batch, shared_out(ask, batch), strict=True):
            said[place] = renderer.decode(answer, specials=False)
        done += len(batch)
    return said


def batches(prompts: Sequence[np.ndarray], rooms: Sequence[int]) -> Iterator[list[int]]:
    """Places of prompts that are answered together: the like-sized ones, as many as there is room for. Enough short answers
    do not wait for long ones."""
    order = sorted(range(len(prompts)), key=lambda place: (rooms[place], len(prompts[place]), place))
    batch: list[int] = []
    longest = 0
    for place in order:
        needs = len(prompts[place]) + rooms[place]
        is_longer = len(batch) >= ENOUGH_SHORT and rooms[place] > 2 * rooms[batch[0]]
        if batch and (is_longer or max(longest, needs) * (len(batch) + 1) > TOKENS_AT_ONCE):
            yield batch
            batch, longest = [], 0
        batch.append(place)
        longest = max(longest, needs)
    if batch:
        yield batch


class _Alive:
    """Never enough of a batch's tokens; before each it tells what share of all is done."""

    def __init__(self, beat: Callable[[float], None], before: float, part: float, most: int):
        self._beat, self._before, self._part, self._most = beat, before, part, most
        self._tokens = 0

    def __call__(self) -> bool:
        self._beat(self._before + self._part * min(1.0, self._tokens / self._most))
        self._tokens += 1
        return False
