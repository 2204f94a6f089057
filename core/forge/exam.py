"""A hero's answers to a skill's problems: greedy, in batches, graded. It changes neither weights nor random streams."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from core.forge.generate import greedy_answers
from core.mastery import Score
from core.rendering import Renderer
from core.rows import Conversation, Turns
from core.skills import Problem, skill

TOKENS_AT_ONCE = 16_384  # of prompts and answers together, which bounds the memory of their keys and values
ANSWER_TOKENS, MARGIN_TOKENS = 512, 8


def examine(model: torch.nn.Module, renderer: Renderer, problems: Sequence[Problem]) -> Score:
    """How many of `problems`, all of one skill, are answered right: with full marks from the skill's grader."""
    said = answers(model, renderer, problems)
    grade = skill(problems[0].skill).grade if problems else None
    return Score(sum(grade(*pair) == 1.0 for pair in zip(problems, said, strict=True)), len(problems))


def answers(model: torch.nn.Module, renderer: Renderer, problems: Sequence[Problem]) -> list[str]:
    """What the model says to each of `problems`, given a little more room than the taught response takes."""
    prompts, wanted = _asked(renderer, problems)
    said = [""] * len(problems)
    for batch in _batches(prompts, wanted):
        most = min(ANSWER_TOKENS, MARGIN_TOKENS + max(wanted[place] for place in batch))
        tokens = greedy_answers(model, [prompts[place] for place in batch], renderer.stop_ids, most)
        for place, answer in zip(batch, tokens, strict=True):
            said[place] = renderer.decode(answer, specials=False)
    return said


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
    """Places of prompts that are answered together: the like-sized ones, as many as there is room for."""
    order = sorted(range(len(prompts)), key=lambda place: (wanted[place], len(prompts[place]), place))
    batch: list[int] = []
    longest = 0
    for place in order:
        needs = len(prompts[place]) + min(ANSWER_TOKENS, MARGIN_TOKENS + wanted[place])
        if batch and max(longest, needs) * (len(batch) + 1) > TOKENS_AT_ONCE:
            yield batch
            batch, longest = [], 0
        batch.append(place)
        longest = max(longest, needs)
    if batch:
        yield batch
