"""RealmAdamW and gradient release: no update is lost, few bits follow many, resuming and releasing change nothing."""

import copy
import itertools

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from core.forge import quantized as q
from core.forge.adamw import SMALL, RealmAdamW, advance, read_moments
from core.forge.attention import ATTENTION
from core.forge.gradient_release import GradientRelease
from core.forge.hatch import micro_hero
from core.forge.loss import loss_sum
from core.forge.packing import Pack, pack
from core.forge.state import load_state, save_state

KINDS = [*itertools.product(["fp32", "bf16", "8bit"], ["stochastic", "kahan"])]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Many small operations: threads would mostly wait for each other, and for whatever else this machine does."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def a_hero(dtype=torch.float32) -> torch.nn.Module:
    """A small Qwen3, embedding and head tied; every matrix is large enough for codes of 8 bits."""
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=320,
        hidden_size=96,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).to(dtype)
    model.set_attn_implementation(ATTENTION)
    return model


def sums(step: int, rows: int = 6) -> Pack:
    """Rows that can be learned: a run of tokens that goes up by a step given at its start."""
    chance = np.random.default_rng(step)
    found = []
    for first, stride in zip(chance.integers(0, 64, rows), chance.integers(1, 5, rows), strict=True):
        found.append((np.arange(first, first + 24 * stride, stride).astype(np.uint16), np.arange(24) > 1))
    return pack(found)


def learn(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        packed = sums(step)
        loss = loss_sum(model, packed) / len(packed.labels_N)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    return all(torch.equal(one, two) for one, two in zip(ours.parameters(), theirs.parameters(), strict=True))


# Rounding and codes


def bits(count: int, key: int = 1) -> torch.Tensor:
    return q.random_bits(count, 0, *q.stream_keys(key), torch.device("cpu"))


def test_random_bits_are_even_and_follow_from_counter_and_key_alone():
    drawn = bits(1 << 16)
    assert torch.equal(q.random_bits(100, 500, *q.stream_keys(1), torch.device("cpu")), drawn[500:600])
    assert (drawn == bits(1 << 16, 2)).sum() < 8
    for place in range(32):
        ones = ((drawn >> place) & 1).float().mean().item()
        assert ones == pytest.approx(0.5, abs=0.01), f"bit {place}"
    pairs = torch.stack([q.low_half(drawn).float(), q.high_half(drawn).float(), q.low_half(drawn).float().roll(1)])
    assert (torch.corrcoef(pairs) - torch.eye(3)).abs().max() < 0.02


@pytest.mark.parametrize("value", [1.0, 1.001, -0.0213, 3e-6, -7.77e-30, 0.0, 1234.5])
def test_the_mean_of_stochastic_rounding_is_the_number_itself(value):
    exact = torch.full((1 << 16,), value)
    rounded = q.round_stochastically(exact, torch.arange(1 << 16, dtype=torch.int32)).double()
    near = exact[:1].to(torch.bfloat16)
    assert rounded.mean().item() == pytest.approx(exact[0].item(), rel=1e-6)  # over all 16-bit numbers, once each
    assert len(rounded.unique()) <= 2 and (rounded - exact[0].item()).abs().max() <= near.abs().item() / 128
    drawn = q.round_stochastically(exact, q.low_half(bits(1 << 16))).double()
    assert drawn.mean().item() == pytest.approx(exact[0].item(), rel=1e-4)


def test_what_cannot_be_counted_stays_so_when_rounded():
    strange = torch.tensor([float("inf"), float("-inf"), float("nan")])
    rounded = q.round_stochastically(strange, torch.full((3,), 0xFFFF, dtype=torch.int32))
    assert rounded[0] == strange[0] and rounded[1] == strange[1] and rounded[2].isnan()


def test_bf16_and_its_remainder_are_the_float32_that_was_split():
    exact = torch.cat(
        [torch.randn(10_000, generator=torch.Generator().manual_seed(1)) * 10.0**power for power in range(-30, 30, 6)]
    )
    upper, rest = q.split(exact)
    assert upper.dtype == torch.bfloat16 and rest.dtype == torch.int16
    assert torch.equal(q.join(upper, rest), exact)
    assert ((upper.float() - exact).abs() <= (exact.to(torch.bfloat16).float() - exact).abs()).all()


@pytest.mark.parametrize(
    ("encode", "decode", "power", "codes_in_use"),
    [(q.encode_first, q.decode_first, 1 / 2, 127), (q.encode_second, q.decode_second, 1 / 4, 255)],
)
def test_codes_of_8_bits_are_right_in_the_mean_and_neighbours_in_each(encode, decode, power, codes_in_use):
    generator = torch.Generator().manual_seed(1)
    moment = torch.randn(64, q.BLOCK, generator=generator) * torch.randn(64, 1, generator=generator).exp()
    moment = moment if power == 1 / 2 else moment.square()
    moment[3] = 0.0
    largest = moment.abs().amax(-1, keepdim=True)
    total = torch.zeros_like(moment)
    for key in range(400):
        drawn = q.high_half(bits(moment.numel(), key)).view_as(moment)
        codes, scales = encode(moment, drawn)
        back = decode(codes, scales)
        total += back
        ours, theirs = (((tensor.abs() / largest.clamp(min=1e-9)) ** power).double() for tensor in (back, moment))
        assert (ours - theirs).abs().max() <= 1.001 / codes_in_use and (back * moment >= 0).all()
    assert (total / 400 - moment).abs().sum() < 0.003 * moment.abs().sum()
    torch.testing.assert_close(back.abs().amax(-1, keepdim=True), largest, rtol=1e-6, atol=0)
    assert (back[3] == 0).all()
    assert power == 1 / 2 or ((back > 0) == (moment > 0)).all()


# Lost updates


def applied_over_intended(rounding: str, steps: int, learning_rate: float = 1e-6) -> dict[str, float]:
    """For each tensor of a micro hero's layer, the part of an fp32 master's way that its bf16 weights went."""
    layer = micro_hero(3).to(torch.bfloat16).model.layers[0]
    master = copy.deepcopy(layer).float()
    before = copy.deepcopy(master)
    options = {"lr": learning_rate, "weight_decay": 0.0, "rounding": rounding}
    ours, theirs = (RealmAdamW(one.parameters(), **options) for one in (layer, master))
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(parameter.shape, generator=generator) for parameter in master.parameters()]
    for step in range(steps):
        for one, two, direction in zip(layer.parameters(), master.parameters(), directions, strict=True):
            one.grad = (direction + 0.5 * direction.roll(step)).to(torch.bfloat16)
            two.grad = one.grad.float()
        ours.step()
        theirs.step()
    ratios = {}
    for (name, one), two, start in zip(layer.named_parameters(), master.parameters(), before.parameters(), strict=True):
        rest = ours.state[one].get("remainder")
        applied, intended = (
            ((one.float() if rest is None else q.join(one, rest)) - start).detach(),
            (two - start).detach(),
        )
        ratios[name] = (applied * intended).sum().item() / intended.square().sum().item()
    return ratios


