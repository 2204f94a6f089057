"""HeroTrainer on a real tiny Qwen3: it learns, never resets, keeps its rhythm, and can be left and taken up bit for bit."""

import json
import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from core.battle import BattlePlan
from core.config import Config, check_config
from core.errors import UserError
from core.forge.attention import ATTENTION
from core.forge.evaluate import evaluate
from core.forge.hatch import micro_hero
from core.forge.loss import loss_sum
from core.forge.optimizers import OptimizerKind, weights_to_use
from core.forge.packing import packs_of
from core.forge.schedule_free import OPTIM, ScheduleFreeAdamW
from core.forge.state import load_state, save_model, save_state
from core.forge.step_loader import StepLoader
from core.learning_rate import learning_rate_of, one_minus_sqrt
from core.optimizer_names import DEFAULT
from core.paths import BUNDLED_TOKENIZER
from core.prepare import prepare
from core.quest import Settings, Sidecar, check_sidecar, freeze
from core.rendering import Renderer
from core.train import HeroTrainer

pytestmark = pytest.mark.usefixtures("small_hero")

RATE = 1e-3
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Threads that wait for each other on busy cores make a step take seconds."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Recorder:
    """An observer that keeps everything, saves where it is asked to, and may stop the battle after a step."""

    stop_ids = ()

    def __init__(self, trainer: HeroTrainer, stop_after: int | None = None, folder=None):
        self.trainer, self.stop_after, self.folder = trainer, stop_after, folder
        self.steps, self.validations, self.answers, self.saves, self.order = [], [], [], [], []

    def after_step(self, facts):
        self.steps.append(facts)
        return facts.step == self.stop_after

    def validated(self, global_step, evaluation):
        self.validations.append((global_step, evaluation.loss))
        self.order.append("validated")

    def answered(self, global_step, asked, answers):
        self.answers.append((global_step, answers))

    def save(self, global_step, step):
        self.saves.append((global_step, step))
        self.order.append("saved")
        if self.folder:
            self.folder.mkdir()
            with weights_to_use(self.trainer.optimizer):
                save_model(self.trainer.model, self.folder, BUNDLED_TOKENIZER)
                save_state(self.folder, self.trainer.optimizer)

    @property
    def losses(self):
        return [facts.loss.item() for facts in self.steps]


@pytest.fixture(scope="module")
def renderer():
    return Renderer.load(BUNDLED_TOKENIZER, 64)


@pytest.fixture
def plan(tmp_path, renderer):
    """A function that makes the plan of a small quest."""

    def make(name="quest", rows=40, **changes) -> BattlePlan:
        path = tmp_path / f"{name}.jsonl"
        lines = [
            {"question": f"{name} {NUMBERS[n // 10]} {NUMBERS[n % 10]}?", "answer": f"It is {NUMBERS[n % 7]}."}
            for n in range(rows)
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        settings = settings_with(**changes)
        return BattlePlan(
            prepare(path, "question", settings, renderer, tmp_path / f"{name}.prepared"), settings, f"{rows:064x}"
        )

    return make


def settings_with(**changes) -> Settings:
    known = {"batch_size": 8, "validation_fraction": 0.1, "eval_steps": 100, "save_steps": 100, "cooldown_share": 0.0}
    return Settings(**(freeze(Config(), Sidecar()).model_dump() | known | changes))


def hero(dropout=0.0):
    model = micro_hero(3)
    model.set_attn_implementation(ATTENTION)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    return model


def trainer_of(model, tmp_path, global_step=0, optim=None) -> HeroTrainer:
    torch.manual_seed(11)
    trainer = HeroTrainer(model, tmp_path / "trainer", global_step, kind=OptimizerKind(optim or DEFAULT))
    trainer.look_share = float("inf")  # however short these battles are, they may be looked at
    return trainer


def fight(trainer, plan, first=0, rate=RATE, **kwargs) -> Recorder:
    recorder = Recorder(trainer, **kwargs)
    trainer.fight(plan, first, rate, recorder)
    return recorder


def weights(model) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in model.state_dict().items()}


# Learning


@pytest.mark.micro
def test_the_loss_falls_and_so_does_that_of_rows_it_never_saw(plan, tmp_path):
    trainer = trainer_of(hero(), tmp_path)
    quest = plan(rows=80, epochs=4, eval_steps=9)
    recorder = fight(trainer, quest)
    assert len(recorder.steps) == quest.total_steps == 36
    assert np.mean(recorder.losses[-4:]) < np.mean(recorder.losses[:4]) - 2.0
    assert recorder.validations[-1][1] < recorder.validations[0][1] - 1.0
    assert all(math.isfinite(loss) for loss in recorder.losses)


