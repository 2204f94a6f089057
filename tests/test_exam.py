"""Exams: a hero that knows the answers gets them right, one that does not gets none, and nobody is changed by it."""

import hashlib
from dataclasses import replace

import pytest
import torch

from core.forge.exam import answers, examine, price
from core.forge.hatch import micro_hero
from core.forge.loss import loss_sum
from core.forge.packing import packs_of
from core.mastery import Score
from core.paths import BUNDLED_TOKENIZER
from core.rendering import Renderer
from core.rows import Conversation
from core.skills import skill


@pytest.fixture(scope="module")
def renderer():
    return Renderer.load(BUNDLED_TOKENIZER, 256)


@pytest.fixture(scope="module")
def scholar(renderer):
    """A hero that learned six problems of unlike lengths by heart."""
    model = micro_hero(3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    rows = [_row(problem) for problem in known()]
    sequences = [(each.sequences[0].input_ids, each.sequences[0].trained) for each in renderer.render(rows)]
    (pack,) = packs_of(sequences, 4096)
    for _ in range(60):
        optimizer.zero_grad()
        loss_sum(model, pack).div(len(pack.labels_N)).backward()
        optimizer.step()
    return model


def known():
    return skill("REV").sample(1, 5, 3) + skill("REV").sample(6, 5, 3)


def _row(problem):
    turns = {"role": "user", "content": problem.prompt}, {"role": "assistant", "content": problem.response}
    return Conversation(turns)


def test_what_was_learned_is_answered_right_in_whatever_company_and_nothing_else_is(scholar, renderer, monkeypatch):
    together = answers(scholar, renderer, known())
    assert together == [problem.answer for problem in known()]
    assert examine(scholar, renderer, known()) == Score(6, 6)
    monkeypatch.setattr("core.forge.answers.TOKENS_AT_ONCE", 100)
    assert answers(scholar, renderer, known()) == together
    assert examine(scholar, renderer, skill("REV").evaluation(6, 1, 20)).right == 0


def test_an_exam_changes_neither_weights_nor_random_streams(scholar, renderer):
    before = _state(scholar)
    scholar.train()
    examine(scholar, renderer, known())
    assert scholar.training and _state(scholar) == before


def test_nothing_asked_is_nothing_right(scholar, renderer):
    assert examine(scholar, renderer, []) == Score(0, 0)


def test_copies_of_a_problem_are_written_once_to_learn_what_they_cost(renderer):
    class Written(Renderer):
        rows = 0

        def render(self, rows):
            rows = list(rows)
            Written.rows += len(rows)
            return super().render(rows)

    counting = Written.load(BUNDLED_TOKENIZER, 256)
    copies = [replace(problem, id=str(copy)) for copy in range(40) for problem in known()]
    assert price(counting, known() * 40) == price(renderer, copies)
    assert Written.rows == len(known())


def _state(model):
    digest = hashlib.sha256(torch.get_rng_state().numpy().tobytes())
    for tensor in model.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
