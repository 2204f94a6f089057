"""Packing changes the speed and nothing else: losses and gradients are those of every sequence by itself."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import core.forge.loss as loss_module
from core.forge.attention import ATTENTION
from core.forge.evaluate import evaluate
from core.forge.hatch import micro_hero
from core.forge.loss import hidden_states, loss_sum
from core.forge.packing import best_fit, pack, packs_of

LENGTHS = (5, 33, 1, 17, 64, 2)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other on busy cores make a step take seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def hero():
    """A micro hero of the realm's attention, its weights shaken so that no layer is near the identity."""
    model = micro_hero(3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    model.set_attn_implementation(ATTENTION)
    return model


@pytest.fixture(scope="module")
def stock(hero):
    """The same weights under transformers' own attention implementations."""
    models = {}
    for name in ("sdpa", "eager"):
        models[name] = micro_hero(3)
        models[name].load_state_dict(hero.state_dict())
        models[name].set_attn_implementation(name)
    return models


def sequences(lengths=LENGTHS, seed=0, share=0.5):
    """Random tokens with a random mask, one array pair a length; the last token is always learned."""
    chance = np.random.default_rng(seed)
    found = []
    for length in lengths:
        trained = chance.random(length) < share
        trained[-1] = True
        found.append((chance.integers(0, 4000, length).astype(np.uint16), trained))
    return found


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def agree(ours, theirs, tolerance=1e-5):
    for name, gradient in theirs.items():
        scale = max(1.0, gradient.abs().max().item())
        assert (ours[name] - gradient).abs().max().item() <= tolerance * scale, name


def stock_labels(tokens, trained):
    return torch.from_numpy(np.where(trained, tokens.astype(np.int64), -100))[None]


# Bins


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(1, 200))
def test_every_sequence_is_in_one_bin_and_no_bin_is_fuller_than_allowed(lengths, capacity):
    bins = best_fit(lengths, capacity)
    assert sorted(index for members in bins for index in members) == list(range(len(lengths)))
    for members in bins:
        assert sum(lengths[index] for index in members) <= capacity or len(members) == 1


@given(st.lists(st.integers(1, 100), min_size=2, max_size=40))
def test_no_two_bins_could_be_one(lengths):
    totals = sorted(sum(lengths[index] for index in members) for members in best_fit(lengths, 100))
    assert len(totals) < 2 or totals[0] + totals[1] > 100


def test_the_best_fitting_bin_is_taken():
    assert best_fit([60, 5, 50, 45], 100) == [[0], [2, 3, 1]]


# Tensors


def test_a_pack_knows_positions_and_labels_of_each_sequence():
    tokens = np.arange(10, 17, dtype=np.uint16)
    first, second = (tokens[:4], np.array([True, False, True, True])), (tokens[4:], np.array([True, True, False]))
    packed = pack([first, second])
    assert packed.tokens_T.tolist() == [10, 11, 12, 13, 14, 15, 16]
    assert packed.positions_T.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert packed.lengths == (4, 3)
    assert (packed.at_N.tolist(), packed.labels_N.tolist()) == ([1, 2, 4], [12, 13, 15])


def test_making_a_pack_changes_nothing_in_the_rows_it_is_made_of():
    rows = sequences()
    before = [(tokens.copy(), trained.copy()) for tokens, trained in rows]
    pack(rows)
    assert all(
        (one == two).all() for pair, same in zip(rows, before, strict=True) for one, two in zip(pair, same, strict=True)
    )


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20), st.integers(1, 100), st.booleans())
def test_packs_hold_every_token_and_every_label_once(lengths, capacity, packing):
    rows = sequences(lengths)
    packs = packs_of(rows, capacity, packing)
    assert sorted(torch.cat([one.tokens_T for one in packs]).tolist()) == sorted(
        int(token) for tokens, _ in rows for token in tokens
    )
    assert sum(len(one.labels_N) for one in packs) == sum(int(trained[1:].sum()) for _, trained in rows)
    assert packing or len(packs) == len(rows)


# The model


def test_each_sequence_of_a_pack_is_computed_as_if_it_were_alone(hero, stock):
    rows = sequences(share=2.0)
    with torch.no_grad():
        states = hidden_states(hero, pack(rows))
        packed = hero.lm_head(states).split([len(tokens) - 1 for tokens, _ in rows])
        for (tokens, _), logits in zip(rows, packed, strict=True):
            inputs = torch.from_numpy(tokens.astype(np.int64))[None]
            for model in (hero, *stock.values()):
                alone = model(input_ids=inputs).logits[0, :-1]
                torch.testing.assert_close(logits, alone, rtol=1e-5, atol=1e-5)


