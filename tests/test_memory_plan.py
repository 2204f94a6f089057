"""The memory plan: its arithmetic against what torch allocates, its choices, and the verb that shows them."""

import json
import os
import platform
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen3Config, Qwen3ForCausalLM

import core.forge.divergence as divergence_module
import core.forge.loss as loss_module
from core import memory_needs
from core.errors import UserError
from core.forge.adamw import RealmAdamW
from core.forge.attend import SHORT
from core.forge.attention import ATTENTION
from core.forge.generate import TOKENS_AT_ONCE, greedy_answers
from core.forge.hatch import micro_hero
from core.forge.loss import hidden_states, loss_sum
from core.forge.packing import Pack, pack
from core.forge.qwen3 import Compute, autocast
from core.memory_needs import CPU, GIB, MAPPED_HEAP, Beside, Means, Shape, components, total
from core.memory_plan import candidates, plan
from core.paths import CHECKOUT, RealmPaths
from core.school_config import WhisperSettings
from core.schools import school
from training.cli import main

QWEN = {
    "Qwen3-0.6B": Shape(1024, 28, 16, 8, 128, 3072, 151_936, tied=True),
    "Qwen3-1.7B": Shape(2048, 28, 16, 8, 128, 6144, 151_936, tied=True),
    "Qwen3-4B": Shape(2560, 36, 32, 8, 128, 9728, 151_936, tied=True),
}
SMALL = Shape(96, 3, 4, 2, 32, 256, 512, tied=True)
FP32, BF16, AUTOCAST = Means(compute="fp32"), Means(weights="bf16", rounding="stochastic"), Means()
COMPARED = ("COMPARED_AT_ONCE", "LEAST_COMPARED")
LIBRARY = platform.libc_ver()[0]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config_of(shape: Shape) -> Qwen3Config:
    return Qwen3Config(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
        attention_bias=shape.biased,
    )


def model_of(shape: Shape, means: Means = FP32) -> torch.nn.Module:
    model = Qwen3ForCausalLM(config_of(shape)).to(torch.bfloat16 if means.weights == "bf16" else torch.float32)
    model.set_attn_implementation(ATTENTION)
    return model.train()


def rows(tokens: int, vocabulary: int, count: int = 4) -> Pack:
    """A pack in which every position is learned: the most that there can be."""
    chance, length = np.random.default_rng(1), tokens // count
    some = [(chance.integers(0, vocabulary, length).astype(np.uint32), np.ones(length, bool)) for _ in range(count)]
    return replace(
        pack(some), at_N=torch.arange(tokens), labels_N=torch.from_numpy(chance.integers(0, vocabulary, tokens))
    )


# Parameters


@pytest.mark.parametrize(
    "shape", [*QWEN.values(), SMALL, replace(SMALL, tied=False), replace(SMALL, biased=True, heads=6, kv_heads=3)]
)
def test_parameters_are_counted_as_transformers_counts_them(shape):
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config_of(shape))
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.vectors == sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 1)


def test_the_shape_of_a_saved_hero_is_read_from_its_config(tmp_path):
    hero = micro_hero(3)
    hero.config.save_pretrained(tmp_path)
    assert Shape.read(tmp_path).parameters == sum(parameter.numel() for parameter in hero.parameters())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model_type": "llama"}, "llama"),
        ({"hidden_size": None}, "hidden_size"),
        ({"num_hidden_layers": -1}, "num_hidden_layers"),
        ({"vocab_size": "many"}, "vocab_size"),
        ({"head_dim": True}, "head_dim"),
    ],
)
def test_a_model_that_cannot_be_planned_is_named_with_what_is_wrong(tmp_path, change, named):
    values = {**config_of(SMALL).to_dict(), **change}
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=named):
        Shape.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_config_that_is_no_json_object_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        Shape.read(tmp_path)


# Bytes, against what torch does


