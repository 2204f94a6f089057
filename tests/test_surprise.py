"""Surprise weighting: what weighs how much, over which schools, and the Oracle's battle."""

import numpy as np
import pytest
import torch
from resident import Killed, accept_sums, dying_at, fight, resident

from core import checkpoints
from core.between_steps import BetweenSteps
from core.checkpoints import Manifest
from core.config import Config
from core.forge.hatch import micro_hero
from core.forge.label_scores import label_scores
from core.forge.loss import hidden_states, loss_sum
from core.forge.packing import packs_of
from core.forge.step_guard import StepGuard
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import Sidecar, freeze
from core.school_config import Schools, Surprise
from core.schools import school
from core.schools.surprise import surprise, weights

pytestmark = pytest.mark.usefixtures("small_hero")


@pytest.fixture(scope="module")
def hero():
    model = micro_hero(2)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(3)
    return model


@pytest.fixture(scope="module")
def pack():
    draw = np.random.default_rng(1)
    (found,) = packs_of([(draw.integers(5, 4000, length), draw.random(length) < 0.7) for length in (9, 40, 3)], 400)
    return found


def test_each_measure_is_what_its_name_says(hero, pack):
    scores = label_scores(hero, pack, entropy=True, runner_up=True)
    with torch.no_grad():
        chances_NV = (hidden_states(hero, pack) @ hero.lm_head.weight.T).softmax(-1)
    label_N = chances_NV.gather(1, pack.labels_N[:, None])[:, 0]
    others_NV = chances_NV.scatter(1, pack.labels_N[:, None], 0)
    wanted = {
        "entropy": -(chances_NV * chances_NV.log()).sum(-1),
        "probability": 1 - label_N,
        "margin": 1 - (label_N - others_NV.amax(-1)),
    }
    for measure, values_N in wanted.items():
        torch.testing.assert_close(surprise(scores, measure), values_N, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("measure", ["entropy", "probability", "margin"])
def test_weights_are_1_on_average_and_none_is_0(measure, hero, pack):
    scores = label_scores(hero, pack, entropy=True, runner_up=True)
    found_N = weights(scores, Surprise(measure=measure, strength=2.0, floor=0.05))
    assert found_N.mean().item() == pytest.approx(1, rel=1e-5) and found_N.min() > 0
    assert (found_N.argsort() == surprise(scores, measure).argsort()).float().mean() > 0.9 and not found_N.requires_grad
    assert torch.equal(weights(scores, Surprise(measure=measure, strength=0.0)), torch.ones_like(found_N))


def test_the_shift_is_right_a_label_weighs_by_its_own_probability(hero, pack):
    """The gradient of a weighted loss is that of the weighted sum of single labels' losses."""
    oracle = school("oracle", None, Surprise(warmup_steps=0))
    hero.zero_grad()
    oracle.loss_sum(hero, pack).backward()
    ours = hero.lm_head.weight.grad.clone()
    hero.zero_grad()
    logits_NV = hidden_states(hero, pack) @ hero.lm_head.weight.T
    nats_N = torch.nn.functional.cross_entropy(logits_NV, pack.labels_N, reduction="none")
    weight_N = (1 - (-nats_N.detach()).exp()).clamp(min=0.1)
    (weight_N / weight_N.mean() * nats_N).sum().backward()
    torch.testing.assert_close(ours, hero.lm_head.weight.grad, rtol=1e-4, atol=1e-6)


def test_it_is_off_for_the_warm_up(hero, pack):
    oracle = school("oracle", None, Surprise(warmup_steps=3))
    for step, weighs in ((0, False), (2, False), (3, True)):
        oracle.begin(step)
        same = oracle.loss_sum(hero, pack).item() == pytest.approx(loss_sum(hero, pack).item(), rel=1e-6)
        assert same != weighs


SUMS = [{"question": f"{n} plus 1?", "answer": f"It is {n + 1}."} for n in range(128)]
TASTES = [{"prompt": f"Say {n}.", "chosen": f"{n}.", "rejected": f"{n}! {n}!"} for n in range(128)]


def trained(paths: RealmPaths, rows: list[dict], **settings) -> Manifest:
    """The tip after a quest of `rows`, in a realm of its own."""
    paths.make()
    hero = resident(paths, Ledger(paths.ledger))
    quest = accept_sums(paths, hero.ledger, "rows", rows=rows, save_steps=2, **settings)
    assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)
    return hero.tip


@pytest.mark.parametrize(("name", "rows"), [("oracle", SUMS), ("judge", TASTES)])
def test_a_weighed_battle_is_another_and_killed_it_goes_on_to_the_same_weights(name, rows, tmp_path, monkeypatch):
    def weighed(strength: float) -> dict:
        wished = {"school": name} if name == "oracle" else {}
        return wished | {"schools": Schools(surprise=Surprise(warmup_steps=1, strength=strength))}

    plain, straight = (trained(RealmPaths(tmp_path / str(n)), rows, **weighed(n)) for n in (0.0, 1.0))
    assert straight.settings["school"] == name and straight.files != plain.files
    with monkeypatch.context() as patch:
        patch.setattr(BetweenSteps, "after_step", dying_at(5))
        with pytest.raises(Killed):
            trained(paths := RealmPaths(tmp_path / "killed"), rows, **weighed(1.0))
    hero = resident(paths, Ledger(paths.ledger))
    assert 0 < hero.tip.step < 5 and fight(hero) and hero.tip.files == straight.files


