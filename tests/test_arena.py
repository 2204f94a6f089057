"""The arena's rules: shapes, texts, energy, scores, battles, the book, diagnosis, promotion. Its commands: test_arena_verbs.py."""

import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from core.arena import energy, play, scores
from core.arena.agent import Agent
from core.arena.battle import Terms, battle
from core.arena.data import BEGIN, END, NO_LABEL, Alphabet, Samples, bundled
from core.arena.diagnose import diagnose
from core.arena.joules import Meter
from core.arena.league import Arena, Book
from core.arena.look import look
from core.arena.model import MicroModel
from core.arena.promote import promote
from core.arena.records import Record, Settings, State
from core.arena.shape import Shape
from core.config import Config
from core.config import Hero as HeroSettings
from core.errors import UserError
from core.hero import base_models
from core.paths import ARENA_NAMES, CHECKOUT

TINY = Shape(16, 1, 2)


@pytest.fixture
def arena(realm) -> Arena:
    return Arena(realm)


@pytest.fixture
def tiny(arena) -> Arena:
    """An arena with the agent Tiny."""
    play.create(arena, "Tiny", TINY, None, 0)
    return arena


def alive(arena: Arena, name: str) -> Agent:
    return look(arena, name, None)[0]


def weights(agent: Agent) -> torch.Tensor:
    return torch.cat([flat.detach() for flat in agent.flat])


# Shapes and models


@pytest.mark.parametrize("shape", [(16, 1, 2), (15, 2, 5), (64, 2, 4), (3, 1, 1)])
def test_a_shape_counts_its_parameters_as_the_model_has_them(shape):
    made = Shape(*shape)
    assert made.parameters(28) == sum(weight.numel() for weight in MicroModel(made, 28, 0).parameters())


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((10, 1, 3), "n_embd = 9 or 12"),
        ((0, 1, 1), "n_embd = 0"),
        ((16, 99, 2), "n_layer = 99"),
        ((1024, 48, 2), "parameters"),
    ],
)
def test_what_is_no_shape_is_refused_with_one_that_is(shape, told):
    with pytest.raises(UserError, match=told):
        Shape(*shape)


@pytest.mark.parametrize("shape", [(16, 1, 2), (15, 2, 5)])
def test_an_agents_model_is_the_qwen3_of_transformers(shape):
    made = Shape(*shape)
    ours = MicroModel(made, 30, 7)
    theirs = Qwen3ForCausalLM(Qwen3Config(**made.config(30)))
    found = theirs.load_state_dict(dict(ours.named_parameters()), strict=False)
    assert found.missing_keys in ([], ["lm_head.weight"]) and found.unexpected_keys == []
    tokens = torch.randint(0, 30, (3, 9), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits.flatten(0, 1))


def test_writing_with_a_cache_reads_what_a_whole_pass_reads():
    model, cache = MicroModel(Shape(12, 2, 2), 20, 3), [torch.empty(0)] * 2
    tokens = torch.randint(0, 20, (4, 6), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        whole = model(tokens).unflatten(0, (4, 6))
        steps = torch.stack([model.step(tokens[:, place], place, cache) for place in range(6)], 1)
    torch.testing.assert_close(steps, whole)


# Texts


def test_the_project_ships_two_thousand_names_of_its_own_and_the_script_writes_the_same():
    script = {}
    exec((CHECKOUT / "scripts" / "make_names.py").read_text(), {"__name__": "names", "__file__": "x"}, script)
    names = ARENA_NAMES.read_text().split()
    assert len(set(names)) == len(names) >= 2000
    assert all(name.isascii() and name.islower() and 3 <= len(name) <= 11 for name in names)


def test_what_is_held_out_depends_on_no_order_and_no_copy_of_it_is_learned():
    lines = [f"name{number}" for number in range(400)] * 2
    one, other = Samples("\n".join(lines).encode(), "k", "t"), Samples("\n".join(lines[::-1]).encode(), "k", "t")
    assert one.held_out == other.held_out and 20 <= len(one.held_out) <= 60
    assert not set(one.held_out) & set(one.trained) and len(one.trained) + 2 * len(one.held_out) == 800


@pytest.mark.parametrize("content", [b"one\ntwo\n", b"\xef\xbb\xbfa\r\nb\r\n\r\n", "é\nß\n".encode()])
def test_of_the_smallest_text_one_line_is_learned_and_one_held_out(content):
    samples = Samples(content, "k", "t")
    assert len(samples.held_out) == 1 and len(samples.trained) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (b"a\0b\nc", "binary"),
        (b"caf\xe9\nx", "not UTF-8"),
        (b"one\none\n", "two are needed"),
    ],
)
def test_a_text_that_cannot_be_learned_is_refused_with_the_remedy(content, told):
    with pytest.raises(UserError, match=told):
        Samples(content, "k", "FILE")


