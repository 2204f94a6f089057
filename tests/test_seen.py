"""What is seen of a battle while it runs: what looking may cost, which prompts are answered and how, FLOP/s, overfitting."""

import json

import numpy as np
import pytest
import torch

from core.battle import BattlePlan
from core.config import Config
from core.flops import peak_flops
from core.forge.attention import ATTENTION
from core.forge.evaluate import evaluate
from core.forge.generate import greedy_answers
from core.forge.hatch import micro_hero
from core.forge.packing import packs_of
from core.overfitting import OverfittingWatch
from core.paths import BUNDLED_TOKENIZER
from core.prepare import prepare
from core.previews import ANSWER_TOKENS, LONG_PROMPT, Question, preview, questions
from core.quest import Sidecar, freeze
from core.rendering import Renderer
from core.time_budget import TimeBudget


@pytest.fixture(scope="module")
def renderer():
    return Renderer.load(BUNDLED_TOKENIZER, 1024)


@pytest.fixture(scope="module")
def hero():
    model = micro_hero(3)
    model.set_attn_implementation(ATTENTION)
    return model


# What looking costs


@pytest.mark.parametrize("cost", [0.001, 0.02, 0.2])
def test_looking_takes_at_most_a_twentieth_of_the_time_and_uses_it(cost):
    now = [0.0]
    budget, looks = TimeBudget({}, clock=lambda: now[0]), 0
    for _ in range(2000):
        now[0] += 0.01
        budget.train(0.01)
        if budget.affords("validation", 10, guess=2 * cost):
            looks += 1
            with budget.spending("validation", 10):
                now[0] += cost
        assert budget.spent <= 0.05 * now[0] + 1e-9
    assert looks == pytest.approx(min(2000, 0.05 * now[0] / cost), abs=1)


def test_what_one_battle_learned_of_the_costs_the_next_one_knows():
    now, rates = [0.0], {}
    first, second = (TimeBudget(rates, clock=lambda: now[0]) for _ in range(2))
    with first.spending("preview", 8):
        now[0] += 4.0
    second.train(100.0)
    assert not second.affords("preview", 16, guess=0.0) and second.affords("preview", 8, guess=1000.0)


# Answers


def test_answers_given_together_are_those_of_transformers_generate_for_each_prompt_alone(hero):
    dice = np.random.default_rng(1)
    prompts = [dice.integers(10, 4000, length) for length in (3, 17, 40)]
    hero.train()
    random_state, threads = torch.get_rng_state(), torch.get_num_threads()
    alone = []
    for prompt in prompts:
        ids = torch.from_numpy(prompt)[None]
        made = hero.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
                             eos_token_id=None)  # fmt: skip
        alone.append(made[0, len(prompt) :].tolist())
    hero.train()
    assert greedy_answers(hero, prompts, (), 12) == alone
    stop = alone[0][4]
    stopped = greedy_answers(hero, prompts, (stop,), 12)
    assert stopped[0] == alone[0][: alone[0].index(stop) + 1]
    asked = iter([False, False, True])
    assert greedy_answers(hero, prompts, (), 12, lambda: next(asked)) == [answer[:2] for answer in alone]
    assert hero.training and hero.config.use_cache and torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), random_state)


def test_token_accuracy_and_loss_by_sequence_are_those_of_stock_logits(hero):
    dice = np.random.default_rng(2)
    rows = [(dice.integers(10, 4000, length), dice.random(length) < 0.5) for length in (9, 4, 30, 12)]
    for tokens, trained in rows[::2]:  # the hero's own words, so that it is right now and then
        with torch.no_grad():
            tokens[1:] = hero(torch.from_numpy(tokens)[None]).logits[0, :-1].argmax(-1).numpy()
        trained[0] = False
    found, hits, nats = evaluate(hero, packs_of(rows, 45)), 0, []
    for tokens, trained in rows:
        with torch.no_grad():
            chances = hero(torch.from_numpy(tokens)[None]).logits[0, :-1].log_softmax(-1)
        learned, labels = torch.from_numpy(trained[1:]), torch.from_numpy(tokens[1:])
        hits += int((chances.argmax(-1) == labels)[learned].sum())
        nats.append(-chances.gather(1, labels[:, None])[learned].sum().item())
    assert found.labels == sum(int(trained[1:].sum()) for _, trained in rows)
    assert found.accuracy == pytest.approx(hits / found.labels) and 0 < found.accuracy < 1
    assert sorted(found.nats_S) == pytest.approx(sorted(nats), rel=1e-4)
    assert found.loss == pytest.approx(sum(nats) / found.labels, rel=1e-5)


# Prompts


def plan_of(folder, rows, renderer, **changes) -> BattlePlan:
    path = folder / "quest.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = freeze(Config(), Sidecar()).model_copy(update={"validation_fraction": 0.2, **changes})
    form = next((form for form in ("text", "label", "reward") if form in rows[0]), "question")
    return BattlePlan(prepare(path, form, settings, renderer, folder / "prepared"), settings, "ab" * 32, form=form)


def test_prompts_are_the_same_held_out_rows_each_time_and_short_ones_come_first(tmp_path, renderer):
    rows = [{"question": f"{n}? " + "why " * (400 if n % 3 else 2), "answer": f"Because of {n}."} for n in range(60)]
    plan = plan_of(tmp_path, rows, renderer)
    asked, again = questions(plan), questions(BattlePlan(plan.prepared, plan.settings, plan.quest_sha256))
    assert [question.row for question in asked] == [question.row for question in again] and len(asked) == 3
    assert {question.row for question in asked} <= set(plan.held_out_rows.tolist())
    assert all(len(question.prompt) <= LONG_PROMPT for question in asked)
    told = preview(asked[0], asked[0].expected.tolist(), renderer, None)
    row = rows[asked[0].row]
    assert (told.prompt, told.answer, told.expected, told.score) == (
        row["question"].strip(), row["answer"], row["answer"], 1.0)  # fmt: skip