def kept_bytes(model: torch.nn.Module, packed: Pack, means: Means) -> int:
    """What autograd keeps of a forward pass, each storage once, weights not."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast("cpu", means.autocast):
        hidden_states(model, packed)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("means", [FP32, BF16, AUTOCAST])
@pytest.mark.parametrize("shape", [SMALL, replace(SMALL, heads=6, kv_heads=1, intermediate=160)])
def test_activations_are_those_that_autograd_keeps(shape, means):
    tokens, found = 256, {}
    for layers in (1, 3):
        model = model_of(replace(shape, layers=layers), means)
        found[layers] = kept_bytes(model, rows(tokens, shape.vocabulary, count=4), means)
    layer = (found[3] - found[1]) / 2
    copies = 2 * shape.layer_matrices if means == AUTOCAST else 0
    attention = memory_needs.attention_activations(shape, means, tokens // 4, CPU)
    assert layer - copies == tokens * (memory_needs.layer_activations(shape, means) + attention)
    assert found[1] - layer == tokens * memory_needs.other_activations(shape, means)


def test_what_is_known_of_loss_and_attention_is_theirs():
    assert memory_needs.LOGITS_AT_ONCE == loss_module.LOGITS_AT_ONCE
    assert memory_needs.COMPARED_AT_ONCE == divergence_module.LOGITS_AT_ONCE
    assert memory_needs.LEAST_COMPARED == divergence_module.LEAST_ROWS
    assert memory_needs.ANSWERED_AT_ONCE == TOKENS_AT_ONCE
    assert {"fp32": SHORT[torch.float32], "bf16": SHORT[torch.bfloat16]} == memory_needs.SHORT


def named(found: tuple, beginning: str) -> int:
    return sum(component.bytes for component in found if component.name.startswith(beginning))


@pytest.mark.parametrize(
    ("moments", "rounding"), [("fp32", "stochastic"), ("8bit", "stochastic"), ("bf16", "kahan"), ("8bit", "kahan")]
)
def test_the_optimizers_state_is_as_large_as_planned(moments, rounding):
    means = replace(BF16, moments=moments, rounding=rounding)
    model = model_of(SMALL, means)
    optimizer = RealmAdamW(model.parameters(), state=moments, rounding=rounding)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    steps = 8 * len(optimizer.state)
    measured = sum(tensor.nbytes for state in optimizer.state.values() for tensor in state.values()) - steps
    planned = components(SMALL, means, 64)
    assert measured == pytest.approx(named(planned, "moments") + named(planned, "remainders"), rel=0.001)


def peak_bytes(work) -> int:
    """The most bytes that `work` allocates at a time, done once before."""
    work()
    with torch.profiler.profile(profile_memory=True) as profile:
        work()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


def peak_beyond_weights(model: torch.nn.Module, packed: Pack, means: Means, summed=loss_sum) -> int:
    """The most bytes that a pass allocates at a time, when gradients are there already."""

    def one_pass() -> None:
        with autocast("cpu", means.autocast):
            loss = summed(model, packed, Compute(recompute_every=means.recompute_every))
        loss.backward()

    return peak_bytes(one_pass)


@pytest.mark.parametrize(
    "means",
    [
        FP32,
        BF16,
        AUTOCAST,
        replace(FP32, recompute_every=1),
        replace(BF16, recompute_every=2),
        replace(AUTOCAST, recompute_every=1),
    ],
)
@pytest.mark.parametrize("rows_at_once", [64, None])
def test_the_peak_of_a_pass_is_as_high_as_planned(monkeypatch, means, rows_at_once):
    shape, tokens = replace(SMALL, layers=4, vocabulary=2048), 512
    if rows_at_once:
        for module in (loss_module, memory_needs):
            monkeypatch.setattr(module, "LOGITS_AT_ONCE", rows_at_once * shape.vocabulary)
    means = replace(means, pack_tokens=tokens)
    measured = peak_beyond_weights(model_of(shape, means), rows(tokens, shape.vocabulary), means)
    planned = [
        component for component in components(shape, means, tokens // 4, CPU, snapshot=False) if component.counts
    ]
    expected = sum(
        component.bytes
        for component in planned
        if component.name.startswith(("activations", "loss", "backward", "weights' copies"))
    )
    assert 0.9 * expected < measured < 1.05 * expected


@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("means", [FP32, BF16, AUTOCAST, replace(FP32, recompute_every=1)])
@pytest.mark.parametrize("compared", [64, 512])
def test_the_peak_of_a_pass_beside_a_teacher_is_as_high_as_planned(monkeypatch, means, beta, compared):
    shape, tokens = replace(SMALL, vocabulary=2048), 512
    teacher = replace(SMALL, hidden=160, layers=2, vocabulary=2048)
    for module, names in ((memory_needs, COMPARED), (divergence_module, ("LOGITS_AT_ONCE", "LEAST_ROWS"))):
        for name, count in zip(names, (1, compared), strict=True):
            monkeypatch.setattr(module, name, count)
    whisper = school("whisper", WhisperSettings(teacher="sage", beta=beta))
    whisper.teacher = model_of(teacher, means).requires_grad_(False)
    means = replace(means, pack_tokens=tokens)
    measured = peak_beyond_weights(model_of(shape, means), rows(tokens, shape.vocabulary), means, whisper.loss_sum)
    found = components(
        shape, means, tokens // 4, CPU, snapshot=False, beside=Beside("teacher", teacher, 1, 4 if beta else 3)
    )
    expected = sum(
        component.bytes
        for component in found
        if component.counts and component.name.startswith(("activations", "loss", "backward", "weights' copies"))
    )
    assert named(found, "teacher's weights") == 1
    assert 0.9 * expected < measured < 1.05 * expected


@pytest.mark.parametrize("means", [FP32, BF16])
def test_keys_and_values_of_answers_are_as_large_as_planned(means):
    shape, tokens, count = replace(SMALL, layers=12, hidden=32, vocabulary=64), 1000, 4
    model = model_of(shape, means)
    prompts = [np.arange(tokens - 20) % 60 + place for place in range(count)]
    measured = peak_bytes(lambda: greedy_answers(model, prompts, (), 20))
    planned = memory_needs.answers(shape, means, Beside(answers=count * tokens))
    assert 0.9 * planned < measured < 1.1 * planned


def test_a_parent_is_a_hero_more_and_answers_count_where_they_are_the_most():
    alone = components(SMALL, FP32, 64, CPU)
    beside = components(SMALL, FP32, 64, CPU, beside=Beside("parent"))
    assert total(beside) - total(alone) == 4 * SMALL.parameters == named(beside, "parent's weights")
    few, many = (components(SMALL, FP32, 64, CPU, beside=Beside(answers=count)) for count in (1000, 1 << 20))
    assert total(few) == total(alone) and named(few, "keys and values")
    passing = ("activations", "loss", "backward", "gradients", "holes", "weights' copies")
    kept = sum(each.bytes for each in alone if each.counts and not each.name.startswith(passing))
    assert total(many) == kept + named(many, "keys and values")


STEPS = """
import gc, json, sys
import numpy as np
gc.disable()  # as the trainer's process does
import core.worker, torch
from core.forge.attention import ATTENTION
from core.forge.generate import TOKENS_AT_ONCE, greedy_answers
from core.forge.hatch import micro_hero
from core.forge.loss import loss_sum
from core.forge.packing import pack
from core.forge.qwen3 import Compute