def test_long_lines_are_learned_in_pieces():
    samples = Samples(b"x" * 300 + b"\n" + b"y" * 10, "k", "t")
    assert sorted(map(len, samples.trained + samples.held_out)) in ([10, 44, 128, 128], [10, 44, 128])


def test_a_batch_says_of_each_character_which_one_follows():
    alphabet = Alphabet("abc")
    batch = alphabet.encoded(["ab", "c"]).batch(np.array([1, 0]))
    assert batch.tokens_BT.tolist() == [[BEGIN, 4, END], [BEGIN, 2, 3]]
    assert batch.labels_BT.tolist() == [[4, END, NO_LABEL], [2, 3, END]]


def test_every_pass_over_a_text_takes_each_line_once_in_an_order_of_its_own():
    samples = bundled()
    size = len(samples.trained)
    order = samples.places(0, 2 * size, seed=3)
    assert sorted(order[:size]) == sorted(order[size:]) == list(range(size))
    assert (order[:size] != order[size:]).any() and (samples.places(5, 7, 3) == order[5:12]).all()
    assert (samples.places(0, size, seed=4) != order[:size]).any()


# Energy


@pytest.mark.parametrize("shape", [(16, 1, 2), (64, 2, 4)])
def test_the_formula_for_a_step_agrees_with_torchs_own_counting(shape):
    """torch counts attention over the whole square, of which a causal model needs half, and no gradient of the tokens."""
    made, samples, positions = Shape(*shape), 8, 16
    model = MicroModel(made, 28, 0)
    tokens = torch.randint(0, 28, (samples, positions))
    with FlopCounterMode(display=False) as counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(tokens).sum().backward()
    square = (
        6 * 2 * made.n_layer * made.n_head * made.head_dim * samples * (positions**2 - positions * (positions + 1) / 2)
    )
    ours = energy.step_flops(made, 28, samples, positions)
    assert ours + square == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_formula_for_a_token_agrees_with_torchs_own_counting():
    model, cache, seen = MicroModel(TINY, 28, 0), [torch.empty(0)], 9
    with torch.no_grad():
        for place in range(seen):
            model.step(torch.zeros(4, dtype=torch.int64), place, cache)
        with (
            FlopCounterMode(display=False) as counter,
            torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
        ):
            model.step(torch.zeros(4, dtype=torch.int64), seen, cache)
    assert 4 * energy.token_flops(TINY, 28, seen) == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_a_new_player_can_afford_500_steps_of_a_small_agent_and_hundreds_of_one_with_100_000_parameters():
    samples = bundled()
    for shape, steps in ((TINY, 500), (Shape(64, 2, 4), 500)):
        record = Record("One", shape, 0, State(Settings.for_shape(shape), samples.key, samples.title, samples.letters))
        assert len(play.costs(record, samples, play.Order(0, 0, 64), steps, Book().energy)) == steps


def test_every_step_and_every_written_token_is_paid_and_rest_fills_up(tiny):
    before = tiny.read().energy
    facts = play.train(tiny, None, 3)
    assert facts["energy"] == pytest.approx(before - facts["energy_spent"]) and facts["energy_spent"] > 0
    written = play.generate(tiny, None, 5)
    assert written["energy"] == pytest.approx(facts["energy"] - written["energy_spent"]) and written["energy_spent"] > 0
    assert play.rest(tiny) == {"energy": before, "gained": pytest.approx(before - written["energy"]), "rests": 1}
    assert tiny.read().agent("Tiny").spent == pytest.approx(before - written["energy"])


