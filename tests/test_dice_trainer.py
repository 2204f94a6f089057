"""Dice in a plain transformers.Trainer: the callback, the mixin, their checkpoints."""

import math

import pytest
import torch
from test_roll_to_train import Line, Scripted, qwen_parts
from transformers import Trainer, TrainerState, TrainingArguments

from core.dice import DiceCallback, DiceMixin
from core.dice.monsters import WeightWraith
from core.dice_config import Dice
from core.errors import UserError


class Rolled(DiceMixin, Trainer):
    pass


def arguments(folder, **options) -> TrainingArguments:
    usual = {"num_train_epochs": 2, "per_device_train_batch_size": 8, "learning_rate": 5e-3, "report_to": "none"}
    usual |= {
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "save_steps": 5,
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 7,
        "lr_scheduler_type": "constant",
    }
    return TrainingArguments(str(folder), **{**usual, **options})


def trainer(
    folder, dice: Dice | None = None, naturals: tuple[int, ...] = (), mixed: bool = False, **options
) -> Trainer:
    torch.manual_seed(5)
    model, rows, _ = qwen_parts()
    dice = dice or Dice(enabled=True, rules="methodology", dc=8, character_class="wizard")
    if mixed:
        made = Rolled(model, arguments(folder, **options), train_dataset=rows, dice=dice)
        callback = made.dice
    else:
        callback = DiceCallback(dice)
        made = Trainer(model, arguments(folder, **options), train_dataset=rows, callbacks=[callback])
        made.dice = callback
    if naturals:
        callback.chance = Scripted(*naturals)
    return made


def weights(made: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in made.model.parameters()])


def losses(made: Trainer) -> list[float]:
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    "mixed, dice",
    [
        (False, Dice(enabled=True, rules="methodology", dc=8, character_class="fighter", encounter_chance=0.3)),
        (True, Dice(enabled=True, mode="per_mini_batch", dc=8, character_class="cleric", encounter_chance=0.3)),
    ],
    ids=["callback", "mixin"],
)
def test_a_rolled_trainer_learns_and_resumes_bit_for_bit(mixed, dice, tmp_path):
    options = {"dice": dice, "mixed": mixed, "gradient_accumulation_steps": 2, "num_train_epochs": 4}
    whole = trainer(tmp_path / "whole", **options)
    whole.train()
    assert losses(whole)[-1] < 0.9 * losses(whole)[0]
    first = trainer(tmp_path / "cut", **options)
    first.args.max_steps = 5
    first.train()
    second = trainer(tmp_path / "cut", **options)
    second.train(resume_from_checkpoint=True)
    assert torch.equal(weights(second), weights(whole))
    assert second.dice.history == whole.dice.history and len(whole.dice.history) >= 16


def test_a_game_is_read_from_the_folder_that_is_resumed_from(tmp_path):
    first = trainer(tmp_path / "first", mixed=True, max_steps=10)
    first.train()
    five = first.dice.history[:5]
    other = trainer(tmp_path / "other", mixed=True, max_steps=6)
    other.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-5"))
    assert other.dice.history[:5] == five and other.dice.game.turns == 6
    first.args.max_steps = 6
    first.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-5"))
    assert first.dice.history == other.dice.history and first.dice.game.turns == 6, "its own later game is left"
    stranger = trainer(tmp_path / "first", Dice(enabled=True, dc=9), mixed=True, max_steps=20)
    with pytest.raises(UserError, match="other dice: rules = 'methodology', dc = 8"):
        stranger.train(resume_from_checkpoint=True)


@pytest.mark.parametrize("mixed", [False, True])
def test_a_checkpoint_that_was_saved_without_dice_begins_the_game_afresh(mixed, tmp_path):
    torch.manual_seed(5)
    model, rows, _ = qwen_parts()
    Trainer(model, arguments(tmp_path, max_steps=5), train_dataset=rows).train()
    made = trainer(tmp_path, mixed=mixed, max_steps=7)
    with pytest.warns(UserWarning, match="without dice: the game begins afresh"):
        made.train(resume_from_checkpoint=True)
    assert made.dice.game.turns == 2 and len(made.dice.history) == 2