def test_a_battle_is_a_plain_loop_of_adamw_on_the_mean_loss_of_each_steps_labels(plan, tmp_path):
    quest = plan(epochs=2, trainer={"weight_decay": 0.1, "adam_beta2": 0.99, "warmup_steps": 4, "max_grad_norm": 0.5})
    trainer = trainer_of(hero(), tmp_path)
    recorder = fight(trainer, quest)
    model, norms = hero(), []
    decayed = [parameter for name, parameter in model.named_parameters() if "norm" not in name]
    others = [parameter for name, parameter in model.named_parameters() if "norm" in name]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.99)
    )
    for step in range(quest.total_steps):
        packs = packs_of(quest.sequences_of(quest.rows_of(step)), quest.settings.pack_tokens or 4096)
        loss = sum(loss_sum(model, pack) for pack in packs) / sum(len(pack.labels_N) for pack in packs)
        assert recorder.losses[step] == pytest.approx(loss.item(), rel=1e-4)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5).item())
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 4)
        optimizer.step()
        optimizer.zero_grad()
    for (name, ours), theirs in zip(trainer.model.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, msg=name)
    assert [float(facts.gradient_norm) for facts in recorder.steps] == pytest.approx(norms, rel=1e-3)


@pytest.mark.parametrize("changes", [{"packing": False}, {"pack_tokens": 40}, {"pack_tokens": 100}])
def test_packing_changes_how_fast_is_trained_and_not_what(plan, tmp_path, changes):
    one, two = trainer_of(hero(), tmp_path), trainer_of(hero(), tmp_path)
    first, second = fight(one, plan()), fight(two, plan(**changes))
    assert first.losses == pytest.approx(second.losses, rel=1e-4)
    assert [facts.tokens for facts in first.steps] == [facts.tokens for facts in second.steps]


def test_a_step_is_batch_size_rows_whatever_their_length(plan, tmp_path):
    quest = plan(rows=43, validation_fraction=0.0)
    recorder = fight(trainer_of(hero(), tmp_path), quest)
    sizes = [sum(len(tokens) for tokens, _ in quest.sequences_of(quest.rows_of(step))) for step in range(6)]
    assert [facts.tokens for facts in recorder.steps] == sizes and [len(quest.rows_of(step)) for step in range(6)] == [
        8
    ] * 5 + [3]


# Rows