def test_who_has_too_little_energy_is_told_how_far_it_goes_and_nothing_is_spent(tiny):
    play.create(tiny, "Giant", Shape(256, 8, 8), None, 0)
    with pytest.raises(UserError, match=r"enough for \d+ steps of Giant\. `rest`"):
        play.train(tiny, "Giant", 5000)
    with pytest.raises(UserError, match=r"enough for [\d,]+ steps of it"):
        battle(tiny, "Giant", "Tiny", Terms(5000))
    assert tiny.read().energy == energy.FULL and tiny.read().agent("Giant").state.step == 0


def test_joules_are_what_a_gpus_counter_rose_by_and_none_on_a_processor():
    readings = iter([10.0, 14.5, 15.0])
    meter = Meter("cuda", lambda: next(readings))
    assert meter.added(None) == 4.5 and meter.added(4.5) == 5.0
    assert Meter("cpu").added(None) is None and Meter("cuda", lambda: None).added(2.0) == 2.0


# Scores


def test_words_are_worth_what_is_new_among_them():
    worth = scores.words(["anna", "new", "new", "", None], {"anna"})
    assert (worth.validity, worth.novelty, worth.uniqueness) == (3 / 5, 2 / 3, 1 / 5)


def test_neither_skill_nor_uniqueness_helps_without_the_other():
    assert scores.score(1.5, 26, 0.9) > scores.score(2.0, 26, 0.9) > scores.score(2.0, 26, 0.3) > 0
    assert scores.score(math.log(27), 26, 1.0) == scores.score(1.0, 26, 0.0) == scores.score(None, 26, 1.0) == 0


def test_elo_gives_what_it_takes_and_more_for_beating_a_better_one():
    assert scores.elo_change(1000, 1000, 1.0) == 16
    assert scores.elo_change(1000, 1400, 1.0) == pytest.approx(-scores.elo_change(1400, 1000, 0.0))
    assert scores.elo_change(1000, 1400, 1.0) > 16 > scores.elo_change(1400, 1000, 1.0)


# Training


def test_two_short_trainings_are_one_long_one_bit_for_bit(arena):
    for name in ("Once", "Twice"):
        play.create(arena, name, TINY, None, 5)
    play.train(arena, "Once", 12)
    play.train(arena, "Twice", 7)
    play.generate(arena, "Twice", 3)
    play.train(arena, "Twice", 5)
    once, twice = alive(arena, "Once"), alive(arena, "Twice")
    assert torch.equal(weights(once), weights(twice))
    assert once.state == replace(twice.state, file=once.state.file)
    assert torch.equal(once.past()[0], twice.past()[0]) and len(once.past()[1]) == 12


def test_an_agent_learns(tiny):
    facts = play.train(tiny, None, 60)
    assert facts["validation_loss"] < math.log(27) - 0.5 and facts["uniqueness"] > 0.5
    assert facts["perplexity"] == pytest.approx(math.exp(facts["validation_loss"]))


def test_a_saved_state_comes_back_whole_and_what_was_spent_stays_spent(tiny):
    play.train(tiny, None, 4)
    before, state = weights(alive(tiny, "Tiny")), tiny.read().agent("Tiny").state
    play.save(tiny, None, "good")
    play.settings(tiny, None, "learning_rate", "10")
    spent = play.train(tiny, None, 4)["energy_spent"]
    assert not torch.equal(weights(alive(tiny, "Tiny")), before)
    play.load(tiny, None, "good")
    record = tiny.read().agent("Tiny")
    assert torch.equal(weights(alive(tiny, "Tiny")), before)
    assert record.state == state and record.spent == spent
    play.train(tiny, None, 1)
    assert (tiny.paths.arena_agent("Tiny") / record.saved["good"].file).is_file()
    with pytest.raises(UserError, match="it has good"):
        play.load(tiny, None, "other")


