"""A hero's answers to a skill's problems: greedy, in batches, graded. It changes neither weights nor random streams."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from core.forge import answers as forge
from core.forge.load_hero import load_model
from core.mastery import Score
from core.rendering import Renderer
from core.rows import Conversation, Turns
from core.skills import Problem, skill

ANSWER_TOKENS, MARGIN_TOKENS = 512, 8
LONGEST = 4096  # tokens of a problem with its answer; the longest have some hundred
# What a token costs by one that is trained, measured on a CPU with a micro hero; see docs/LOG.md.
READ_PRICE, SAID_PRICE = 0.4, 1.0
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
    prompts, rooms = [known[problem][0] for problem in problems], [known[problem][1] for problem in problems]
    read, said = sum(map(len, prompts)), 0
    for batch in forge.batches(prompts, rooms):
        said += max(rooms[place] for place in batch) * max(FEWEST_AT_ONCE, len(batch))
    return READ_PRICE * read + SAID_PRICE * said


def answers(
    model: torch.nn.Module, renderer: Renderer, problems: Sequence[Problem], beat: Callable[[], None] = lambda: None
) -> list[str]:
    """What the model says to each of `problems`, given a little more room than the taught response takes."""
    return forge.words(model, renderer, *_asked(renderer, problems), lambda share: beat())


def _asked(renderer: Renderer, problems: Sequence[Problem]) -> tuple[list[np.ndarray], list[int]]:
    """The tokens of each prompt, as training writes them, and how many its answer may have."""
    rows = [Conversation(_turns(each.prompt, each.response or each.answer)) for each in problems]
    prompts, wanted = forge.asked(renderer.render(rows))
    return prompts, [min(ANSWER_TOKENS, MARGIN_TOKENS + length) for length in wanted]


def _turns(prompt: str, response: str) -> Turns:
    return {"role": "user", "content": prompt}, {"role": "assistant", "content": response}
