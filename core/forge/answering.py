"""A learner answers prompts of its quest, with the weights of this moment; it knows neither rewards nor losses.

What is drawn follows from seed, quest, step and weights alone.
"""

import hashlib
from collections.abc import Collection, Sequence

import numpy as np
import torch

from core.battle import BattlePlan
from core.errors import UserError
from core.forge.generate import Answer, batches, drawn_answers, greedy_answers, shared_out
from core.forge.lesson import Learner
from core.forge.out_of_memory import is_out_of_memory


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
    """The hero's answers with the weights of this moment: drawn from `stream`, the likeliest without one."""
    longest = max(map(len, prompts))
    most = max(1, min(most, learner.model.config.max_position_embeddings - longest))
    dice_BT = None if stream is None else torch.rand(len(prompts), most, generator=stream)
    answers: list[Answer] = [[] for _ in prompts]

    def alive() -> bool:
        learner.alive()
        return False

    def ask(places: list[int]) -> list[Answer]:
        chosen = [prompts[place] for place in places]
        if dice_BT is None:
            return greedy_answers(learner.model, chosen, stops, most, alive)
        return drawn_answers(learner.model, chosen, stops, dice_BT[places], temperature, alive)

    try:
        with learner.context():
            for places in batches([len(prompt) + most for prompt in prompts]):
                for place, answer in zip(places, shared_out(ask, places), strict=True):
                    answers[place] = answer
    except (RuntimeError, MemoryError) as problem:
        if is_out_of_memory(problem):
            raise UserError(
                f"an answer of {most} tokens to {longest} does not fit into memory; set max_new_tokens of the school lower"
            ) from problem
        raise
    return answers
