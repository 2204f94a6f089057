"""What is no number never reaches the weights, is never saved, promoted or woken up on; spikes are clipped."""

import json
import math
import shutil
import sqlite3
from dataclasses import replace

import numpy as np
import pytest
import torch
from resident import accept_sums, resident
from safetensors.torch import load_file, save_file

import core.schools.base
from core import checkpoints, rendering
from core.battle_report import BattleReport
from core.checkpoints import pointed, verify
from core.config import Temple
from core.durable import read_json
from core.errors import NotFinite, UserError
from core.forge.adamw import RealmAdamW
from core.forge.gradient_release import GradientRelease
from core.forge.guard import LEFT_OUT, LOSS_SPIKE, NORM_SPIKE, NOT_FINITE, PASSED_OVER, Record, Spoiled, Stretch
from core.forge.hatch import hatch, micro_hero
from core.forge.state import save_model
from core.forge.step_guard import WARM_UP, StepGuard
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.train import HeroTrainer

pytestmark = pytest.mark.usefixtures("small_hero")

NAN = float("nan")


# The policy


@pytest.mark.parametrize(
    ("total", "bad", "stretch"),
    [
        (1000, [7, 30, 31, 200], None),
        (4, [2, 4], None),
        (1000, [40, 41, 42], Stretch(20, 42)),
        (4, [1, 3, 4], Stretch(1, 4)),
        (300, [10, 50, 90, 130], Stretch(110, 130)),
    ],
)
def test_one_bad_step_is_left_out_and_three_in_a_row_or_more_than_one_in_a_hundred_go_back(total, bad, stretch):
    record = Record("battle")
    try:
        for step in bad:
            record.take(step, NAN, 1.0, total)
            record = Record.of(json.loads(json.dumps(record.values())))  # as through a checkpoint
        found = None
    except Spoiled as spoiled:
        found = spoiled.stretch
        after = Record.after("battle", spoiled)
        assert not spoiled.again and after.passes_over(bad[-1]) and not after.passes_over(bad[-1] + 1)
        after.take(bad[-1] + 1, NAN, NAN, 1000)
        with pytest.raises(Spoiled) as again:
            after.take(bad[-1] + 2, NAN, NAN, 100), after.take(bad[-1] + 3, NAN, NAN, 100)
        assert again.value.again and [each.step for each in again.value.bad][: len(bad)] == bad
    assert found == stretch


# The step


def fed(guard, count=WARM_UP + 5, seed=0):
    """`guard` after ordinary steps."""
    dice = np.random.default_rng(seed)
    for _ in range(count):
        guard.look(torch.tensor(float(dice.normal(2.0, 0.1))), torch.tensor(float(np.exp(dice.normal(0.0, 0.15)))))
    return guard


def gradient(values):
    parameter = torch.nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return parameter, torch.optim.AdamW([parameter], fused=True)


@pytest.mark.parametrize(("max_norm", "expected"), [(0.0, None), (1.0, 1.0), (100.0, None)])
def test_a_gradient_that_spikes_is_clipped_to_the_running_bound_and_others_as_ever(max_norm, expected):
    guard = fed(StepGuard(torch.device("cpu")))
    bound, before = guard.bound().item(), guard.running.clone()
    assert 1.8 < bound < 4.0 and guard.flags == 0
    parameter, optimizer = gradient([300.0, 400.0])
    norm = guard.clip([parameter], optimizer, torch.tensor(2.0), max_norm)
    assert norm == 500.0 and int(guard.flags) == NORM_SPIKE
    assert parameter.grad.norm().item() == pytest.approx(expected or bound, rel=1e-4)
    assert (guard.running[0, 0].exp() < 1.3 * before[0, 0].exp()).item(), "the spike itself is not learned from"
    parameter, optimizer = gradient([0.6, 0.8])
    guard.clip([parameter], optimizer, torch.tensor(9.0), max_norm)
    assert int(guard.flags) == LOSS_SPIKE and parameter.grad.norm().item() == pytest.approx(1.0)


@pytest.mark.parametrize(("loss", "value"), [(NAN, 1.0), (math.inf, 1.0), (2.0, NAN), (2.0, -math.inf)])
def test_an_optimizer_never_sees_what_is_no_number_and_the_statistics_do_not_either(loss, value):
    guard = fed(StepGuard(torch.device("cpu")))
    before = guard.running.clone()
    parameter, optimizer = gradient([1.0, value])
    guard.clip([parameter], optimizer, torch.tensor(loss), 1.0)
    optimizer.step()
    assert int(guard.flags) == NOT_FINITE and not parameter.any() and not optimizer.state
    assert torch.equal(guard.running, before)