def test_a_token_of_one_sequence_does_not_reach_another(hero):
    rows = sequences((20, 20, 20), share=2.0)
    changed = [(tokens.copy(), trained) for tokens, trained in rows]
    changed[1][0][:] = (changed[1][0] + 17) % 4000
    with torch.no_grad():
        before, after = (hidden_states(hero, pack(each)).split(19) for each in (rows, changed))
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("name", ["sdpa", "eager"])
def test_the_loss_and_its_gradients_are_those_of_stock_transformers_row_by_row(hero, stock, name):
    rows, model = sequences(), stock[name]
    ours = loss_sum(hero, pack(rows))
    theirs = torch.zeros(())
    for tokens, trained in rows:
        count = int(trained[1:].sum())
        if count:
            inputs = torch.from_numpy(tokens.astype(np.int64))[None]
            theirs = theirs + count * model(input_ids=inputs, labels=stock_labels(tokens, trained)).loss
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)
    agree(gradients(hero, ours), gradients(model, theirs))


def test_a_padded_batch_of_stock_transformers_has_the_same_mean_loss(hero, stock):
    rows = sequences((9, 30, 14))
    width = max(len(tokens) for tokens, _ in rows)
    inputs, labels, mask = (
        torch.zeros(3, width, dtype=torch.long),
        torch.full((3, width), -100),
        torch.zeros(3, width, dtype=torch.long),
    )
    for row, (tokens, trained) in enumerate(rows):
        inputs[row, : len(tokens)] = torch.from_numpy(tokens.astype(np.int64))
        labels[row, : len(tokens)] = stock_labels(tokens, trained)[0]
        mask[row, : len(tokens)] = 1
    packed = pack(rows)
    theirs = stock["sdpa"](input_ids=inputs, attention_mask=mask, labels=labels).loss
    assert loss_sum(hero, packed).item() / len(packed.labels_N) == pytest.approx(theirs.item(), rel=1e-5)


def test_how_rows_are_spread_over_passes_changes_neither_loss_nor_gradients(hero):
    rows = sequences()
    losses, found = [], []
    for capacity, packing in ((10_000, True), (70, True), (1, True), (10_000, False)):
        total = sum(loss_sum(hero, one) for one in packs_of(rows, capacity, packing))
        losses.append(total.item())
        found.append(gradients(hero, total))
    assert losses == pytest.approx([losses[0]] * 4, rel=1e-6)
    for each in found[1:]:
        agree(each, found[0])


def test_a_head_in_chunks_gives_the_same_loss_and_gradients(hero, monkeypatch):
    packed = pack(sequences())
    whole = loss_sum(hero, packed)
    expected = gradients(hero, whole)
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", 7 * hero.config.vocab_size)
    assert len(packed.labels_N) > 7 * 3
    parts = loss_sum(hero, packed)
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)
    agree(gradients(hero, parts), expected)


def test_a_pack_costs_no_mask_of_its_length_squared(hero):
    packed = pack(sequences([64] * 256, share=0.01))
    with torch.no_grad(), torch.profiler.profile(profile_memory=True) as profile:
        hidden_states(hero, packed)
    largest = max(event.self_cpu_memory_usage for event in profile.events())
    assert largest < len(packed.tokens_T) ** 2 / 4, f"{largest:,} bytes at once for {len(packed.tokens_T):,} tokens"


def test_a_hero_of_the_realms_attention_still_generates_as_a_stock_one(hero, stock):
    inputs = torch.tensor([[5, 6, 7, 8, 9]])
    mask = torch.ones_like(inputs)
    with torch.no_grad():
        ours, theirs = (model.generate(input_ids=inputs, attention_mask=mask, max_new_tokens=8, do_sample=False)
                        for model in (hero, stock["sdpa"]))  # fmt: skip
    assert ours.tolist() == theirs.tolist()


def test_evaluating_gives_the_mean_over_all_labels_and_leaves_the_model_as_it_was(hero, stock):
    rows = sequences()
    packs, random_state = packs_of(rows, 70), torch.get_rng_state()
    hero.train()
    before = {name: value.clone() for name, value in hero.state_dict().items()}
    found = evaluate(hero, packs)
    labels = sum(len(one.labels_N) for one in packs)
    assert found.loss == pytest.approx(loss_sum(hero, pack(rows)).item() / labels, rel=1e-5)
    assert hero.training and torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in hero.state_dict().items())
    assert evaluate(hero, []) is None