def test_an_agent_learns_another_text_if_it_knows_its_letters(tiny, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("\n".join(f"aba{letter}" for letter in "bcdefgh"))
    play.train(tiny, None, 1, file)
    file.unlink()
    assert play.train(tiny, None, 1)["step"] == 2  # a copy was kept
    strange = tmp_path / "strange.txt"
    strange.write_text("née\nfrères\nété\n")
    with pytest.raises(UserError, match="has never seen"):
        play.train(tiny, None, 1, strange)
    play.create(tiny, "Fresh", TINY, None, 0)
    assert "é" in alive(tiny, "Fresh").alphabet.letters or play.train(tiny, "Fresh", 1, strange)["step"] == 1


def test_texts_with_a_seed_are_the_same_and_others_each_time(tiny):
    play.train(tiny, None, 2)
    assert play.generate(tiny, None, 4, 1)["names"] == play.generate(tiny, None, 4, 1)["names"]
    assert play.generate(tiny, None, 4)["names"] != play.generate(tiny, None, 4)["names"]


def test_a_training_that_is_killed_leaves_the_last_state_whole(tiny):
    play.train(tiny, None, 3)
    state = tiny.read().agent("Tiny").state
    command = [sys.executable, "-m", "training", "arena", "train", "50000", "--root", str(tiny.paths.root)]
    child = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not tiny.told("training").get("step"):
        assert child.poll() is None
        time.sleep(0.02)
    assert tiny.told("training")["live"]
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert tiny.read().agent("Tiny").state == state and not tiny.told("training")["live"]
    assert alive(tiny, "Tiny").step == 3 and play.train(tiny, None, 1)["step"] == 4


def test_a_training_that_is_asked_to_end_keeps_what_it_has_learned(tiny):
    command = [sys.executable, "-m", "training", "arena", "train", "50000", "--root", str(tiny.paths.root)]
    child = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL)
    while not tiny.told("training").get("step"):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGINT)
    assert child.wait() == 0
    record = tiny.read().agent("Tiny")
    assert 0 < record.state.step < 50000 and record.state.seen == 64 * record.state.step and record.spent > 0


