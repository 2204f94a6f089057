"""Answers to many prompts, the likeliest or drawn, in batches that memory holds. It judges none, and changes neither weights nor
random streams.

What is drawn in a battle follows from seed, quest, step and weights alone.
"""

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import numpy as np
import torch

from core.battle import BattlePlan
from core.errors import UserError
from core.forge.generate import TOKENS_AT_ONCE, Answer, drawn_answers, greedy_answers, shared_out
from core.forge.lesson import Learner
from core.forge.out_of_memory import is_out_of_memory
from core.rendering import Rendered, Renderer

ENOUGH_SHORT = 32  # answers for which a batch of their own pays
Beat = Callable[[float], None]  # told before each token what share of all is done; it may end the work by raising


def asked(rows: Iterable[Rendered]) -> tuple[list[np.ndarray], list[int]]:
    """The tokens that stand before each row's first trained one, and how many come from there on."""
    sequences = [row.sequences[0] for row in rows]
    firsts = [int(sequence.trained.argmax()) for sequence in sequences]
    prompts = [np.asarray(each.input_ids[:first], np.int64) for each, first in zip(sequences, firsts, strict=True)]
    return prompts, [len(each.input_ids) - first for each, first in zip(sequences, firsts, strict=True)]


def answers(
    model: torch.nn.Module,
    prompts: Sequence[np.ndarray],
    rooms: Sequence[int],
    stops: Collection[int],
    beat: Beat = lambda share: None,
    dice_BT: torch.Tensor | None = None,
    temperature: float = 1.0,
) -> list[Answer]:
    """The tokens of what the model says to each of `prompts`, in at least as many as it has room for: the likeliest, or drawn by
    the numbers of `dice_BT`, from 0 to 1."""
    found: list[Answer] = [[] for _ in prompts]
    done = 0
    for batch in batches(prompts, rooms):
        most = max(rooms[place] for place in batch)
        alive = _Alive(beat, done / len(prompts), len(batch) / len(prompts), most)

        def ask(places: list[int], most: int = most, alive: Callable[[], bool] = alive) -> list[Answer]:
            chosen = [prompts[place] for place in places]
            if dice_BT is None:
                return greedy_answers(model, chosen, stops, most, alive)
            return drawn_answers(model, chosen, stops, dice_BT[places, :most], temperature, alive)

        for place, answer in zip(batch, shared_out(ask, batch), strict=True):
            found[place] = answer
        done += len(batch)
    return found


def words(
    model: torch.nn.Module,
    renderer: Renderer,
    prompts: Sequence[np.ndarray],
    rooms: Sequence[int],
    beat: Beat = lambda share: None,
) -> list[str]:
    """The likeliest of `answers` as text."""
    return [
        renderer.decode(answer, specials=False) for answer in answers(model, prompts, rooms, renderer.stop_ids, beat)
    ]


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

    def __init__(self, beat: Beat, before: float, part: float, most: int):
        self._beat, self._before, self._part, self._most = beat, before, part, most
        self._tokens = 0

    def __call__(self) -> bool:
        self._beat(self._before + self._part * min(1.0, self._tokens / self._most))
        self._tokens += 1
        return False


# In a battle


def prompt_of(plan: BattlePlan, row: int) -> np.ndarray:
    """What stands before the first trained token of a row; all of a problem."""
    tokens, trained = plan.prepared.sequences(row)[0]
    return np.asarray(tokens[: int(trained.argmax())] if trained.any() else tokens, np.int64)


def dice(plan: BattlePlan, step: int) -> torch.Generator:
    """The stream that answers in `step` are drawn from."""
    name = repr((plan.settings.seed, plan.quest_sha256, step)).encode()
    return torch.Generator().manual_seed(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) >> 1)


def spoken(prompt: np.ndarray, answer: Answer) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, trained) of a prompt and the hero's answer, of which all is trained."""
    tokens = np.concatenate([prompt, np.asarray(answer, np.int64)])
    return tokens, np.arange(len(tokens)) >= len(prompt)


def said(
    learner: Learner,
    prompts: Sequence[np.ndarray],
    stops: Collection[int],
    most: int,
    stream: torch.Generator | None = None,
    temperature: float = 1.0,
) -> list[Answer]:
    """The hero's answers with the weights of this moment: drawn from `stream`, the likeliest without one. Raises UserError where
    one alone does not fit into memory."""
    longest = max(map(len, prompts))
    most = max(1, min(most, learner.model.config.max_position_embeddings - longest))
    dice_BT = None if stream is None else torch.rand(len(prompts), most, generator=stream)
    rooms = [most] * len(prompts)
    try:
        with learner.context():
            return answers(learner.model, prompts, rooms, stops, lambda share: learner.alive(), dice_BT, temperature)
    except (RuntimeError, MemoryError) as problem:
        if is_out_of_memory(problem):
            raise UserError(
                f"an answer of {most} tokens to {longest} does not fit into memory; set max_new_tokens of the school lower"
            ) from problem
        raise