@pytest.mark.parametrize("kind", ["torch", "fp32", "bf16", "8bit", "kahan"])
def test_on_a_device_an_update_is_masked_and_where_nothing_is_wrong_it_is_the_same_bit_for_bit(kind):
    def after(marks):
        torch.manual_seed(4)
        dtype = torch.bfloat16 if kind in ("kahan", "bf16") else torch.float32
        parameters = [torch.nn.Parameter(torch.randn(64, 80).to(dtype)), torch.nn.Parameter(torch.randn(7).to(dtype))]
        options = {"state": "fp32", "rounding": "kahan"} if kind == "kahan" else {"state": kind}
        optimizer = torch.optim.AdamW(parameters, fused=True) if kind == "torch" else RealmAdamW(parameters, **options)
        for mark in marks:
            for parameter in parameters:
                parameter.grad = torch.full_like(parameter, NAN) if mark else torch.randn_like(parameter)
            optimizer.found_inf = None if mark is None else torch.tensor(float(mark))
            optimizer.step()
        moments = [tensor for state in optimizer.state.values() for name, tensor in state.items() if name != "step"]
        return [tensor.contiguous().view(torch.uint8).tolist() for tensor in (*parameters, *moments)]

    assert after([None, None, None]) == after([0, 0, 0])
    assert after([0, 0, 1]) == after([0, 0])


def test_gradient_release_moves_nothing_from_the_first_broken_gradient_on_and_all_as_ever_without_one():
    def after(loss_of, bound=None):
        torch.manual_seed(4)
        model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
        before = [parameter.detach().clone() for parameter in model.parameters()]
        release = GradientRelease(RealmAdamW(model.parameters()), 1.0)
        release.begin(bound)
        loss = loss_of(model)
        release.mind(loss)
        loss.backward()
        moved = [not torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True)]
        return moved, [parameter.detach().numpy().tobytes() for parameter in model.parameters()]

    inputs = torch.ones(4, 8)
    sound = after(lambda model: model(inputs).square().sum())
    assert sound == after(lambda model: model(inputs).square().sum(), torch.tensor(math.inf)) and all(sound[0])
    assert not any(after(lambda model: model(inputs).square().sum() * math.inf)[0])

    def breaks_between(model):
        middle = model[0](inputs)
        middle.register_hook(lambda grad: grad * NAN)
        return model[1](middle).square().sum()

    assert after(breaks_between)[0] == [False, False, True, True]


# In a battle


