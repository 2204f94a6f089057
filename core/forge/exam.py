"""A hero's answers to a skill's problems: greedy, in batches, graded. It changes neither weights nor random streams."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from core.forge.generate import TOKENS_AT_ONCE, Answer, greedy_answers, shared_out
from core.forge.load_hero import load_model
from core.mastery import Score
from core.rendering import Renderer
from core.rows import Conversation, Turns
from core.skills import Problem, skill

ANSWER_TOKENS, MARGIN_TOKENS = 512, 8
LONGEST = 4096  # tokens of a problem with its answer; the longest have some hundred
# What a token costs by one that is trained, measured on a CPU with a micro hero; see docs/LOG.md.
READ_PRICE, SAID_PRICE = 0.4, 1.0
ENOUGH_SHORT = 32  # answers for which a batch of their own pays
FEWEST_AT_ONCE = 48  # a token for fewer answers than this costs as much as one for so many


def examine(model: torch.nn.Module, renderer: Renderer, problems: Sequence[Problem]) -> Score:
    """How many of `problems` are answered right."""
    return Score(sum(graded(model, renderer, problems)), len(problems))


def examine_folder(folder: Path, problems: Sequence[Problem]) -> Score:
    """`examine` for the model in a checkpoint's folder, which is loaded for it."""
    return examine(load_model(folder), Renderer.load(folder, LONGEST), problems)


def graded(
    model: torch.nn.Module, renderer: Renderer, problems: Sequence[Problem], beat: Callable[[], None] = lambda: None
) -> list[bool]:
    """Which of `problems` are answered right: with full marks from the grader of their skill. `beat` is called meanwhile."""
    said = answers(model, renderer, problems, beat)
    return [skill(problem.skill).grade(problem, answer) == 1.0 for problem, answer in zip(problems, said, strict=True)]


def price(renderer: Renderer, problems: Sequence[Problem]) -> float:
    """What asking `problems` costs at most, in tokens of training. Copies of a problem cost nothing to be written out."""
    each = list(dict.fromkeys(problems))
    known = dict(zip(each, zip(*_asked(renderer, each), strict=True), strict=True))
    prompts, wanted = [known[problem][0] for problem in problems], [known[problem][1] for problem in problems]
    read, said = sum(map(len, prompts)), 0
    for batch in _batches(prompts, wanted):
        said += _most([wanted[place] for place in batch]) * max(FEWEST_AT_ONCE, len(batch))
    return READ_PRICE * read + SAID_PRICE * said


def answers(
    model: torch.nn.Module, renderer: Renderer, problems: Sequence[Problem], beat: Callable[[], None] = lambda: None
) -> list[str]:
    """What the model says to each of `problems`, given a little more room than the taught response takes."""
    prompts, wanted = _asked(renderer, problems)
    said = [""] * len(problems)

    def alive() -> bool:
        beat()
        return False

    for batch in _batches(prompts, wanted):
        most = _most([wanted[place] for place in batch])

        def ask(places: list[int], most: int = most) -> list[Answer]:
            return greedy_answers(model, [prompts[place] for place in places], renderer.stop_ids, most, alive)

        tokens = shared_out(ask, batch)
        for place, answer in zip(batch, tokens, strict=True):
            said[place] = renderer.decode(answer, specials=False)
    return said


def _most(wanted: Sequence[int]) -> int:
    """Tokens that answers of these lengths may have."""
    return min(ANSWER_TOKENS, MARGIN_TOKENS + max(wanted))


def _asked(renderer: Renderer, problems: Sequence[Problem]) -> tuple[list[np.ndarray], list[int]]:
    """The tokens of each prompt, as training writes them, and how many its taught response has."""
    rows = [Conversation(_turns(each.prompt, each.response or each.answer)) for each in problems]
    sequences = [rendered.sequences[0] for rendered in renderer.render(rows)]
    firsts = [int(sequence.trained.argmax()) for sequence in sequences]
    prompts = [np.asarray(each.input_ids[:first], np.int64) for each, first in zip(sequences, firsts, strict=True)]
    return prompts, [len(each.input_ids) - first for each, first in zip(sequences, firsts, strict=True)]


def _turns(prompt: str, response: str) -> Turns:
    return {"role": "user", "content": prompt}, {"role": "assistant", "content": response}


def _batches(prompts: Sequence[np.ndarray], wanted: Sequence[int]) -> Iterator[list[int]]:
    """Places of prompts that are answered together: the like-sized ones, as many as there is room for. Enough short answers
    do not wait for long ones."""
    order = sorted(range(len(prompts)), key=lambda place: (wanted[place], len(prompts[place]), place))
    batch: list[int] = []
    longest = 0
    for place in order:
        needs = len(prompts[place]) + _most([wanted[place]])
        is_longer = len(batch) >= ENOUGH_SHORT and _most([wanted[place]]) > 2 * _most([wanted[batch[0]]])
        if batch and (is_longer or max(longest, needs) * (len(batch) + 1) > TOKENS_AT_ONCE):
            yield batch
            batch, longest = [], 0
        batch.append(place)
        longest = max(longest, needs)
    if batch:
        yield batch