def test_every_epoch_trains_every_row_once_in_another_order(plan):
    quest = plan(epochs=3)
    epochs = [[row for step in range(first, first + quest.steps_per_epoch) for row in quest.rows_of(step)]
              for first in range(0, quest.total_steps, quest.steps_per_epoch)]  # fmt: skip
    trained = sorted(set(range(40)) - set(quest.held_out_rows.tolist()))
    assert all(sorted(epoch) == trained for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_held_out_rows_are_never_in_a_batch_and_neither_are_their_copies(tmp_path, renderer):
    lines = [
        json.dumps({"question": f"{NUMBERS[n % 10]} {NUMBERS[n // 10 % 10]}?", "answer": NUMBERS[n % 7]})
        for n in range(50)
    ] * 2
    (tmp_path / "quest.jsonl").write_text("\n".join(lines) + "\n")
    settings = settings_with(validation_fraction=0.2, epochs=2)
    quest = BattlePlan(
        prepare(tmp_path / "quest.jsonl", "question", settings, renderer, tmp_path / "prepared"), settings, "ab" * 32
    )
    held_out = {tokens.tobytes() for tokens, _ in quest.sequences_of(quest.held_out_rows.tolist())}
    trained = [sequence.numpy().astype(np.uint16).tobytes() for batch in StepLoader(quest, 0) for pack in batch.packs
               for sequence in pack.tokens_T.split(pack.lengths)]  # fmt: skip
    assert 1 <= len(quest.held_out_rows) <= 20 and len(trained) == 2 * quest.training_rows
    assert not held_out & set(trained)
    assert {lines[line - 1] for line in quest.held_out_lines}.isdisjoint(
        lines[quest.prepared.line(row) - 1] for step in range(quest.steps_per_epoch) for row in quest.rows_of(step)
    )


def test_another_seed_holds_out_and_orders_other_rows_and_the_same_seed_the_same(plan):
    one, same, other = plan("a", seed=1), plan("a", seed=1), plan("b", seed=2)
    assert one.rows_of(0) == same.rows_of(0) and one.held_out_lines == same.held_out_lines
    assert one.rows_of(0) != other.rows_of(0) and one.held_out_lines != other.held_out_lines


# Rhythm


def test_evaluations_come_by_the_global_step_and_at_the_end_and_what_is_saved_between_is_the_observers_to_say(
    plan, tmp_path
):
    trainer = trainer_of(hero(), tmp_path)
    first = fight(trainer, plan("one", epochs=2, eval_steps=4, save_steps=6))  # 10 steps
    second = fight(trainer, plan("two", epochs=2, eval_steps=4, save_steps=5))
    assert [step for step, _ in first.validations] == [0, 4, 8, 10] and first.saves == [(10, 10)]
    assert [step for step, _ in second.validations] == [10, 12, 16, 20] and second.saves == [(20, 10)]
    assert first.order[-2:] == ["validated", "saved"], "the last checkpoint knows its validation loss"


def test_a_quest_of_one_row_is_trained_without_an_evaluation(plan, tmp_path):
    recorder = fight(trainer_of(hero(), tmp_path), plan(rows=1))
    assert (len(recorder.steps), recorder.validations, recorder.saves) == (1, [], [(1, 1)])


def test_stopping_saves_at_that_step_and_evaluates_nothing_more(plan, tmp_path):
    recorder = fight(trainer_of(hero(), tmp_path), plan(eval_steps=3), stop_after=3)
    assert [facts.step for facts in recorder.steps] == [1, 2, 3]
    assert recorder.saves == [(3, 3)] and [step for step, _ in recorder.validations] == [0]


def test_stopping_in_the_last_step_is_no_stop(plan, tmp_path):
    recorder = fight(trainer_of(hero(), tmp_path), plan(), stop_after=5)
    assert recorder.saves == [(5, 5)] and [step for step, _ in recorder.validations] == [0, 5]


def test_the_validation_loss_is_that_of_the_held_out_rows_alone(plan, tmp_path):
    quest, trainer = plan(rows=60), trainer_of(hero(), tmp_path)
    recorder = fight(trainer, quest)
    total, labels = 0.0, 0
    with torch.no_grad():
        for tokens, trained in quest.sequences_of(quest.held_out_rows.tolist()):
            logits = trainer.model(torch.from_numpy(tokens.astype(np.int64))[None]).logits[0, :-1]
            losses = torch.nn.functional.cross_entropy(
                logits, torch.from_numpy(tokens.astype(np.int64))[1:], reduction="none"
            )
            total += losses[torch.from_numpy(trained[1:].copy())].sum().item()
            labels += int(trained[1:].sum())
    assert recorder.validations[-1][1] == pytest.approx(total / labels, rel=1e-5)


def test_looking_more_often_changes_neither_weights_nor_random_streams(plan, tmp_path):
    models, seen = [hero(dropout=0.1), hero(dropout=0.1)], []
    for model, every in zip(models, (1, 100), strict=True):
        recorder = fight(trainer_of(model, tmp_path), plan(eval_steps=every, save_steps=every))
        seen.append((len(recorder.validations), len(recorder.answers), torch.get_rng_state().tolist()))
    assert weights(models[0]) == weights(models[1]) and seen[0][2] == seen[1][2]
    assert seen[0][:2] == (6, 5) and seen[1][:2] == (2, 1), "one look ahead of the first step, without answers"


def test_a_battle_that_has_no_time_for_it_is_looked_at_at_its_two_ends_only(plan, tmp_path):
    trainer = trainer_of(hero(), tmp_path)
    trainer.look_share = 0.0
    recorder = fight(trainer, plan(eval_steps=1))
    assert [step for step, _ in recorder.validations] == [0, 5] and [step for step, _ in recorder.answers] == [5]


def test_a_battle_is_evaluated_before_its_first_step_and_not_when_it_is_taken_up(plan, tmp_path):
    quest, trainer = plan(epochs=12), trainer_of(hero(), tmp_path)
    assert [step for step, _ in fight(trainer, quest, stop_after=2).validations] == [0]
    assert fight(trainer, quest, first=2, stop_after=4).validations == []


# From battle to battle


def test_momentum_step_count_and_warm_up_go_on_in_the_next_battle(plan, tmp_path):
    trainer = trainer_of(hero(), tmp_path)
    first = fight(trainer, plan("one", trainer={"warmup_steps": 8}))
    moments = [state["exp_avg"].clone() for state in trainer.optimizer.state.values()]
    second = fight(trainer, plan("two", trainer={"warmup_steps": 8}))
    assert [facts.global_step for facts in first.steps + second.steps] == list(range(1, 11))
    assert [facts.step for facts in second.steps] == [1, 2, 3, 4, 5] and trainer.global_step == 10
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {10}
    assert any(moment.abs().max() > 0 for moment in moments)
    assert [facts.learning_rate for facts in first.steps + second.steps] == pytest.approx(
        [RATE * min(1, n / 8) for n in range(1, 11)]
    )


def test_a_second_battle_differs_from_one_that_starts_without_momentum(plan, tmp_path):
    resident, fresh = hero(), hero()
    trainer = trainer_of(resident, tmp_path)
    fight(trainer, plan("one"))
    fresh.load_state_dict(resident.state_dict())
    fight(trainer, plan("two"))
    fight(trainer_of(fresh, tmp_path, global_step=5), plan("two"))
    assert weights(resident) != weights(fresh)


def test_each_battle_trains_with_its_own_settings_and_the_next_with_the_defaults_again(plan, tmp_path):
    trainer = trainer_of(hero(), tmp_path)
    seen = []
    for name, rate, keys in (
        ("one", 1e-3, {"weight_decay": 0.3, "adam_beta1": 0.5, "warmup_steps": 0}),
        ("two", 5e-4, {}),
    ):
        fight(trainer, plan(name, trainer=keys), rate=rate)
        seen += [(group["lr"], group["weight_decay"], group["betas"]) for group in trainer.optimizer.param_groups]
    assert seen[:2] == [(1e-3, 0.3, (0.5, 0.95)), (1e-3, 0.0, (0.5, 0.95))]
    assert [each[1:] for each in seen[2:]] == [(0.0, (0.9, 0.95))] * 2
    norms = {id(parameter) for name, parameter in trainer.model.named_parameters() if "norm" in name}
    assert norms == {id(parameter) for parameter in trainer.optimizer.param_groups[1]["params"]}


def test_a_battle_that_resets_forgets_the_moments_and_warms_up_from_its_first_step(plan, tmp_path):
    resident, fresh = hero(), hero()
    trainer = trainer_of(resident, tmp_path)
    fight(trainer, plan("one"))
    fresh.load_state_dict(resident.state_dict())
    keys = {"optimizer_state": "reset", "trainer": {"warmup_steps": 4}}
    rates = [facts.learning_rate for facts in fight(trainer, plan("two", **keys)).steps]
    assert rates == pytest.approx([RATE * min(1, n / 4) for n in range(1, 6)])
    fight(trainer_of(fresh, tmp_path), plan("two", trainer={"warmup_steps": 4}))
    assert weights(resident) == weights(fresh)


def test_config_says_whether_moments_are_reset_a_sidecar_overrides_it_and_older_cards_carry():
    config = check_config({"training_defaults": {"optimizer_state": "reset"}})
    assert freeze(config, Sidecar()).optimizer_state == "reset"
    assert freeze(config, check_sidecar({"optimizer_state": "carry"}, "x")).optimizer_state == "carry"
    older = freeze(config, Sidecar()).model_dump(exclude={"optimizer_state"})
    assert Settings(**older).optimizer_state == "carry"
    with pytest.raises(UserError, match="optimizer_state"):
        check_sidecar({"optimizer_state": "forget"}, "x")


def test_a_schedule_of_its_own_sets_a_battles_rate_step_by_step(plan, tmp_path):
    trainer = trainer_of(hero(), tmp_path, global_step=7)
    recorder = Recorder(trainer)
    trainer.fight(plan(), 0, RATE, recorder, one_minus_sqrt(5))
    expected = [RATE * (1 - (n / 5) ** 0.5) for n in range(5)]
    assert [facts.learning_rate for facts in recorder.steps] == pytest.approx(expected) and expected[0] == RATE


def test_a_battle_with_a_cooldown_ends_at_rest_and_the_next_begins_with_all_of_the_rate(plan, tmp_path):
    trainer, falling = trainer_of(hero(), tmp_path, global_step=100), plan(cooldown_share=0.4)
    rates = [facts.learning_rate for facts in fight(trainer, falling).steps]
    assert rates == pytest.approx([RATE * share for share in (1, 1, 1, 1 - (1 / 3) ** 0.5, 1 - (2 / 3) ** 0.5)])
    assert fight(trainer, plan("two")).steps[0].learning_rate == RATE
    taken_up = Recorder(trainer := trainer_of(hero(), tmp_path, global_step=104))
    trainer.fight(falling, 4, RATE, taken_up)
    assert [facts.learning_rate for facts in taken_up.steps] == rates[4:]


def test_config_and_sidecar_say_whether_the_rate_falls_and_older_cards_know_of_no_such_thing():
    config = check_config({"training_defaults": {"cooldown_share": 0.25}})
    assert freeze(config, Sidecar()).cooldown_share == 0.25
    assert freeze(config, check_sidecar({"cooldown_share": 0.0}, "x")).cooldown_share == 0.0
    assert Settings(**freeze(config, Sidecar()).model_dump(exclude={"cooldown_share"})).cooldown_share == 0.0
    halved = freeze(config, check_sidecar({"rate_share": 0.5}, "x"))
    assert learning_rate_of(halved, 1_000_000, 0) == learning_rate_of(freeze(config, Sidecar()), 1_000_000, 0) / 2
    with pytest.raises(UserError, match="cooldown_share"):
        check_sidecar({"cooldown_share": 1.5}, "x")


def test_a_hero_that_grew_up_here_trains_at_a_rate_that_falls_with_its_age_and_for_small_steps_sooner():
    def shares(parameters, rows, **settings):
        frozen = freeze(check_config(settings), Sidecar(batch_size=rows))
        return [learning_rate_of(frozen, parameters, step) for step in (0, 500, 4_500, 12_000, 10**6)]

    assert shares(1_000_000, 64) == pytest.approx([1e-3, 1e-3 / 2**0.5, 1e-3 / 10**0.5, 2e-4, 2e-4])
    assert shares(1_000_000, 512) == shares(1_000_000, 64), "what is larger is no louder"
    assert shares(50_000_000, 8) == pytest.approx([5e-4 / (1 + 8 * age) ** 0.5 for age in (0, 1, 9, 24, 24)])
    assert set(shares(600_000_000, 8)) == {1e-5}, "what was pretrained was old when it came"
    assert set(shares(1_000_000, 8, learning_rate=3e-4)) == {3e-4}, "a rate that is named is that rate"
    assert shares(1_000_000, 64, school="champion")[:3] == pytest.approx([3e-4, 3e-4, 3e-4])
    assert shares(1_000_000, 64, school="champion")[3] == pytest.approx(2e-4)


# Schedule-free


def test_a_schedule_free_hero_has_no_use_for_a_rate_that_falls(plan, tmp_path):
    trainer = trainer_of(hero(), tmp_path, global_step=100, optim="schedule_free_adamw")
    rates = {facts.learning_rate for facts in fight(trainer, plan(cooldown_share=0.4)).steps}
    assert rates == {RATE}


def test_schedule_free_training_is_the_papers_algorithm_and_uses_the_mean_of_its_steps(plan, tmp_path):
    torch.manual_seed(5)
    layer, target = torch.nn.Linear(6, 3), torch.randn(20, 3)
    inputs, rates = torch.randn(20, 6), [1e-3, 2e-3, 2e-3, 2e-3, 2e-3]
    x = [parameter.detach().double() for parameter in layer.parameters()]
    z, second = [each.clone() for each in x], [torch.zeros_like(each) for each in x]
    optimizer = ScheduleFreeAdamW(layer.parameters(), betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for step, rate in enumerate(rates, 1):
        y = [0.1 * one + 0.9 * other for one, other in zip(z, x, strict=True)]
        gradients = torch.autograd.grad(
            (inputs.double() @ (w := y[0].requires_grad_()).T + (b := y[1].requires_grad_()) - target).square().mean(),
            (w, b),
        )
        share = rate**2 / sum(each**2 for each in rates[:step])
        for number, gradient in enumerate(gradients):
            second[number] = 0.95 * second[number] + 0.05 * gradient**2
            direction = gradient / ((second[number] / (1 - 0.95**step)).sqrt() + 1e-8) + 0.1 * y[number].detach()
            z[number] = z[number] - rate * direction
            x[number] = (1 - share) * x[number] + share * z[number]
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        (layer(inputs) - target).square().mean().backward()
        optimizer.step()
    training = [parameter.detach().clone() for parameter in layer.parameters()]
    with weights_to_use(optimizer):
        for ours, theirs in zip(layer.parameters(), x, strict=True):
            torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-6)
    assert all(torch.equal(now, before) for now, before in zip(layer.parameters(), training, strict=True))


def test_a_schedule_free_hero_learns_and_is_judged_and_saved_by_the_mean_of_its_weights(plan, tmp_path):
    trainer = trainer_of(hero(), tmp_path, optim=OPTIM)
    quest = plan(rows=80, epochs=3, eval_steps=9)
    recorder = fight(trainer, quest, folder=tmp_path / "saved")
    assert recorder.validations[-1][1] < recorder.validations[0][1] - 0.5
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32, attn_implementation=ATTENTION)
    assert weights(saved) != weights(trainer.model)
    packs = packs_of(quest.sequences_of(quest.held_out_rows.tolist()), quest.settings.pack_tokens or 4096)
    assert evaluate(saved, packs).loss == recorder.validations[-1][1] == trainer.held_out_loss(quest)