gc.freeze()
gc.enable()
tokens, recompute = int(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
model = micro_hero(3)
model.set_attn_implementation(ATTENTION)
model.train()
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
chance = np.random.default_rng(1)
for step in range(3):
    for _ in range(2):
        rows = [(chance.integers(0, 4000, tokens // 4).astype(np.uint16), np.ones(tokens // 4, bool)) for _ in range(4)]
        loss_sum(model, pack(rows), Compute(recompute_every=recompute)).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
print(next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(
    LIBRARY != "glibc" or not Path("/proc/self/status").exists(), reason="figures are those of glibc on Linux"
)
@pytest.mark.parametrize(
    ("tokens", "recompute", "mapped", "tolerance"), [(2048, 0, True, 0.1), (2048, 1, True, 0.1), (2048, 0, False, 0.1)]
)
def test_training_a_micro_hero_takes_the_memory_that_was_planned(tmp_path, tokens, recompute, mapped, tolerance):
    micro_hero(3).config.save_pretrained(tmp_path)
    means = Means(compute="fp32", recompute_every=recompute, pack_tokens=tokens, mapped=mapped)
    planned = total(components(Shape.read(tmp_path), means, 512, CPU, snapshot=False))
    environment = {
        key: value for key, value in os.environ.items() if key not in MAPPED_HEAP and not key.startswith("MALLOC_")
    }
    done = subprocess.run(
        [sys.executable, "-c", STEPS, str(tokens), str(recompute)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env=environment | (MAPPED_HEAP if mapped else {}),
        check=True,
    )
    assert planned == pytest.approx(int(done.stdout), rel=tolerance)


# Choices


@pytest.mark.parametrize("max_length", [1024, 4096])
def test_on_24_gib_the_smallest_has_fp32_masters_and_the_others_bf16_with_moments_of_8_bits(max_length):
    chosen = {name: plan(shape, 24 * GIB, max_length) for name, shape in QWEN.items()}
    assert all(one.fits for one in chosen.values())
    small, middle, large = (one.means for one in chosen.values())
    assert (small.weights, small.moments, small.rounding, small.release) == ("fp32", "fp32", "none", False)
    for means in (middle, large):
        assert (means.weights, means.moments, means.rounding) == ("bf16", "8bit", "stochastic")
    assert not middle.release and large.release
    assert chosen["Qwen3-4B"].total_bytes <= 22 * GIB


def test_the_smallest_real_model_trains_in_20_gib_of_main_memory():
    found = plan(QWEN["Qwen3-0.6B"], 20 * GIB, 1024, target=CPU)
    assert found.fits and (found.means.weights, found.means.compute, found.means.moments) == ("fp32", "fp32", "fp32")
    assert found.means.mapped and found.means.recompute_every == 1
    assert named(found.components, "snapshot") == named(found.components, "weights") + named(
        found.components, "moments"
    )


@given(
    st.sampled_from([*QWEN]),
    st.sampled_from(["cuda", "cpu"]),
    st.integers(1, 120),
    st.sampled_from([256, 1024, 4096, 16384]),
)
def test_a_plan_fits_or_says_what_would(name, target, gib, max_length):
    shape = QWEN[name]
    found = plan(shape, gib * GIB, max_length, target=target)
    assert found.fits == (found.total_bytes <= gib * GIB)
    assert found.means.pack_tokens <= 4096 and found.reasons
    if found.fits:
        assert not found.advice
    else:
        assert f"{found.total_bytes / GIB:.1f} GiB" in found.advice[0]
        assert plan(shape, found.total_bytes, max_length, target=target).fits


@given(st.sampled_from([*QWEN]), st.sampled_from(["cuda", "cpu"]), st.integers(1, 100), st.integers(0, 60))
def test_more_room_never_gets_means_that_are_less_wanted(name, target, gib, more):
    def rank(room: int) -> int:
        wanted = [means for group in candidates(target, 4096, 1024) for means in group]
        found = plan(QWEN[name], room * GIB, 1024, target=target)
        return wanted.index(found.means) if found.fits else len(wanted)

    assert rank(gib + more) <= rank(gib)


def test_shorter_rows_are_advised_where_they_would_fit():
    found = plan(QWEN["Qwen3-1.7B"], 10 * GIB, 32768)
    assert not found.fits
    advised = next(line for line in found.advice if "max_length" in line)
    shorter = int(re.search(r"at most (\d+) tokens", advised)[1])
    assert plan(QWEN["Qwen3-1.7B"], 10 * GIB, shorter, shorter).fits
    assert not plan(QWEN["Qwen3-1.7B"], 10 * GIB, 2 * shorter, 2 * shorter).fits


# The verb


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs `plan` in a realm whose models/ has the published shapes; gives exit code, output and errors."""
    monkeypatch.delenv("REALM_ROOT", raising=False)
    paths = RealmPaths(tmp_path / "realm")
    paths.make()
    for name, shape in QWEN.items():
        config_of(shape).save_pretrained(paths.models / name)

    def run(*words: str) -> tuple[int, str, str]:
        try:
            code = main(["--root", str(paths.root), "plan", *map(str, words)])
        except SystemExit as left:
            code = left.code
        said = capsys.readouterr()
        return code, said.out, said.err

    run.paths = paths
    return run


def test_plan_shows_every_component_the_means_and_why(call):
    call.paths.config.write_text('{"batch_size": 1}')
    code, out, _ = call("--model", call.paths.models / "Qwen3-4B", "--vram", 24, "--max-length", 4096)
    assert code == 0
    for words in (
        "4.0G parameters",
        "weights, bf16",
        "moments, 8bit",
        "activations of 4096 tokens",
        "snapshot",
        "headroom",
        "It fits",
        "gradient release on",
        "computed again",
    ):
        assert words in out
    code, out, _ = call("--model", "Qwen3-4B", "--vram", 24, "--max-length", 4096, "--json")
    found = json.loads(out)
    assert code == 0 and found["fits"] and found["model"] == "Qwen3-4B" and found["means"]["release"]
    counted = sum(
        component["bytes"] for component in found["components"] if component["counts"] and not component["host"]
    )
    assert counted == found["total_bytes"] == 24 * GIB - found["headroom_bytes"]


def test_plan_counts_what_a_school_holds_beside_the_hero(call):
    def planned(*words: str) -> dict[str, int]:
        code, out, err = call("--model", "Qwen3-0.6B", "--vram", 48, "--json", *words)
        assert code == 0, err
        return {each["name"]: each["bytes"] for each in json.loads(out)["components"]}

    parameters = {name: shape.parameters for name, shape in QWEN.items()}
    assert not {"teacher's weights", "parent's weights"} & planned().keys()
    taught = planned("--school", "whisper", "--teacher", "Qwen3-1.7B")
    assert taught["teacher's weights"] == 4 * parameters["Qwen3-1.7B"]
    assert planned("--school", "champion")["keys and values of 16384 tokens of answers"] > GIB
    call.paths.config.write_text(
        json.dumps({"schools": {"champion": {"beta": 0.1}, "whisper": {"teacher": "Qwen3-4B", "on_policy": 0.5}}})
    )
    assert planned("--school", "champion")["parent's weights"] == 4 * parameters["Qwen3-0.6B"]
    heard = planned("--school", "whisper")
    assert (
        heard["teacher's weights"] == 4 * parameters["Qwen3-4B"]
        and "keys and values of 16384 tokens of answers" in heard
    )
    for words, said in (
        (("--school", "whisper", "--teacher", "Qwen9"), "no folder with a config.json"),
        (("--school", "whispers"), "did you mean 'whisper'?"),
        (("--school", "judge", "--teacher", "Qwen3-4B"), "has no teacher"),
    ):
        code, _, err = call("--model", "Qwen3-0.6B", "--vram", 48, *words)
        assert code == 1 and said in err


def test_plan_refuses_with_advice_what_cannot_fit(call):
    code, out, _ = call("--model", "Qwen3-4B", "--vram", 12)
    assert code == 1 and "does not fit" in out and "would do" in out
    code, out, _ = call("--model", "Qwen3-4B", "--vram", 12, "--json")
    assert code == 1 and not json.loads(out)["fits"] and json.loads(out)["advice"]


def test_gradient_release_is_planned_for_all_rows_of_a_step_in_one_pass(call):
    words = ("--model", "Qwen3-4B", "--vram", 24, "--max-length", 2048, "--json")
    call.paths.config.write_text('{"batch_size": 4}')
    assert json.loads(call(*words)[1])["means"]["pack_tokens"] == 8192
    call.paths.config.write_text('{"batch_size": 64}')
    code, out, _ = call(*words)
    assert code == 1 and any("batch_size 4 fits" in line for line in json.loads(out)["advice"])


def test_what_config_decides_is_planned_and_refused_where_it_does_not_fit(call):
    call.paths.config.write_text('{"memory": {"weights": "fp32"}}')
    code, out, _ = call("--model", "Qwen3-1.7B", "--vram", 32)
    assert code == 0 and "weights, fp32" in out
    call.paths.config.write_text('{"memory": {"weights": "fp32", "moments": "fp32"}}')
    code, out, _ = call("--model", "Qwen3-1.7B", "--vram", 24)
    assert code == 1 and "config explain memory" in out
    call.paths.config.write_text('{"memory": {"rounding": "kahan"}}')
    assert "exact remainders" in call("--model", "Qwen3-1.7B", "--vram", 24)[1]
    assert "weights, fp32" in call("--model", "Qwen3-0.6B", "--vram", 24)[1]


@pytest.mark.parametrize("where", [("--vram", 80), ("--cpu", 80)])
def test_layers_that_config_wants_computed_again_are_planned_so(call, where):
    call.paths.config.write_text('{"trainer": {"activation_checkpointing_kwargs": {"every_n_layers": 3}}}')
    assert json.loads(call("--model", "Qwen3-0.6B", *where, "--json")[1])["means"]["recompute_every"] == 3


def test_plan_for_the_cpu_takes_the_memory_that_there_is_or_was_given(call):
    code, out, _ = call("--model", "Qwen3-0.6B", "--cpu", "20", "--json")
    assert code == 0 and json.loads(out)["target"] == "cpu"
    _, out, _ = call("--model", "Qwen3-0.6B", "--cpu", "--json")
    assert json.loads(out)["room_bytes"] > GIB // 4
    call.paths.config.write_text('{"memory": {"gib": 3}}')
    assert json.loads(call("--model", "Qwen3-0.6B", "--cpu", "--json")[1])["room_bytes"] == 3 * GIB


def test_plan_takes_lengths_from_the_realms_settings(call):
    call.paths.config.write_text(json.dumps({"max_length": 8192, "pack_tokens": 2048}))
    found = json.loads(call("--model", "Qwen3-0.6B", "--vram", 80, "--json")[1])
    assert found["max_length"] == 8192 and found["means"]["pack_tokens"] == 2048
    assert any(component["name"] == "activations of 8192 tokens" for component in found["components"])


@pytest.mark.parametrize(
    ("words", "code", "named"),
    [
        (("--vram", "24"), 2, "--model"),
        (("--model", "Qwen3-4B"), 2, "--vram"),
        (("--model", "Qwen3-4B", "--vram", "x"), 2, "'x'"),
        (("--model", "Qwen3-4B", "--vram", "nan"), 2, "'nan'"),
        (("--model", "Qwen3-4B", "--vram", "-1"), 2, "-1"),
        (("--model", "Qwen3-4B", "--vram", "8", "--cpu"), 2, "--cpu"),
        (("--model", "Qwen3-4B", "--vram", "8", "--max-length", "7"), 2, "'7'"),
        (("--model", "elsewhere", "--vram", "8"), 1, "elsewhere"),
    ],
)
def test_a_wrong_question_is_answered_with_its_mistake(call, words, code, named):
    got, out, err = call(*words)
    assert (got, out) == (code, "") and named in err and "Traceback" not in err


def test_plan_answers_without_torch(tmp_path):
    config_of(SMALL).save_pretrained(tmp_path)
    program = (
        "import sys; from training.cli import main; code = main(['plan', '--model', sys.argv[1], '--vram', '8']); "
        "sys.exit(code or 'torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