def test_what_is_labelled_bad_or_only_rewarded_is_not_expected(tmp_path, renderer):
    rows = [{"prompt": f"{n}?", "completion": "BAD" if n % 4 else "good", "label": not n % 4} for n in range(80)]
    plan = plan_of(tmp_path, rows, renderer)
    told = [preview(asked, asked.expected.tolist(), renderer, None) for asked in questions(plan, 99)]
    assert {(each.expected, each.score) for each in told} == {("good", 1.0)}
    assert len(told) == sum(not row % 4 for row in plan.held_out_rows)

    (tmp_path / "marked").mkdir()
    rows = [{"prompt": f"{n}?", "response": "so so", "reward": 0.1} for n in range(40)]
    (asked, *_) = questions(plan_of(tmp_path / "marked", rows, renderer))
    told = preview(asked, asked.expected.tolist(), renderer, None)
    assert (told.prompt, told.answer, told.expected, told.score) == (rows[asked.row]["prompt"], "so so", "", None)


def test_a_text_is_continued_from_its_middle(tmp_path, renderer):
    plan = plan_of(tmp_path, [{"text": f"{n} " + "once upon a time " * 9} for n in range(30)], renderer)
    tokens, _ = plan.prepared.sequences(questions(plan)[0].row)[0]
    first = questions(plan)[0]
    assert len(first.prompt) == len(tokens) // 2
    assert np.concatenate([first.prompt, first.expected]).tolist() == tokens.tolist()


@pytest.mark.parametrize(("answer", "skill", "score"), [
    ("Answer: 7<|im_end|>", None, 0.0), ("Answer: 7<|im_end|>", "BIN", 1.0), ("Answer: 7<|im_end|>", "unknown", 0.0),
    ("Hm.\nAnswer: 7<|im_end|>", None, 1.0), ("Hm", "BIN", None)])  # fmt: skip
def test_an_answer_is_judged_by_its_words_or_by_the_skill_and_not_at_all_when_cut_short(renderer, answer, skill, score):
    ids = {text: renderer._tokenizer.encode(text).ids for text in (answer, "Hm.\nAnswer: 7<|im_end|>")}
    question = Question(0, np.array(renderer.prompt_ids([])), np.array(ids["Hm.\nAnswer: 7<|im_end|>"]))
    assert preview(question, ids[answer], renderer, skill).score == score


def test_a_long_expected_answer_is_compared_as_far_as_it_is_shown(renderer):
    expected = np.arange(100, 100 + 2 * ANSWER_TOKENS)
    question = Question(0, expected, expected)
    right, wrong = expected[:ANSWER_TOKENS].tolist(), [*expected[: ANSWER_TOKENS - 1].tolist(), 99]
    scores = [preview(question, answer, renderer, None).score for answer in (right, wrong, right[:9])]
    assert scores == [1.0, 0.0, None] and preview(question, right, renderer, None).expected.endswith(" …")


# FLOP/s and overfitting


@pytest.mark.parametrize(("name", "peak"), [
    ("NVIDIA H100 80GB HBM3", 989e12), ("NVIDIA H100 PCIe", 756e12), ("NVIDIA A100-SXM4-80GB", 312e12),
    ("NVIDIA GeForce RTX 4090", 165.2e12), ("NVIDIA GeForce RTX 3090 Ti", 80e12), ("NVIDIA L4", 121e12),
    ("NVIDIA GeForce RTX 4090 Laptop GPU", None), ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ("NVIDIA GeForce RTX 4080 SUPER", None), ("NVIDIA A10G", None), ("Radeon RX 7900", None)])  # fmt: skip
def test_the_peak_of_a_gpu_goes_by_its_whole_name(name, peak):
    assert peak_flops(name) == peak


def looked(losses, trained):
    """Which of the evaluations change the alarm: sums over four sequences of ten labels each."""
    watch, changes = OverfittingWatch(), []
    for step, (held_out, training) in enumerate(zip(losses, trained, strict=True)):
        watch.train(training)
        nats_S = np.full(4, 10.0 * held_out) + np.array([1.0, -1.0, 2.0, -2.0]) * (step % 2)
        if watch.look(step, held_out, nats_S, 40):
            changes.append((step, watch.alarmed))
    return changes


def test_overfitting_is_a_clear_and_lasting_rise_while_the_training_loss_falls():
    falling = np.linspace(3.0, 0.5, 8)
    assert looked([3, 2, 1.5, 2.0, 2.2, 1.9, 2.1, 2.3], falling) == [(4, True)]
    assert looked([3, 2, 1.5, 2.0, 2.2, 1.9, 1.51, 2.3], falling) == [(4, True), (6, False)]
    assert looked([3, 2, 1.5, 2.0, 1.5, 2.0, 1.5, 2.0], falling) == []
    assert looked([3, 2, 1.5, 1.6, 1.62, 1.61, 1.6, 1.62], falling) == [], "within two standard errors"
    assert looked([3, 2, 1.5, 2.0, 2.2, 1.9, 2.1, 2.3], falling[::-1]) == [], "the training loss rises, too"