def test_a_schedule_free_battle_that_resets_begins_anew_from_the_mean_of_its_weights(plan, tmp_path):
    trainer, fresh = trainer_of(hero(), tmp_path, optim=OPTIM), hero()
    fight(trainer, plan("one"))
    with weights_to_use(trainer.optimizer):
        fresh.load_state_dict(trainer.model.state_dict())
    fight(trainer, plan("two", optimizer_state="reset"))
    fight(trainer_of(fresh, tmp_path, optim=OPTIM), plan("two"))
    assert weights(trainer.model) == weights(fresh)


# Left and taken up


def resumed(folder, tmp_path, global_step, dropout, optim=None) -> HeroTrainer:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=ATTENTION)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = dropout
    trainer = HeroTrainer(model, tmp_path / "trainer", global_step, kind=OptimizerKind(optim or DEFAULT))
    torch.rand(17)  # whatever happened while it was down
    load_state(folder, trainer.optimizer)
    return trainer


@pytest.mark.parametrize(("stops", "dropout", "changes", "optim"), [
    ((1,), 0.0, {}, None), ((2, 3, 5), 0.0, {}, None), ((2, 4), 0.1, {}, None),
    ((3,), 0.1, {"packing": False, "eval_steps": 2}, None), ((1, 4), 0.0, {"optimizer_state": "reset"}, None),
    ((2, 4), 0.0, {"eval_steps": 3}, OPTIM), ((3,), 0.0, {"optimizer_state": "reset"}, OPTIM)])  # fmt: skip