@pytest.mark.parametrize("rounding", ["stochastic", "kahan"])
def test_at_a_learning_rate_of_1e_6_every_tensor_goes_all_of_its_way(rounding):
    ratios = applied_over_intended(rounding, 300)
    assert min(ratios.values()) >= 0.99 and max(ratios.values()) <= 1.01, ratios


def test_naive_bf16_stands_still_at_a_learning_rate_of_1e_6():
    ratios = applied_over_intended("none", 50)
    assert max(ratios.values()) < 0.1, ratios


def test_kahans_weights_are_those_of_an_fp32_master_bit_for_bit():
    model = a_hero(torch.bfloat16)
    master = copy.deepcopy(model).float()
    ours, theirs = RealmAdamW(model.parameters(), lr=1e-4, rounding="kahan"), RealmAdamW(master.parameters(), lr=1e-4)
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        for one, two in zip(model.parameters(), master.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator).to(torch.bfloat16)
            two.grad = one.grad.float()
        ours.step()
        theirs.step()
    for one, two in zip(model.parameters(), master.parameters(), strict=True):
        assert torch.equal(q.join(one.detach(), ours.state[one]["remainder"]), two)
        assert torch.equal(q.split(two.detach())[0], one)


# Learning


def distance(ours: list[float], theirs: list[float]) -> float:
    """The largest gap between two loss curves, each a mean over ten steps, as a part of the first loss."""
    means = (np.reshape(losses, (-1, 10)).mean(1) for losses in (ours, theirs))
    return float(np.abs(np.subtract(*means)).max() / theirs[0])


@pytest.fixture(scope="module")
def reference() -> list[float]:
    """Losses under torch's own AdamW, weights and moments in fp32."""
    model = a_hero()
    return learn(model, torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95)), range(200))


@pytest.mark.parametrize(
    ("dtype", "state", "rounding", "tolerance"),
    [
        (torch.float32, "fp32", "none", 0.0005),
        (torch.float32, "8bit", "none", 0.015),
        (torch.float32, "bf16", "none", 0.015),
        (torch.bfloat16, "fp32", "kahan", 0.015),
        (torch.bfloat16, "8bit", "stochastic", 0.015),
    ],
)
def test_the_loss_follows_fp32_adamw_over_200_steps(reference, dtype, state, rounding, tolerance):
    model = a_hero(dtype)
    optimizer = RealmAdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), state=state, rounding=rounding)
    losses = learn(model, optimizer, range(200))
    assert reference[-1] < 0.3 * reference[0]
    assert distance(losses, reference) < tolerance