@pytest.mark.parametrize("mode", ["per_accumulation_step", "per_mini_batch"])
def test_the_roll_decides_about_the_update_and_not_about_the_reported_loss(mode, tmp_path):
    dice = Dice(enabled=True, rules="readme", mode=mode, encounter_chance=0)
    options = {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": 1, "mixed": True}

    def moved(natural: int) -> tuple[torch.Tensor, float]:
        made = trainer(tmp_path, dice.model_copy(update={"rules": "readme"}), (natural,), **options)
        before = weights(made).clone()
        made.train()
        return weights(made) - before, losses(made)[0]

    (full, loss), (part, same), (inverse, again) = moved(20), moved(16), moved(1)
    assert loss == same == again
    assert torch.allclose(part, 0.8 * full, atol=1e-6) and torch.allclose(inverse, -full, atol=1e-6)
    assert full.abs().max() > 0


@pytest.mark.parametrize("mixed", [False, True])
def test_a_discarded_step_leaves_weights_and_moments_alone(mixed, tmp_path):
    mode = "per_mini_batch" if mixed else "per_accumulation_step"
    made = trainer(tmp_path, Dice(enabled=True, encounter_chance=0, mode=mode), (1,), mixed=mixed, max_steps=1)
    before = weights(made).clone()
    made.train()
    assert torch.equal(weights(made), before) and not made.optimizer.state
    assert made.dice.history[0]["discarded"]


def test_a_wizards_rate_lasts_one_step_and_the_schedule_keeps_its_own(tmp_path):
    options = {"optim": "sgd", "max_grad_norm": 0.0, "lr_scheduler_type": "linear"}

    def moved(character: str | None, steps: int) -> tuple[torch.Tensor, list[float]]:
        dice = Dice(enabled=True, character_class=character, level=3, encounter_chance=0)
        made = trainer(tmp_path, dice, (20,) * steps, max_steps=steps, **options)
        before = weights(made).clone()
        made.train()
        rates = [entry["learning_rate"] for entry in made.state.log_history if "loss" in entry]
        return weights(made) - before, rates

    assert moved("wizard", 3)[1] == pytest.approx([5e-3, 5e-3 * 2 / 3, 5e-3 / 3])
    assert torch.allclose(moved("wizard", 1)[0], 1.05 * moved(None, 1)[0], atol=3e-7)


def test_weights_are_clean_whenever_the_trainer_saves(tmp_path):
    made = trainer(tmp_path, Dice(enabled=True, encounter_chance=0), (1, 1), max_steps=2, save_steps=1)
    made.dice.game.monster = WeightWraith(1, seed=3)
    before = weights(made).clone()
    made.train()
    assert torch.equal(weights(made), before), "both steps were discarded"
    assert losses(made)[0] > 0


def test_a_scaler_sees_a_step_whose_every_batch_is_discarded(tmp_path):
    dice = DiceCallback(Dice(enabled=True, mode="per_mini_batch", encounter_chance=0))
    dice.sees_losses, dice.chance = True, Scripted(1, 20)
    model = Line()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu")
    state = TrainerState()
    dice.on_train_begin(arguments(tmp_path), state, None, model=model, optimizer=optimizer)
    for moved in (0.0, 0.1 * 0.25):
        before = model.w.detach().clone()
        dice.on_step_begin(None, state, None)
        scaler.scale(dice.roll_for(model(torch.ones(4)).loss)).backward()
        scaler.unscale_(optimizer)
        dice.on_pre_optimizer_step(None, state, None, model=model, optimizer=optimizer)
        scaler.step(optimizer)
        scaler.update()
        dice.on_optimizer_step(None, state, None, optimizer=optimizer)
        optimizer.zero_grad()
        assert before - model.w.detach() == pytest.approx(torch.full((4,), moved).numpy())


def test_a_loss_that_is_no_number_passes_and_its_step_is_neither_taken_nor_rolled(tmp_path):
    dice = DiceCallback(Dice(enabled=True, mode="per_mini_batch", encounter_chance=0, character_class="cleric"))
    dice.sees_losses, dice.chance = True, Scripted(16)
    model = Line()
    optimizer, state = torch.optim.SGD(model.parameters(), lr=0.1), TrainerState()
    dice.on_train_begin(arguments(tmp_path), state, None, model=model, optimizer=optimizer)
    dice.on_step_begin(None, state, None)
    for factor in (1.0, math.nan):
        dice.roll_for(model(torch.full((4,), factor)).loss).backward()
    dice.on_pre_optimizer_step(None, state, None, model=model, optimizer=optimizer)
    assert model.w.grad is None and dice.game.turns == 0 and dice.history == [] and not dice.hand.kept


def test_an_evaluation_is_not_rolled_for(tmp_path):
    made = trainer(tmp_path, Dice(enabled=True, mode="per_mini_batch"), mixed=True)
    made.evaluate(made.train_dataset)
    assert made.dice.game.turns == 0


@pytest.mark.parametrize(
    "dice, options, words",
    [
        (Dice(enabled=True, mode="per_mini_batch"), {}, "use DiceMixin"),
        (Dice(enabled=True, character_class="cleric"), {}, "use DiceMixin"),
        (Dice(enabled=True), {"optim": "lomo"}, "steps in the backward pass"),
    ],
)
def test_what_a_callback_cannot_roll_is_refused(dice, options, words, tmp_path):
    made = trainer(tmp_path, dice)
    for name, value in options.items():
        setattr(made.args, name, value)
    with pytest.raises(UserError, match=words):
        made.dice.on_train_begin(made.args, made.state, made.control, model=made.model, optimizer=made.optimizer)