def test_two_processes_take_turns(tiny):
    command = [sys.executable, "-m", "training", "arena", "train", "20", "--root", str(tiny.paths.root)]
    children = [subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [child.wait() for child in children] == [0, 0]
    assert alive(tiny, "Tiny").step == 40


def test_a_book_that_cannot_be_read_is_never_overwritten(tiny):
    tiny.paths.arena_book.write_text('{"energy": 3')
    with pytest.raises(UserError, match="move it away"):
        play.rest(tiny)
    assert tiny.paths.arena_book.read_text() == '{"energy": 3'


# Battles


def test_the_better_agent_wins_and_everything_about_it_is_on_record(arena):
    play.create(arena, "Good", TINY, None, 0)
    play.create(arena, "Bad", TINY, None, 0)
    play.settings(arena, "Bad", "learning_rate", "0.000001")
    heard = []
    result = battle(arena, "Good", "Bad", Terms(20, names=10), caller=play.Caller(heard.append))
    assert (result["winner"], result["loser"], result["draw"]) == ("Good", "Bad", False)
    assert result["agents"]["Good"]["score"] > result["agents"]["Bad"]["score"]
    book = arena.read()
    good, bad = book.agent("Good"), book.agent("Bad")
    assert (good.elo, bad.elo, good.wins, bad.losses) == (1016, 984, 1, 1)
    assert good.state.step == bad.state.step == 20
    assert result["prize"] == pytest.approx(bad.spent) and book.energy == pytest.approx(energy.FULL - good.spent)
    assert book.champion == "Good" and "champion" in good.saved
    assert book.leaderboard()[0]["name"] == "Good" and book.battles[0]["winner"] == "Good"
    assert {facts["phase"] for facts in heard} == {"training", "writing", "done"}
    assert arena.told("battle")["phase"] == "done" and arena.told("battle")["result"]["winner"] == "Good"


def test_twins_draw_whichever_is_named_first_for_they_see_the_same_rows(arena):
    for name in ("One", "Two"):
        play.create(arena, name, TINY, None, 3)
    result = battle(arena, "Two", "One", Terms(5, names=10))
    assert result["winner"] is None and result["draw"]
    assert torch.equal(weights(alive(arena, "One")), weights(alive(arena, "Two")))
    assert [arena.read().agent(name).elo for name in ("One", "Two")] == [1000, 1000]


def test_with_equal_energy_the_larger_one_takes_fewer_steps(arena):
    play.create(arena, "Small", TINY, None, 0)
    play.create(arena, "Large", Shape(24, 2, 2), None, 0)
    sides = battle(arena, "Small", "Large", Terms(20, equal_energy=True, names=5))["agents"]
    assert sides["Small"]["steps"] == 20 and 0 < sides["Large"]["steps"] < 10
    assert sides["Large"]["energy_spent"] < 1.05 * sides["Small"]["energy_spent"]
    play.create(arena, "Giant", Shape(128, 4, 4), None, 0)
    with pytest.raises(UserError, match="give more STEPS"):
        battle(arena, "Small", "Giant", Terms(2, equal_energy=True))


def test_what_cannot_be_fought_is_refused(tiny, tmp_path):
    file = tmp_path / "other.txt"
    file.write_text("aa\nbb\nab\n")
    play.create(tiny, "Other", TINY, file, 0)
    with pytest.raises(UserError, match="cannot fight itself"):
        battle(tiny, "Tiny", "Tiny", Terms(1))
    with pytest.raises(UserError, match="did you mean 'Tiny'"):
        battle(tiny, "Tiny", "Tiney", Terms(1))
    with pytest.raises(UserError, match=r"Tiny learns names and Other learns other\.txt"):
        battle(tiny, "Tiny", "Other", Terms(1))


def test_a_battle_that_is_broken_off_changes_nothing(arena):
    for name in ("One", "Two"):
        play.create(arena, name, TINY, None, 0)
    before = arena.read()
    with pytest.raises(UserError, match="broken off"):
        battle(arena, "One", "Two", Terms(9), caller=play.Caller(leaves=lambda: True))
    assert arena.read() == before


def test_a_battle_weighs_both_with_the_letters_of_its_text(arena, tmp_path):
    wide, narrow = tmp_path / "wide.txt", tmp_path / "narrow.txt"
    wide.write_text("\n".join(map(chr, range(97, 123))))
    narrow.write_text("\n".join(f"ab{letter}a" for letter in "abcdef"))
    play.create(arena, "Wide", TINY, wide, 0)
    play.train(arena, "Wide", 1)
    play.create(arena, "Narrow", TINY, narrow, 0)
    sides = battle(arena, "Wide", "Narrow", Terms(30, names=20), narrow)["agents"]
    for side in sides.values():
        assert side["score"] == scores.score(side["validation_loss"], 6, side["uniqueness"])
    assert len(arena.read().agent("Wide").state.letters) == 26 and sides["Wide"]["score"] > 0


def test_no_temperature_buys_a_score(arena):
    for name in ("One", "Two"):
        play.create(arena, name, TINY, None, 3)
        play.train(arena, name, 20)
    play.settings(arena, "Two", "temperature", "0.1")
    assert play.generate(arena, "One", 5, 1)["names"] != play.generate(arena, "Two", 5, 1)["names"]
    assert battle(arena, "One", "Two", Terms(5, names=10))["draw"]
    one, two = (play.train(arena, name, 1) for name in ("One", "Two"))
    assert one["uniqueness"] == two["uniqueness"] > 0 and one["score"] == two["score"]


# Diagnosis


@pytest.mark.parametrize(
    ("shape", "steps"), [((4, 1, 1), 30), ((16, 1, 2), 60), ((16, 6, 4), 10), ((64, 2, 4), 12), ((128, 4, 4), 3)]
)
def test_a_healthy_agent_has_no_finding_before_and_after_training(shape, steps):
    samples, made = bundled(), Shape(*shape)
    agent = Agent(
        Record("One", made, 0, State(Settings.for_shape(made), samples.key, samples.title, samples.letters)), Path()
    )
    assert diagnose(agent, samples) == []
    exercise(agent, samples, steps)
    assert diagnose(agent, samples) == []


def exercise(agent: Agent, samples: Samples, steps: int) -> None:
    encoded = agent.alphabet.encoded(samples.trained)
    for lines in samples.places(0, steps * 64, 0).reshape(steps, 64):
        agent.train(encoded.batch(lines))


@pytest.mark.parametrize("shape", [(4, 1, 1), (16, 1, 2), (16, 6, 4), (64, 2, 4)])
def test_an_agent_with_a_learning_rate_of_10_is_said_to_explode(shape):
    samples, made = bundled(), Shape(*shape)
    settings = replace(Settings.for_shape(made), learning_rate=10.0)
    agent = Agent(Record("One", made, 0, State(settings, samples.key, samples.title, samples.letters)), Path())
    exercise(agent, samples, 25)
    found = diagnose(agent, samples)
    assert "exploding_gradients" in {finding["kind"] for finding in found}
    assert all(finding["where"] and "learning rate" in finding["advice"] for finding in found)


@pytest.fixture
def agent() -> Agent:
    samples, shape = bundled(), Shape(16, 2, 2)
    return Agent(
        Record("One", shape, 0, State(Settings.for_shape(shape), samples.key, samples.title, samples.letters)), Path()
    )


@torch.no_grad()
def test_each_illness_is_found_where_it_is(agent):
    samples = bundled()
    layers = agent.model.model.layers
    layers[1].mlp.up_proj.weight[:10] = 0
    assert kinds(agent, samples) == {("dead_neurons", "layer 2 mlp")}
    layers[1].mlp.up_proj.weight.normal_(0, 0.25)
    layers[0].self_attn.q_norm.weight *= 1e6
    assert ("saturated_attention", "layer 1 head 2") in kinds(agent, samples)
    layers[0].self_attn.q_norm.weight[:] = 1
    layers[0].mlp.down_proj.weight[3, 4] = torch.nan
    assert ("non_finite", "layer 1 mlp") in kinds(agent, samples)


@torch.no_grad()
def test_a_layer_that_no_gradient_reaches_is_found(agent):
    for name in ("gate_proj", "up_proj", "down_proj"):
        getattr(agent.model.model.layers[0].mlp, name).weight[:] = 1e-6
    assert ("vanishing_gradients", "layer 1 mlp") in kinds(agent, bundled())


def kinds(agent: Agent, samples: Samples) -> set[tuple[str, str]]:
    with torch.enable_grad():
        return {(finding["kind"], finding["where"]) for finding in diagnose(agent, samples)}


# Promotion


@pytest.mark.parametrize("name", ["vault", "current_model", "champion", "tip", "Tip"])
def test_no_agent_takes_a_name_of_the_realms_own(arena, name):
    play.create(arena, name, TINY, None, 0)
    with pytest.raises(UserError, match="means something else"):
        promote(arena.paths, alive(arena, name))
    assert not (arena.paths.models / name / "config.json").exists()


def test_a_promoted_agent_is_a_base_model_from_which_a_hero_hatches(tiny, tmp_path):
    from core.forge.hatch import hatch

    file = tmp_path / "mine.txt"
    file.write_text("née\nfrère\nété\nnaïf\n")
    play.create(tiny, "Ada", Shape(16, 2, 2), file, 1)
    play.train(tiny, "Ada", 2)
    ada = alive(tiny, "Ada")
    folder = promote(tiny.paths, ada)
    assert [(base["name"], base["problem"]) for base in base_models(tiny.paths)] == [("Ada", None)]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("Ünïcode, née 😀").input_ids) == "Ünïcode, née 😀"
    model = AutoModelForCausalLM.from_pretrained(folder)
    theirs = model(tokenizer("née", return_tensors="pt").input_ids).logits[0]
    ours = ada.model(torch.from_numpy(ada.alphabet.encoded(["née"]).tokens)[None])
    letters = [tokenizer(letter).input_ids for letter in ada.alphabet.letters]
    assert all(len(ids) == 1 for ids in letters)
    torch.testing.assert_close(theirs[:, [ids[0] for ids in letters]], ours[:, 2:])
    manifest = hatch(tiny.paths, Config(hero=HeroSettings(name="Ada", base_model="Ada")))
    assert manifest.hero == "Ada" and (tiny.paths.vault / manifest.id).is_dir()
    with pytest.raises(UserError, match="is there already"):
        promote(tiny.paths, ada)
    assert not [path for path in os.listdir(tiny.paths.models) if path.startswith(".")]