def test_one_step_is_torchs_adamw_step():
    ours, theirs = a_hero(), a_hero()
    options = {"lr": 1e-3, "betas": (0.8, 0.95), "eps": 1e-6, "weight_decay": 0.1}
    learn(ours, RealmAdamW(ours.parameters(), **options), range(3))
    learn(theirs, torch.optim.AdamW(theirs.parameters(), **options), range(3))
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("state", ["8bit", "bf16"])
def test_a_second_moment_decays_at_its_rate_where_a_step_is_less_than_a_code(state):
    weight = torch.nn.Parameter(torch.zeros(SMALL))
    optimizer = RealmAdamW([weight], lr=0.0, betas=(0.9, 0.999), state=state)
    steady = torch.arange(SMALL) % q.BLOCK == 0  # one element of each block holds its scale where it is
    for step in range(500):
        weight.grad = torch.where(steady, 1.0, 0.5 if step == 0 else 0.0)
        optimizer.step()
    second = read_moments(optimizer.state[weight])[1].view(-1)[~steady]
    assert second.mean().item() == pytest.approx(0.001 * 0.25 * 0.999**499, rel=0.05)


def test_an_update_is_one_graph_that_can_be_compiled():
    for state, rounding in KINDS:
        plain, traced = (torch.nn.Parameter(torch.linspace(-1, 1, 5000).to(torch.bfloat16)) for _ in range(2))
        ours, theirs = (RealmAdamW([weight], lr=1e-3, state=state, rounding=rounding) for weight in (plain, traced))
        theirs.compiled, theirs._advance = True, torch.compile(advance, backend="eager", dynamic=True, fullgraph=True)
        for weight in (plain, traced):
            weight.grad = torch.linspace(-1, 1, 5000).to(torch.bfloat16)
        for _ in range(2):
            ours.step()
            theirs.step()
        assert torch.equal(plain, traced), (state, rounding)


# Resuming


@pytest.mark.parametrize(("state", "rounding"), KINDS)
def test_a_run_that_is_resumed_from_files_is_the_uninterrupted_one_bit_for_bit(tmp_path, state, rounding):
    def fresh(seed: int):
        model = a_hero(torch.bfloat16)
        named = [*model.named_parameters()]
        groups = [
            {
                "params": [parameter for name, parameter in named if ("norm" in name) == norms],
                "weight_decay": 0.0 if norms else 0.1,
            }
            for norms in (False, True)
        ]
        return model, RealmAdamW(groups, lr=1e-3, state=state, rounding=rounding, seed=seed)

    straight, optimizer = fresh(5)
    learn(straight, optimizer, range(4))
    save_state(tmp_path, optimizer)
    weights = copy.deepcopy(straight.state_dict())
    learn(straight, optimizer, range(4, 8))
    resumed, other = fresh(6)
    resumed.load_state_dict(weights)
    load_state(tmp_path, other)
    learn(resumed, other, range(4, 8))
    assert same(resumed, straight)
    for one, two in zip(resumed.parameters(), straight.parameters(), strict=True):
        ours, theirs = other.state[one], optimizer.state[two]
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_seed_rounds_otherwise():
    models = [a_hero(torch.bfloat16) for _ in range(2)]
    for seed, model in enumerate(models):
        learn(model, RealmAdamW(model.parameters(), lr=1e-3, seed=seed), range(1))
    assert not same(*models)


@pytest.mark.parametrize(("state", "rounding"), KINDS)
def test_the_moments_of_torchs_adamw_and_of_other_kinds_are_taken_over(tmp_path, state, rounding):
    model = a_hero()
    theirs = torch.optim.AdamW(model.parameters(), lr=1e-3)
    learn(model, theirs, range(3))
    save_state(tmp_path, theirs)
    heir = a_hero(torch.bfloat16)
    ours = RealmAdamW(heir.parameters(), state=state, rounding=rounding)
    load_state(tmp_path, ours)
    back = RealmAdamW(a_hero().parameters())
    back.load_state_dict(ours.state_dict())
    for one, two, three in zip(model.parameters(), heir.parameters(), back.param_groups[0]["params"], strict=True):
        assert ours.state[two]["step"] == back.state[three]["step"] == 3
        for name in ("exp_avg", "exp_avg_sq"):
            true, kept = theirs.state[one][name], back.state[three][name]
            assert (kept - true).norm() < (0.02 if true.numel() >= SMALL else 1e-6) * true.norm(), name


def test_moments_of_8_bits_take_a_quarter_of_the_memory():
    sizes = {}
    for state in ("fp32", "8bit"):
        model = a_hero(torch.bfloat16)
        optimizer = RealmAdamW(model.parameters(), state=state)
        learn(model, optimizer, range(1))
        sizes[state] = sum(tensor.nbytes for kept in optimizer.state.values() for tensor in kept.values())
    assert sizes["8bit"] < 0.27 * sizes["fp32"]


