"""Our own way through Qwen3 gives transformers' numbers, eager and compiled, and attention those of torch's own."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from core.forge import loss as loss_module
from core.forge.attend import SHORT, attend
from core.forge.attention import ATTENTION
from core.forge.compiling import warm_up, worth_compiling
from core.forge.hatch import micro_hero
from core.forge.loss import hidden_states, loss_sum
from core.forge.packing import pack
from core.forge.qwen3 import EAGER, Compute, autocast, kernel
from core.machine import compiler

COMPILED = Compute(compiled=True)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def hero():
    model = micro_hero(3)
    model.set_attn_implementation(ATTENTION)
    return model


@pytest.fixture(scope="module")
def three_rows():
    chance = np.random.default_rng(1)
    return pack([(chance.integers(0, 4000, length), chance.random(length) < 0.5) for length in (40, 7, 120)])


def gradients(model, packed, compute=EAGER, in_bf16=False):
    model.zero_grad()
    with autocast("cpu", in_bf16):
        loss = loss_sum(model, packed, compute)
    loss.backward()
    return loss.item(), {name: each.grad.clone() for name, each in model.named_parameters()}


def apart(some, others):
    """The largest relative difference of two sets of gradients, tensor by tensor."""
    return max(((some[name] - others[name]).norm() / others[name].norm()).item() for name in others)


def test_states_loss_and_gradients_are_those_of_transformers_forward(hero, three_rows, monkeypatch):
    states, (loss, found) = hidden_states(hero, three_rows), gradients(hero, three_rows)
    monkeypatch.setattr(loss_module, "understands", lambda model: False)
    torch.testing.assert_close(states, hidden_states(hero, three_rows), atol=2e-5, rtol=1e-5)
    their_loss, theirs = gradients(hero, three_rows)
    assert loss == pytest.approx(their_loss, rel=1e-6)
    assert apart(found, theirs) < 5e-6


def test_layers_that_are_computed_again_give_the_same_bits(hero, three_rows):
    loss, found = gradients(hero, three_rows)
    again_loss, again = gradients(hero, three_rows, Compute(recompute_every=2))
    assert loss == again_loss and apart(again, found) == 0


def test_bf16_differs_from_transformers_forward_by_no_more_than_bf16_does(hero, three_rows, monkeypatch):
    exact = gradients(hero, three_rows)
    ours = gradients(hero, three_rows, in_bf16=True)
    monkeypatch.setattr(loss_module, "understands", lambda model: False)
    theirs = gradients(hero, three_rows, in_bf16=True)
    assert ours[0] == pytest.approx(exact[0], rel=1e-2)
    assert apart(ours[1], exact[1]) < 1.2 * apart(theirs[1], exact[1]) + 1e-3


@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own ways
@pytest.mark.skipif(compiler("cpu") is None, reason="no C++ compiler")
def test_compiled_kernels_give_the_same_numbers_and_warming_up_leaves_no_trace(hero, three_rows):
    loss, found = gradients(hero, three_rows)
    hero.zero_grad()
    before = torch.get_rng_state()
    warm_up(hero, in_bf16=False)
    assert torch.equal(before, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in hero.parameters())
    compiled_loss, compiled = gradients(hero, three_rows, COMPILED)
    assert compiled_loss == pytest.approx(loss, rel=1e-6) and apart(compiled, found) < 5e-6
    assert gradients(hero, three_rows, COMPILED)[0] == compiled_loss


def test_a_single_token_is_not_compiled():
    def double(x):
        return 2 * x

    assert kernel(double, True, 1) is double and kernel(double, True, 2) is not double


def test_only_a_battle_that_pays_it_back_is_compiled(hero):
    assert not worth_compiling(hero, 1e9)
    assert worth_compiling(hero, 1e15) == (compiler("cpu") is not None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("key_heads", [4, 2, 1])
def test_attention_is_torchs_own_of_each_sequence_short_or_long(dtype, key_heads):
    lengths = (1, 2, 37, SHORT[dtype] + 5)
    generator = torch.Generator().manual_seed(0)
    shapes = [(sum(lengths), heads, 8) for heads in (4, key_heads, key_heads)]
    parts = [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for shape in shapes]
    direction = torch.randn(shapes[0], generator=generator).to(dtype)
    ours = attend(*parts, lengths, 0.3)
    found = torch.autograd.grad(ours, parts, direction)
    exact = [part.detach().double().requires_grad_() for part in parts]
    outputs = [
        F.scaled_dot_product_attention(
            *(part.transpose(0, 1) for part in three), is_causal=True, scale=0.3, enable_gqa=True
        )
        for three in zip(*(part.split(lengths) for part in exact), strict=True)
    ]
    expected = torch.cat([output.transpose(0, 1) for output in outputs])
    near = {"atol": 2e-5, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.15, "rtol": 0.1}
    torch.testing.assert_close(ours.double(), expected, **near)
    for mine, theirs in zip(found, torch.autograd.grad(expected, exact, direction.double()), strict=True):
        torch.testing.assert_close(mine.double(), theirs, **near)
