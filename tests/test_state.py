"""Model, optimizer and random streams come back bit for bit, or not at all."""

import os

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from core.errors import CheckpointError
from core.forge.attention import ATTENTION
from core.forge.hatch import micro_hero
from core.forge.state import OPTIMIZER, STATE, has_state, load_state, save_model, save_state
from core.paths import BUNDLED_TOKENIZER


def trainee(seed=1):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    return model, optimizer_of(model)


def optimizer_of(model, fused=True):
    groups = [{"params": list(model[0].parameters()), "weight_decay": 0.1, "decays": True},
              {"params": list(model[2].parameters()), "weight_decay": 0.0, "decays": False}]  # fmt: skip
    return torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), fused=fused)


def step(model, optimizer, times=1):
    for _ in range(times):
        optimizer.zero_grad()
        model(torch.randn(4, 8)).square().sum().backward()
        optimizer.step()


def plain(node):
    """A state dict with every tensor as (type, shape, bytes), so that == is bit for bit."""
    if isinstance(node, torch.Tensor):
        return str(node.dtype), tuple(node.shape), node.numpy().tobytes()
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    return [plain(value) for value in node] if isinstance(node, (list, tuple)) else node


def test_the_optimizer_comes_back_bit_for_bit(tmp_path):
    model, optimizer = trainee()
    step(model, optimizer, 3)
    optimizer.param_groups[0]["lr"] = 0.1 + 0.2
    save_state(tmp_path, optimizer)
    before = plain(optimizer.state_dict())
    twin = optimizer_of(model)
    load_state(tmp_path, twin)
    assert plain(twin.state_dict()) == before
    assert twin.param_groups[0]["lr"] == 0.1 + 0.2 and twin.param_groups[1]["decays"] is False


def test_training_goes_on_as_if_it_had_never_been_left(tmp_path):
    model, optimizer = trainee()
    step(model, optimizer, 3)
    save_state(tmp_path, optimizer)
    torch.save(model.state_dict(), tmp_path / "weights")
    step(model, optimizer, 3)
    other, twin = trainee(seed=99)
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    step(other, twin, 2)  # whatever it did before
    other.load_state_dict(torch.load(tmp_path / "weights", weights_only=True))
    torch.rand(100)
    load_state(tmp_path, twin)
    step(other, twin, 3)
    assert plain(other.state_dict()) == plain(model.state_dict())


def test_saving_changes_neither_optimizer_nor_random_stream(tmp_path):
    model, optimizer = trainee()
    step(model, optimizer)
    before, random_state = plain(optimizer.state_dict()), torch.get_rng_state()
    save_state(tmp_path, optimizer)
    assert plain(optimizer.state_dict()) == before and torch.equal(torch.get_rng_state(), random_state)


def test_an_optimizer_that_never_stepped_can_be_saved(tmp_path):
    model, optimizer = trainee()
    save_state(tmp_path, optimizer)
    load_state(tmp_path, optimizer_of(model))


@pytest.mark.parametrize("name", [OPTIMIZER, STATE])
@pytest.mark.parametrize("harm", [os.unlink, lambda path: path.write_bytes(b""), lambda path: os.truncate(path, path.stat().st_size // 2)],
                         ids=["missing", "empty", "cut"])  # fmt: skip
def test_a_state_that_is_not_whole_is_an_error_and_changes_nothing(tmp_path, name, harm):
    model, optimizer = trainee()
    step(model, optimizer)
    save_state(tmp_path, optimizer)
    harm(tmp_path / name)
    step(model, optimizer)
    before, random_state = plain(optimizer.state_dict()), torch.get_rng_state()
    with pytest.raises(CheckpointError, match="optimizer's state cannot be read"):
        load_state(tmp_path, optimizer)
    assert plain(optimizer.state_dict()) == before and torch.equal(torch.get_rng_state(), random_state)


def test_only_a_checkpoint_that_was_trained_has_a_state(tmp_path):
    assert not has_state(tmp_path)
    save_state(tmp_path, trainee()[1])
    assert has_state(tmp_path)


# The model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    hero, folder = micro_hero(7), tmp_path_factory.mktemp("hero")
    hero.set_attn_implementation(ATTENTION)
    save_model(hero, folder, BUNDLED_TOKENIZER)
    return hero, folder


def test_a_saved_hero_loads_with_plain_transformers_and_says_the_same(saved):
    hero, folder = saved
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert model.config._attn_implementation != ATTENTION and ATTENTION not in (folder / "config.json").read_text()
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "What is 2 plus 3?"}], add_generation_prompt=True,
                                           return_tensors="pt", return_dict=True)  # fmt: skip
    with torch.no_grad():
        torch.testing.assert_close(model(**prompt).logits, hero(**prompt).logits, rtol=1e-5, atol=1e-5)
    assert model.config.use_cache and all(
        torch.equal(one, two) for one, two in zip(model.parameters(), hero.parameters(), strict=True)
    )


def test_a_saved_hero_is_one_file_of_weights_with_tokenizer_and_template(saved):
    _, folder = saved
    names = {path.name for path in folder.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    } <= names
    assert [name for name in names if name.endswith(".safetensors")] == ["model.safetensors"]


def test_weights_are_never_saved_without_a_tokenizer(tmp_path):
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        save_model(micro_hero(7), tmp_path, tmp_path / "gone")


def test_the_same_seed_hatches_the_same_hero_and_leaves_the_random_stream_alone():
    random_state = torch.get_rng_state()
    one, two, three = micro_hero(7), micro_hero(7), micro_hero(8)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert plain(one.state_dict()) == plain(two.state_dict()) != plain(three.state_dict())
    assert 1e6 < sum(parameter.numel() for parameter in one.parameters()) < 5e6