@pytest.fixture
def hero(realm, ledger):
    """A hero that has woken up, one thread, its checkpoint 0 promoted."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield resident(realm, ledger)
    torch.set_num_threads(before)


@pytest.fixture
def spoil(monkeypatch):
    """Have the rows of chosen steps of a quest give no number, whenever they are trained: `chosen(step, stem)`."""

    def plant(chosen, harm=lambda loss: loss * NAN):
        passes = HeroTrainer._passes

        def spoiled(self, model, batch):
            loss_sum, stem = self._school.loss_sum, self._observer.quest.stem
            if chosen(batch.step + 1, stem):
                monkeypatch.setattr(self._school, "loss_sum", lambda *args: harm(loss_sum(*args)))
            try:
                return passes(self, model, batch)
            finally:
                monkeypatch.setattr(self._school, "loss_sum", loss_sum)

        monkeypatch.setattr(HeroTrainer, "_passes", spoiled)

    return plant


def train(hero):
    while hero.loop():
        pass
    hero.end_writing()


def events(hero, code):
    return hero.ledger.all("SELECT * FROM events WHERE code=? ORDER BY id", (code,))


def recorded(realm):
    with sqlite3.connect(realm.metrics) as record:
        return record.execute("SELECT step, loss, gradient_norm, flags FROM steps ORDER BY step").fetchall()


def weights(paths, which=None):
    return (paths.vault / (which or pointed(paths.tip)) / "model.safetensors").read_bytes()


def test_without_an_anomaly_the_guard_changes_no_bit_of_the_weights(realm, hero, ledger, monkeypatch, tmp_path):
    accept_sums(realm, ledger, "sums", 480, trainer={"warmup_steps": 5})
    twin = RealmPaths(tmp_path / "twin")
    shutil.copytree(realm.root, twin.root, symlinks=True)
    train(hero)
    assert len(recorded(realm)) == 29 > WARM_UP and not any(flags for *_, flags in recorded(realm))

    def as_torch_does(self, parameters, optimizer, loss, max_norm):
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    monkeypatch.setattr(StepGuard, "clip", as_torch_does)
    train(resident(twin, Ledger(twin.ledger)))
    assert weights(realm) == weights(twin)


@pytest.mark.parametrize("harmed", ["data", "gradient"])
def test_one_bad_step_is_left_out_named_by_its_lines_and_the_quest_is_trained(realm, hero, ledger, spoil, harmed):
    def harm(loss):
        if harmed == "gradient":
            loss.register_hook(lambda grad: grad * math.inf)
            return loss
        return loss * NAN

    spoil(lambda step, stem: step == 3, harm)
    quest = accept_sums(realm, ledger, "sums", 160)
    train(hero)
    assert hero.queue.find(quest).state == "recently_completed" and pointed(realm.current_model) == hero.tip.id
    assert [(step, flags) for step, _, _, flags in recorded(realm) if flags] == [(3, NOT_FINITE)]
    (_, loss, norm, _) = recorded(realm)[2]
    assert (loss is None) == (harmed == "data") and norm is None
    (told,) = events(hero, "step_left_out")
    assert "step 3" in told["text"] and len(json.loads(told["data"])["lines"]) == 16
    assert read_json(realm.status) is not None and all(
        parameter.isfinite().all() for parameter in hero.trainer.model.parameters()
    )


def test_three_in_a_row_go_back_and_past_the_stretch_and_a_clock_or_a_kill_changes_no_weight(
    realm, hero, ledger, spoil, monkeypatch, tmp_path
):
    spoil(lambda step, stem: 26 <= step <= 28)
    quest = accept_sums(realm, ledger, "sums", 580, save_steps=4, eval_steps=100)
    twin = RealmPaths(tmp_path / "twin")
    shutil.copytree(realm.root, twin.root, symlinks=True)
    train(hero)
    assert hero.queue.find(quest).state == "recently_completed" and len(events(hero, "went_back")) == 1
    assert [step for step, *_, flags in recorded(realm) if flags == PASSED_OVER] == list(range(6, 29))
    assert not any(flags & LEFT_OUT for step, *_, flags in recorded(realm) if not 6 <= step <= 28)

    class Killed(BaseException):
        pass

    read, lives = BattleReport.read, []
    monkeypatch.setattr("core.between_steps.LOOK_SECONDS", 0.0)
    for last in (5, 20, 31):

        def die(self, last=last):
            found = read(self)
            if self._battle["step"] >= last and len(self.ledger.all("SELECT 1 FROM events WHERE code='went_back'")):
                raise Killed
            return found

        monkeypatch.setattr(BattleReport, "read", die)
        other = resident(twin, Ledger(twin.ledger), "-9")
        with pytest.raises(Killed):
            train(other)
        lives.append(other.tip.open.get(quest))
        other.writer.collect(patient=True)
    monkeypatch.setattr(BattleReport, "read", read)
    train(resident(twin, Ledger(twin.ledger), "-9"))
    assert weights(realm) == weights(twin)


def test_a_quest_that_is_no_number_again_is_set_aside_with_its_dossier_and_the_others_go_on(realm, hero, ledger, spoil):
    spoil(lambda step, stem: stem == "poison" and step >= 5)
    born = pointed(realm.current_model)
    poison = accept_sums(realm, ledger, "poison", 320, save_steps=2)
    hero.loop(), hero.loop()
    failed = hero.queue.find(poison)
    assert failed.state == "failed" and hero.tip.id == pointed(realm.current_model) == pointed(realm.tip) == born
    dossier = failed.report["dossier"]
    assert [step["step"] for step in dossier["steps"]] == [5, 6, 7, 8, 9, 10][: len(dossier["steps"])]
    assert len(dossier["steps"]) >= 4 and "learning_rate" in dossier["advice"]
    assert all(step["loss"] == "nan" and len(step["lines"]) == 16 for step in dossier["steps"])
    good = accept_sums(realm, ledger, "good")
    train(hero)
    assert hero.tip.trained == ((good, good),) and hero.tip.open == {}


# What is saved, promoted, woken up on


def plant_nan(hero, token=5):
    with torch.no_grad():
        hero.trainer.model.model.embed_tokens.weight[-token, 3] = NAN


def test_weights_that_are_no_numbers_are_never_saved_and_the_quest_is_trained_anew(realm, hero, ledger, monkeypatch):
    quest = accept_sums(realm, ledger, "sums", 96)
    sound, born = weights(realm), hero.tip.id
    save = type(hero).save

    def harmed_once(self, *args):
        monkeypatch.setattr(type(hero), "save", save)
        plant_nan(self)
        save(self, *args)

    monkeypatch.setattr(type(hero), "save", harmed_once)
    hero.loop()
    hero.end_writing()
    assert hero.tip.id == pointed(realm.tip) == pointed(realm.current_model) == born and weights(realm) == sound
    assert "embed_tokens" in events(hero, "quest_failed")[0]["text"] and hero.queue.find(quest).state == "normal"
    assert [path.name for path in realm.vault.iterdir() if path.is_dir() and not path.is_symlink()] == [born]
    train(hero)
    assert hero.queue.find(quest).state == "recently_completed" and verify(realm.current_model.resolve())


def test_a_checkpoint_whose_weights_are_no_numbers_is_not_woken_up_on_though_its_sums_are_right(realm, hero, ledger):
    accept_sums(realm, ledger, "sums", 96)
    train(hero)
    before = hero.tip

    def build(folder):
        shutil.copytree(realm.vault / before.id, folder, dirs_exist_ok=True)
        (folder / checkpoints.MANIFEST).unlink()
        tensors = load_file(folder / "model.safetensors")
        tensors["model.embed_tokens.weight"][7, 7] = math.inf
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    broken = checkpoints.commit(realm, replace(before, step=before.step + 1), build)
    for turn in (checkpoints.set_tip, checkpoints.set_current):
        turn(realm, broken.id)
    assert verify(realm.vault / broken.id)
    again = resident(realm, ledger)
    assert again.tip.id == pointed(realm.tip) == pointed(realm.current_model) == before.id
    assert "model.embed_tokens.weight" in events(again, "checkpoint_corrupt")[0]["text"]


def test_a_base_model_with_a_number_that_is_none_is_refused(realm, hero):
    model = micro_hero(3)
    with torch.no_grad():
        model.model.norm.weight[0] = NAN
    save_model(model, realm.models / "broken", BUNDLED_TOKENIZER)
    with pytest.raises(UserError, match=r"broken: model\.norm\.weight"):
        hatch(realm, hero.config)


@pytest.mark.parametrize("mode", ["strict", "off"])
def test_an_evaluation_that_is_no_number_ends_no_battle_and_what_it_looked_at_is_not_promoted(
    realm, hero, ledger, monkeypatch, mode
):
    born, evaluate = hero.tip.id, core.schools.base.evaluate
    hero.config = hero.config.model_copy(update={"temple": Temple(mode=mode)})

    def one_bad_sequence(model, packs):
        found = evaluate(model, packs)
        found.nats_S[0] = NAN
        return replace(found, loss=NAN)

    monkeypatch.setattr(core.schools.base, "evaluate", one_bad_sequence)
    first = accept_sums(realm, ledger, "first", 96)
    train(hero)
    assert hero.queue.find(first).state == "recently_completed" and hero.tip.validation_loss is None
    assert pointed(realm.current_model) == born
    assert "1 of 4 held-out" in events(hero, "evaluation_not_finite")[0]["text"]
    if mode == "strict":
        assert hero.tip.id == born and "1 of 4 held-out" in events(hero, "battle_cursed")[0]["text"]
    else:
        assert hero.tip.trained == ((first, first),) and "not promoted" in events(hero, "checkpoint_unfit")[0]["text"]
    monkeypatch.setattr(core.schools.base, "evaluate", evaluate)
    again = resident(realm, ledger)
    assert pointed(realm.current_model) == born
    accept_sums(realm, ledger, "second", 96)
    train(again)
    assert pointed(realm.current_model) == again.tip.id != born


# Rows and versions that changed meanwhile


def test_a_quest_whose_rows_are_rendered_otherwise_now_begins_anew(realm, hero, ledger, monkeypatch, tmp_path):
    quest = accept_sums(realm, ledger, "sums", 160, save_steps=3)
    straight = RealmPaths(tmp_path / "straight")
    shutil.copytree(realm.root, straight.root, symlinks=True)

    class Killed(BaseException):
        pass

    finish = type(hero).save

    def die_later(self, quest, plan, global_step, step, looked):
        finish(self, quest, plan, global_step, step, looked)
        self.collect(patient=True)
        raise Killed

    monkeypatch.setattr(type(hero), "save", die_later)
    with pytest.raises(Killed):
        train(hero)
    monkeypatch.setattr(type(hero), "save", finish)
    assert hero.tip.open == {quest: 2} and hero.tip.prepared.keys() == {str(quest)}
    monkeypatch.setattr(rendering, "RENDERING_VERSION", 10**6)
    torch.set_num_threads(2)
    again = resident(realm, ledger, "-9")
    torch.set_num_threads(1)
    assert "threads 2 instead of 1" in events(again, "versions_changed")[0]["text"]
    train(again)
    assert "begins anew from the weights before it" in events(again, "quest_anew")[0]["text"]
    train(resident(straight, Ledger(straight.ledger)))
    assert weights(realm) == weights(straight)


def test_not_finite_is_told_by_a_file_without_reading_it_twice():
    from core.forge.tensor_file import not_finite

    tensors = {"a": torch.zeros(3), "b": torch.tensor([1.0, -math.inf]), "c": torch.arange(3), "d": torch.zeros(0)}
    assert not_finite(tensors) == "b" and not_finite({"x": torch.full((2,), NAN).bfloat16()}) == "x"
    assert not_finite({key: tensors[key] for key in "acd"}) is None and issubclass(NotFinite, Exception)