# Gradient release


@pytest.mark.parametrize(("state", "rounding"), KINDS)
def test_steps_inside_the_backward_pass_are_the_ordinary_ones_bit_for_bit(state, rounding):
    ordinary, released = a_hero(torch.bfloat16), a_hero(torch.bfloat16)
    options = {"lr": 1e-3, "state": state, "rounding": rounding}
    learn(ordinary, RealmAdamW(ordinary.parameters(), **options), range(3))
    optimizer = RealmAdamW(released.parameters(), **options)
    release = GradientRelease(optimizer, max_norm=1e6)
    for step in range(3):
        release.begin()
        learn(released, optimizer, range(step, step + 1))
    assert same(ordinary, released)


def test_a_layer_that_is_computed_again_in_the_backward_pass_is_so_before_its_weights_move():
    models = [a_hero(), a_hero()]
    for model, again in zip(models, (False, True), strict=True):
        model.train()
        if again:
            model.activation_checkpointing_enable()
        optimizer = RealmAdamW(model.parameters(), lr=1e-3)
        release = GradientRelease(optimizer)
        for step in range(2):
            release.begin()
            learn(model, optimizer, range(step, step + 1))
    assert same(*models)


def test_one_gradient_or_two_live_at_a_time():
    """The largest sum of live gradients, looked at whenever one becomes whole."""
    largest = {}
    for released in (False, True):
        model = a_hero()
        optimizer = RealmAdamW(model.parameters())
        seen: list[int] = []

        def look(_, model=model, seen=seen) -> None:
            seen.append(sum(each.grad.nbytes for each in model.parameters() if each.grad is not None))

        for parameter in model.parameters():
            parameter.register_post_accumulate_grad_hook(look)
        if released:
            GradientRelease(optimizer)
        learn(model, optimizer, range(1))
        largest[released] = max(seen)
    parameters = [parameter.nbytes for parameter in a_hero().parameters()]
    assert largest == {False: sum(parameters), True: max(parameters)}


def test_the_peak_of_a_step_is_lower_by_most_of_the_gradients():
    peaks = {}
    for released in (False, True):
        model = micro_hero(3)
        model.set_attn_implementation(ATTENTION)
        optimizer = RealmAdamW(model.parameters())
        learn(model, optimizer, range(1))
        release = GradientRelease(optimizer) if released else None
        packed = sums(1, rows=1)
        with torch.profiler.profile(profile_memory=True) as profile:
            loss_sum(model, packed).backward()
            optimizer.step()
        peaks[released] = peak_of(profile)
        assert release is None or release.norm() > 0
    gradients = sum(parameter.nbytes for parameter in model.parameters())
    embedding = model.lm_head.weight.nbytes  # tied: lives to the end, and once more as the embedding's own share
    assert peaks[False] - peaks[True] > 0.8 * (gradients - 2 * embedding)


def peak_of(profile: torch.profiler.profile) -> int:
    """The highest sum of all that was allocated and not yet freed."""
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return int(np.cumsum([event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]).max())


def test_a_second_backward_pass_in_one_step_is_refused():
    model = a_hero()
    release = GradientRelease(RealmAdamW(model.parameters()))
    loss_sum(model, sums(0)).backward()
    with pytest.raises(AssertionError, match="second backward pass"):
        loss_sum(model, sums(1)).backward()
    release.begin()
    release.remove()
    loss_sum(model, sums(1)).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_clipping_spares_what_the_whole_norm_would_spare_and_damps_the_rest():
    def gradients_after(max_norm: float) -> tuple[list[torch.Tensor], float]:
        model, applied = a_hero(), []
        optimizer = RealmAdamW(model.parameters())
        update = optimizer.update
        optimizer.update = lambda parameter, group: (applied.append(parameter.grad.clone()), update(parameter, group))
        release = GradientRelease(optimizer, max_norm)
        loss_sum(model, sums(0)).backward()
        return applied, release.norm().item()

    model = a_hero()
    loss_sum(model, sums(0)).backward()
    whole = torch.nn.utils.clip_grad_norm_(model.parameters(), float("inf")).item()
    free, norm = gradients_after(0.0)
    assert norm == pytest.approx(whole, rel=1e-5)
    spared, _ = gradients_after(1.01 * whole)
    assert all(torch.equal(one, two) for one, two in zip(free, spared, strict=True))
    damped, norm = gradients_after(0.1 * whole)
    assert norm == pytest.approx(whole, rel=1e-5)
    clipped = torch.stack([gradient.norm() for gradient in damped]).norm().item()
    assert clipped < 0.25 * whole and max(gradient.norm() for gradient in damped) <= 0.1 * whole
    for one, two in zip(free, damped, strict=True):
        torch.testing.assert_close(one / one.norm(), two / two.norm())