def test_a_battle_that_was_left_and_taken_up_ends_in_the_same_weights_bit_for_bit(
    plan, tmp_path, stops, dropout, changes, optim
):
    quest, before = plan(rows=24, epochs=2, trainer={"warmup_steps": 6}, **changes), plan("before", rows=16)
    whole = trainer_of(hero(dropout), tmp_path, optim=optim)
    fight(whole, before)
    whole_steps = fight(whole, quest).steps

    trainer = trainer_of(hero(dropout), tmp_path, optim=optim)
    fight(trainer, before)
    first, steps = 0, []
    for number, stop in enumerate(stops):
        recorder = fight(trainer, quest, first, stop_after=stop, folder=tmp_path / f"saved{number}")
        assert recorder.saves == [(before.total_steps + stop, stop)]
        steps += recorder.steps
        folder = tmp_path / f"saved{number}"
        trainer, first = resumed(folder, tmp_path, before.total_steps + stop, dropout, optim), stop
    steps += fight(trainer, quest, first).steps
    assert weights(trainer.model) == weights(whole.model)
    keys = ("global_step", "step", "learning_rate", "tokens")
    assert [[getattr(facts, key) for key in keys] for facts in steps] == [
        [getattr(facts, key) for key in keys] for facts in whole_steps
    ]
    assert [facts.loss.item() for facts in steps] == [facts.loss.item() for facts in whole_steps]


def test_a_resident_hero_that_only_pauses_goes_on_the_same_way(plan, tmp_path):
    quest = plan(epochs=2)
    whole = trainer_of(hero(0.1), tmp_path)
    fight(whole, quest)
    halting = trainer_of(hero(0.1), tmp_path)
    fight(halting, quest, stop_after=4)
    fight(halting, quest, first=4)
    assert weights(halting.model) == weights(whole.model)