def test_a_quest_is_weighed_only_if_it_or_its_realm_says_so():
    realm = Config(schools=Schools(surprise=Surprise(strength=2.0)))
    assert freeze(Config(), Sidecar(schools=Schools.model_validate({"surprise": None}))).schools.surprise is None
    assert freeze(realm, Sidecar()).schools.surprise.strength == 2.0
    assert freeze(realm, Sidecar(schools=Schools.model_validate({"surprise": None}))).schools.surprise is None
    own = freeze(realm, Sidecar(schools=Schools.model_validate({"surprise": {"measure": "margin"}}))).schools.surprise
    assert (own.measure, own.strength) == ("margin", 2.0)


@pytest.mark.parametrize(("name", "form"), [("judge", "label"), ("champion", "reward")])
def test_held_out_losses_are_not_weighed_so_that_they_compare_before_and_after_the_warm_up(name, form, hero):
    draw = np.random.default_rng(2)
    rows = [(draw.integers(5, 4000, 12), np.arange(12) > 3) for _ in range(3)]
    beside = [dict.fromkeys(("reference", "old"), np.full(8, -7.0, np.float32)) for _ in rows]
    for each, value in zip(beside, (1.0, -1.0, 1.0), strict=True):
        each |= {"side": value, "advantage": value}
    packs = packs_of(rows, 400, True, beside)
    plain = school(name, form=form)
    weighed = school(name, None, Surprise(warmup_steps=0, strength=4.0), form)
    assert weighed.evaluate(hero, packs).loss == plain.evaluate(hero, packs).loss
    assert weighed.loss_sum(hero, packs[0]).item() != pytest.approx(plain.loss_sum(hero, packs[0]).item(), rel=1e-6)


def _gradients(ours, model, packs) -> tuple[float, torch.Tensor]:
    """A step's loss and all gradients, pass after pass, as the trainer takes it."""
    model.zero_grad()
    ours.begin(0, model, packs)
    total = torch.zeros(())
    for pack in packs:
        loss = ours.loss_sum(model, pack) / ours.units(packs)
        loss.backward()
        total += loss.detach()
    total = ours.settled(total, model)
    return total.item(), torch.cat([parameter.grad.flatten() for parameter in model.parameters()])


CASES = {
    "oracle": {},
    "scribe": {"surprise": Surprise(measure="margin", strength=3.0, warmup_steps=0)},
    "judge": {"form": "preference"},
    "champion": {"form": "reward"},
    "whisper": {"surprise": Surprise(measure="entropy", warmup_steps=0)},
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_is_the_same_in_one_pass_and_in_many(name, hero):
    draw = np.random.default_rng(3)
    rows = [(draw.integers(5, 4000, length), np.arange(length) > 3) for length in (12, 30, 7, 40, 9, 21)]
    rows += [
        (np.zeros(4, np.int64), np.arange(4) > 3),
        (draw.integers(5, 4000, 12), np.arange(12) > 8),
    ]  # one has no label
    beside = [dict.fromkeys(("reference", "old"), np.full(int(learned.sum()), -7.0, np.float32)) for _, learned in rows]
    for place, each in enumerate(beside):
        each["advantage"] = (-1.0) ** place
    options = {"surprise": Surprise(warmup_steps=0)} | CASES[name]
    ours = school(name, **options)
    if name == "whisper":
        ours.teacher = micro_hero(7)
    one, few, many = (packs_of(rows, room, True, beside, ours.together) for room in (400, 70, 1))
    assert len(one) == 1 < len(few) < len(many) >= 4
    loss, gradients = _gradients(ours, hero, one)
    plain, _ = _gradients(school(name, form=options.get("form", "messages")) if name != "whisper" else ours, hero, one)
    for packs in (few, many):
        again, others = _gradients(ours, hero, packs)
        assert again == pytest.approx(loss, rel=1e-6)
        assert (others - gradients).norm() <= 1e-6 * gradients.norm()
    if name == "scribe":
        assert loss != pytest.approx(plain, rel=1e-3)


def test_a_weighed_battle_is_the_same_however_large_its_passes_are(tmp_path, monkeypatch):
    seen: list[list[torch.Tensor]] = []
    clip = StepGuard.clip

    def looking(self, parameters, optimizer, loss, max_norm):
        parameters = list(parameters)
        seen.append([loss.detach().clone(), *(parameter.grad.clone() for parameter in parameters)])
        return clip(self, parameters, optimizer, loss, max_norm)

    monkeypatch.setattr(StepGuard, "clip", looking)
    wished = {"school": "oracle", "schools": Schools(surprise=Surprise(warmup_steps=0)), "batch_size": 64}
    for tokens in (4096, 64):
        trained(RealmPaths(tmp_path / str(tokens)), SUMS[:70], pack_tokens=tokens, **wished)
    first, second = seen[0], seen[len(seen) // 2]  # of the same weights; afterwards they part by what rounding leaves
    for mine, other in zip(first, second, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6 * mine.abs().max().item())
