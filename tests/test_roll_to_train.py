"""RollToTrain on a classifier like BERT, a small Qwen3 and a CNN: what turns do to weights, gradients and rates; resuming."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from core.dice import Barbarian, Cleric, Fighter, Paladin, Rogue, RollToTrain, Wizard
from core.dice.dice import Outcome
from core.dice.hand import Hand
from core.dice.monsters import GradientOoze, LossDragon, WeightWraith
from core.errors import UserError
from core.paths import BUNDLED_TOKENIZER, CHECKOUT


class Cnn(torch.nn.Module):
    """8 x 8 pictures of two kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(1, 4, 3)
        self.norm = torch.nn.BatchNorm2d(4)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, pixel_values: torch.Tensor, labels: torch.Tensor) -> SimpleNamespace:
        features = self.norm(self.convolution(pixel_values)).relu().mean((2, 3))
        logits = self.head(features)
        return SimpleNamespace(loss=torch.nn.functional.cross_entropy(logits, labels), logits=logits)


class Line(torch.nn.Module):
    """loss = factor * w: the gradient is what the batch says."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.full((4,), weight))

    def forward(self, factor: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(loss=(factor * self.w).sum() / 4)


class Scripted:
    """Dice that fall as they are told to."""

    def __init__(self, *naturals: int):
        self.naturals = list(naturals)

    def die(self, sides: int) -> int:
        return self.naturals.pop(0)

    def share(self) -> float:
        return 0.99

    def state_dict(self) -> dict:
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Nothing is kept."""


def cnn_parts() -> tuple:
    stream = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (64,), generator=stream)
    pictures = torch.randn(64, 1, 8, 8, generator=stream)
    pictures[labels == 1] += torch.linspace(-2, 2, 8)
    rows = [{"pixel_values": picture, "labels": label} for picture, label in zip(pictures, labels, strict=True)]
    return Cnn(), rows, None


def qwen_parts() -> tuple:
    config = Qwen3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        tie_word_embeddings=True,
    )
    starts = torch.randint(0, 48, (64,), generator=torch.Generator().manual_seed(1))
    rows = [{"input_ids": start + torch.arange(12), "labels": start + torch.arange(12)} for start in starts]
    return Qwen3ForCausalLM(config), rows, None


def bert_parts() -> tuple:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(BUNDLED_TOKENIZER / "tokenizer.json"), pad_token="<|endoftext|>", model_max_length=32
    )
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    good, bad = "a fine song, dear friend", "a dull, dreadful noise"
    rows = [{"text": f"{(bad, good)[n % 2]} {n}", "label": n % 2} for n in range(64)]
    return BertForSequenceClassification(config), rows, tokenizer


PARTS = {"bert": bert_parts, "qwen3": qwen_parts, "cnn": cnn_parts}


def rolled(kind: str, born: int = 3, **options) -> tuple[RollToTrain, DataLoader]:
    torch.manual_seed(born)
    model, rows, tokenizer = PARTS[kind]()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.2, 40)
    loader = DataLoader(rows, batch_size=8, shuffle=True)
    options = {"intelligence": 15, "dc": 10, "num_epochs": 3, "progress": False, **options}
    return RollToTrain(model, tokenizer, optimizer, scheduler, **options), loader


def weights(trainer: RollToTrain) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def line(*naturals: int, factor: float = 2.0, batches: int = 1, optimizer=torch.optim.SGD, **options):
    """A trainer of a Line with these rolls, and its batches; plain SGD with rate 0.1, so that an update is a tenth of the gradient."""
    model = Line()
    options = {"rules": "readme", "encounter_chance": 0.0, "progress": False, **options}
    trainer = RollToTrain(model, optimizer=optimizer(model.parameters(), lr=0.1), **options)
    trainer.chance = Scripted(*naturals)
    return trainer, [{"factor": torch.full((4,), factor * 1.0)}] * batches


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("mode", ["per_accumulation_step", "per_mini_batch"])
def test_every_kind_of_model_learns_and_resumes_bit_for_bit(kind, mode, tmp_path):
    options = {
        "mode": mode,
        "accumulation_steps": 2,
        "character_class": "cleric",
        "use_xp_system": True,
        "num_epochs": 8,
    }
    whole, loader = rolled(kind, **options)
    before = whole.evaluate(loader)
    whole.train(loader, loader)
    assert whole.history.evaluations[-1]["loss"] < 0.9 * before and len(whole.history.steps) == 32

    first, loader = rolled(kind, **options)
    first.evaluate(loader)  # which draws an order of rows, too
    first.train(loader, loader, max_steps=14)
    first.save_checkpoint(tmp_path / "kept")
    second, loader = rolled(kind, born=99, **options)
    second.load_checkpoint(tmp_path / "kept")
    second.train(loader, loader)
    assert same(weights(second), weights(whole))
    assert second.history.steps == whole.history.steps and second.history.evaluations == whole.history.evaluations


@pytest.mark.parametrize("own_stream", [True, False])
def test_a_seed_or_torchs_own_makes_a_training_reproducible(own_stream):
    runs = []
    for seed in (1, 1, 2):
        trainer, loader = rolled("cnn", born=seed, num_epochs=1, seed=seed if own_stream else None)
        trainer.train(loader)
        runs.append((weights(trainer), [step["rolls"][0]["natural"] for step in trainer.history.steps]))
    assert same(runs[0][0], runs[1][0]) and runs[0][1] == runs[1][1] and runs[0][1] != runs[2][1]


@pytest.mark.parametrize("steps", [None, 3], ids=["an epoch's end", "in an epoch"])
@pytest.mark.parametrize("whose", ["the loader's", "the sampler's"])
def test_rows_come_in_another_order_after_a_save_as_they_would_have_without_it(whose, steps, tmp_path):
    def parts() -> tuple[RollToTrain, DataLoader]:
        trainer, loader = rolled("cnn", num_epochs=1)
        stream = torch.Generator().manual_seed(3)
        order = {"shuffle": True, "generator": stream}
        if whose == "the sampler's":
            order = {"sampler": RandomSampler(loader.dataset, generator=stream)}
        return trainer, DataLoader(loader.dataset, batch_size=8, **order)

    whole, loader = parts()
    for _ in range(2):
        whole.train(loader)
    first, loader = parts()
    first.train(loader, max_steps=steps)
    first.save_checkpoint(tmp_path / "kept")
    between, _ = parts()
    between.load_checkpoint(tmp_path / "kept")
    between.save_checkpoint(tmp_path / "kept")  # without a step between the two
    second, loader = parts()
    second.load_checkpoint(tmp_path / "kept")
    for _ in range(1 if steps is None else 2):
        second.train(loader)
    assert second.history.steps == whole.history.steps and same(weights(second), weights(whole))


def test_a_checkpoint_of_a_transformers_model_loads_with_plain_transformers_and_holds_no_pickle(tmp_path):
    trainer, loader = rolled("qwen3", num_epochs=1)
    trainer.train(loader)
    trainer.save_checkpoint(tmp_path / "kept")
    trainer.save_checkpoint(tmp_path / "kept")  # over the one before
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "kept")
    assert same(weights(trainer), plain.state_dict())
    assert {path.suffix for path in (tmp_path / "kept").iterdir()} <= {".json", ".safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_update_is_scaled_inverted_or_left_as_it_was():
    for natural, factor in ((20, 1.0), (16, 0.8), (10, -0.25), (1, -1.0)):
        for mode in ("per_accumulation_step", "per_mini_batch"):
            trainer, batches = line(natural, mode=mode)
            trainer.train(batches)
            assert trainer.model.w.detach() == pytest.approx(torch.full((4,), 1 - 0.1 * 0.5 * factor).numpy()), natural


def test_what_is_discarded_touches_no_weight_and_no_moment_and_what_is_zero_does():
    for natural, moves in ((1, False), (10, True)):
        for mode in ("per_accumulation_step", "per_mini_batch"):
            trainer, batches = line(20, natural, batches=2, rules="gentle", mode=mode, optimizer=torch.optim.AdamW)
            trainer.train(batches, max_steps=1)
            before, moment = weights(trainer), trainer.optimizer.state[trainer.model.w]["exp_avg"].clone()
            trainer.train(batches)
            after = trainer.optimizer.state[trainer.model.w]
            assert same(before, weights(trainer)) is not moves
            assert float(after["step"]) == 1 + moves and (after["exp_avg"][0] < moment[0]) == moves


def test_a_first_step_that_is_discarded_leaves_the_schedule_going_on():
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    trainer = RollToTrain(model, None, optimizer, scheduler, encounter_chance=0.0, progress=False)
    trainer.chance = Scripted(1, 20)
    trainer.train([{"factor": torch.ones(4)}] * 2)
    assert [step["learning_rate"] for step in trainer.history.steps] == [0.1, 0.05]
    assert trainer.model.w[0].item() == pytest.approx(1 - 0.05 / 4)


def test_each_mini_batch_is_rolled_for_by_itself_and_a_window_together():
    trainer, batches = line(20, 1, 16, batches=3, mode="per_mini_batch", accumulation_steps=3)
    trainer.train(batches)
    assert trainer.model.w[0].item() == pytest.approx(1 - 0.1 * 0.5 * (1 - 1 + 0.8) / 3)
    together, batches = line(16, batches=3, accumulation_steps=3)
    together.train(batches)
    assert together.model.w[0].item() == pytest.approx(1 - 0.1 * 0.5 * 0.8)
    assert len(together.history.steps) == 1


def test_a_roll_is_not_taken_back_by_clipping():
    trainer, batches = line(16, factor=100.0, max_grad_norm=1.0)
    trainer.train(batches)
    assert trainer.history.steps[0]["gradient_norm"] == pytest.approx(50.0)
    assert (1 - trainer.model.w).norm().item() == pytest.approx(0.1 * 0.8)


def test_a_wizards_rate_is_raised_for_the_step_alone():
    trainer, batches = line(2, 2, 16, 16, batches=4, character_class=Wizard(level=1))
    trainer.train(batches)
    assert [step["learning_rate"] for step in trainer.history.steps] == pytest.approx([0.1, 0.1, 0.15, 0.15])
    assert trainer.optimizer.param_groups[0]["lr"] == 0.1
    moved = 1 - 0.1 * 0.5 * (-13 / 20 * 2 + 0.8 * 1.5 * 2)
    assert trainer.model.w[0].item() == pytest.approx(moved)


@pytest.mark.parametrize(
    "character, naturals, factor",
    [
        (Rogue(level=1), (18, 6), 0.9 * 1.2),
        (Rogue(level=3), (2,), 0.75),
        (Fighter(level=1), (2, 16), 17 / 20),
        (Fighter(level=3), (20,), 2.0),
        (Cleric(level=3), (1,), 1.0),
        (Paladin(level=1), (1,), -0.5),
        (Paladin(level=3), (20,), 2.0),
    ],
    ids=["sneak attack", "cunning action", "second wind", "action surge", "divine intervention", "aura", "smite"],
)
def test_an_ability_moves_the_weights_as_its_text_says(character, naturals, factor):
    trainer, batches = line(*naturals, character_class=character)
    trainer.train(batches)
    assert trainer.model.w[0].item() == pytest.approx(1 - 0.1 * 0.5 * factor)


def test_one_character_given_to_two_trainers_is_two():
    wizard = Wizard(level=1)
    first, batches = line(2, 2, character_class=wizard, batches=2)
    second, _ = line(character_class=wizard)
    first.train(batches)
    assert first.game.character.charges["Arcane Recovery"] == 0
    assert second.game.character.charges["Arcane Recovery"] == wizard.charges["Arcane Recovery"] == 1
    assert isinstance(line(character_class=Wizard)[0].game.character, Wizard)


def test_rage_moves_the_weights_further():
    trainer, batches = line(2, 4, 18, batches=2, character_class=Barbarian(level=3))
    trainer.train(batches)
    assert trainer.model.w[0].item() == pytest.approx(1 - 0.1 * 0.5 * (-13 / 20 + 0.9 * 1.5))


def test_a_cleric_brings_the_weights_back_when_the_loss_has_risen():
    trainer, (batch,) = line(*[20] * 8, character_class=Cleric())
    trainer.train([batch])
    kept = trainer.hand.kept["w"].clone()
    with torch.no_grad():
        trainer.model.w += 100
    trainer.train([batch])
    assert torch.equal(trainer.model.w, kept) and torch.equal(kept, torch.ones(4))
    assert trainer.history.steps[-1]["rolls"][0]["happenings"][0]["code"] == "healing_word"


def test_a_loss_that_is_no_number_is_not_rolled_for_and_a_cleric_saves_from_it():
    for mode in ("per_accumulation_step", "per_mini_batch"):
        trainer, (batch,) = line(20, mode=mode, character_class=Cleric(level=3))
        trainer.train([batch])
        with torch.no_grad():
            trainer.model.w.fill_(math.nan)
        trainer.train([batch])
        assert trainer.history.steps[-1]["rolls"] == [] and trainer.history.steps[-1]["loss"] is None
        assert torch.equal(trainer.model.w, torch.ones(4))


def test_after_a_step_that_is_no_number_the_game_is_where_it_was_before_its_window():
    trainer, (good,) = line(*[16] * 20, mode="per_mini_batch", accumulation_steps=2, character_class=Cleric(), dc=2)
    trainer.train([good, {"factor": torch.full((4,), math.inf)}])
    assert trainer.game.turns == 0 and not trainer.hand.kept and trainer.history.steps[0]["rolls"] == []
    trainer.train([{"factor": torch.full((4,), 1e3)}] * 2)  # a loss that has risen, if the first is remembered
    assert trainer.hand.kept and trainer.game.turns == 2


def test_a_cleric_who_keeps_and_brings_back_in_one_window_brings_back_what_he_kept():
    trainer, (good,) = line(*[16] * 2, mode="per_mini_batch", accumulation_steps=2, character_class=Cleric(), dc=2)
    trainer.train([good, {"factor": torch.full((4,), 1e3)}])
    assert torch.equal(trainer.hand.kept["w"], torch.ones(4)) and torch.equal(trainer.model.w, torch.ones(4))


def test_a_cleric_spends_no_intervention_on_gradients_alone():
    trainer, (good,) = line(16, 16, character_class=Cleric(level=3))
    trainer.train([good])
    trainer.model.w.register_hook(lambda gradient: gradient * math.inf)
    trainer.train([good])
    assert trainer.game.character.charges["Divine Intervention"] == 1 and trainer.history.steps[1]["rolls"] == []
    assert not torch.equal(trainer.model.w, torch.ones(4))


def test_gradients_of_others_count_for_nothing():
    torch.manual_seed(1)
    model, rows, _ = cnn_parts()
    head = torch.optim.SGD(model.head.parameters(), lr=0.0)
    options = {"num_epochs": 3, "rules": "readme", "encounter_chance": 0.0, "progress": False}
    trainer = RollToTrain(model, None, head, **options)
    batch = next(iter(DataLoader(rows, batch_size=8)))
    model(**batch).loss.backward()  # somebody looks at the gradients before
    model.norm.track_running_stats = False
    trainer.train([batch])
    norms = [step["gradient_norm"] for step in trainer.history.steps]
    model.zero_grad()
    model.train()
    model(**batch).loss.backward()
    expected = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.head.parameters()])
    assert norms == pytest.approx([float(expected)] * 3)


def test_infinite_gradients_leave_weights_and_moments_alone():
    trainer, batches = line(20, factor=math.inf, rules="gentle", optimizer=torch.optim.AdamW)
    trainer.train(batches)
    assert torch.equal(trainer.model.w, torch.ones(4)) and not trainer.optimizer.state
    with torch.no_grad():
        trainer.model.w.grad = torch.full((4,), math.inf)
    trainer.hand.scale(0.0)
    assert torch.equal(trainer.model.w.grad, torch.zeros(4))


def test_the_ooze_and_the_dragon_show_in_the_update():
    for kind, factor in ((GradientOoze, 0.5), (LossDragon, 1.5)):
        for mode in ("per_accumulation_step", "per_mini_batch"):
            trainer, batches = line(16, mode=mode)
            trainer.game.monster = kind(1)
            trainer.train(batches)
            assert trainer.model.w[0].item() == pytest.approx(1 - 0.1 * 0.5 * 0.8 * factor)
            assert trainer.history.steps[0]["rolled_loss"] == pytest.approx(2.0 * 0.8 * factor)


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_a_wraiths_touch_is_small_and_undone_bit_for_bit(kind):
    model = torch.nn.Linear(64, 64).to(kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    hand = Hand(model, torch.optim.SGD(model.parameters(), lr=0.1))
    hand.haunt(5)
    normal = before["weight"].abs() > 1e-3
    change = ((model.weight - before["weight"]) / before["weight"])[normal].float().abs()
    assert 0.015 < change.square().mean().sqrt() < 0.023 and change.max() < 0.056
    touched = model.weight.clone()
    hand.haunt(6)
    assert not torch.equal(model.weight, touched)
    hand.lift()
    hand.lift()
    assert same(before, model.state_dict())


def test_a_wraith_touches_what_the_loss_sees_and_nothing_that_is_kept(tmp_path):
    trainer, (batch,) = line(16, 16, 20, 20, 20)
    trainer.game.monster = WeightWraith(1, seed=4)
    trainer.train([batch])
    assert trainer.history.steps[0]["loss"] != 2.0
    assert trainer.model.w.detach().numpy() == pytest.approx(1 - 0.1 * 0.5 * 0.8)
    trainer.game.monster.hit_points = 1
    trainer.train([batch])
    assert trainer.game.monster is None
    trainer.train([batch])
    assert trainer.history.steps[2]["loss"] == pytest.approx(2.0 * (1 - 0.1 * 0.5 * 1.6))


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@pytest.mark.parametrize("mode", ["per_accumulation_step", "per_mini_batch"])
def test_mixed_precision_learns_and_survives_discards(amp, mode):
    trainer, loader = rolled(
        "cnn", amp=amp, mode=mode, max_grad_norm=1.0, character_class=Fighter(level=3), encounter_chance=0
    )
    trainer.chance = Scripted(*[1, 20, 16, 1, 1] * 20)
    before = trainer.evaluate(loader)
    trainer.train(loader)
    outcomes = {roll["outcome"] for step in trainer.history.steps for roll in step["rolls"]}
    assert {Outcome.CRITICAL_FAILURE, Outcome.CRITICAL_SUCCESS} <= outcomes
    assert trainer.evaluate(loader) < before and all(p.isfinite().all() for p in trainer.model.parameters())


def test_a_plateau_schedule_hears_of_each_epoch():
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)
    trainer = RollToTrain(
        model, None, optimizer, plateau, num_epochs=3, progress=False, encounter_chance=0, rules="readme"
    )
    trainer.chance = Scripted(1, 1, 1)  # the loss rises
    batches = [{"factor": torch.ones(4)}]
    trainer.train(batches, batches)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_a_plateau_schedule_that_has_heard_nothing_yet_is_resumed(tmp_path):
    def made() -> RollToTrain:
        torch.manual_seed(3)
        model = Line()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
        return RollToTrain(model, None, optimizer, plateau, progress=False, encounter_chance=0)

    batches = [{"factor": torch.ones(4)}] * 3
    first, second = made(), made()
    first.train(batches, max_steps=1)
    first.save_checkpoint(tmp_path / "kept")
    second.load_checkpoint(tmp_path / "kept")
    assert second.scheduler.best == math.inf
    second.train(batches)
    assert second.scheduler.best < math.inf


def test_the_picture_shows_losses_before_and_after_the_roll(tmp_path, capsys):
    trainer, loader = rolled("cnn", progress=True, encounter_chance=1.0)
    trainer.train(loader, loader)
    picture = trainer.plot(tmp_path / "losses.svg").read_text()
    assert "before the roll" in picture and "after the roll" in picture and "held out" in picture
    bar = capsys.readouterr().err
    assert "Epoch 3" in bar and "loss" in bar


@pytest.mark.parametrize(
    "options, words",
    [
        ({"dc": 30}, "out of reach"),
        ({"dice_type": "d7"}, "die"),
        ({"rules": "harsh"}, "rules"),
        ({"mode": "sometimes"}, "mode"),
        ({"character_class": "bard"}, "Known: wizard"),
        ({"character_class": 5}, "character_class = 5"),
        ({"character_class": Line}, "character_class = <class"),
        ({"max_grad_norm": 0.0}, "max_grad_norm = 0.0"),
        ({"max_grad_norm": -1.0}, "max_grad_norm = -1.0"),
        ({"encounter_chance": 2.0}, "encounter_chance"),
        ({"accumulation_steps": 0}, "accumulation_steps = 0"),
        ({"amp": "fp8"}, "amp"),
    ],
)
def test_what_cannot_be_rolled_is_refused_by_name(options, words):
    with pytest.raises(UserError, match=words):
        RollToTrain(Line(), **options)


def test_batches_and_checkpoints_that_do_not_fit_are_refused(tmp_path):
    trainer, _ = rolled("cnn", num_epochs=1)
    with pytest.raises(UserError, match="no batch"):
        trainer.evaluate([])
    with pytest.raises(UserError, match="max_steps = 0"):
        trainer.train([{}], max_steps=0)
    with pytest.raises(UserError, match="no batch in epoch 1"):
        trainer.train([])
    with pytest.raises(UserError, match="must be a mapping"):
        trainer.train([torch.ones(3)])
    with pytest.raises(UserError, match="needs tokenizer"):
        trainer.train([{"text": ["a"]}])
    with pytest.raises(UserError, match="is no checkpoint"):
        trainer.load_checkpoint(tmp_path / "nowhere")
    trainer.save_checkpoint(tmp_path / "kept")
    other, _ = rolled("cnn", rules="readme")
    with pytest.raises(UserError, match="other dice: rules = 'gentle'"):
        other.load_checkpoint(tmp_path / "kept")
    knight, _ = rolled("cnn", character_class="paladin")
    with pytest.raises(UserError, match="does not fit"):
        knight.load_checkpoint(tmp_path / "kept")


def test_a_checkpoint_takes_the_place_of_its_own_files_alone(tmp_path):
    trainer, batches = line(16, 16)
    out = tmp_path / "out"
    out.mkdir()
    trainer.save_checkpoint(out)  # an empty one is taken
    (out / "thesis.txt").write_text("mine")
    (out / "pictures").mkdir()
    (out / "pictures" / "one.svg").write_text("<svg/>")
    trainer.train(batches)
    trainer.save_checkpoint(out)
    assert (out / "thesis.txt").read_text() == "mine" and (out / "pictures" / "one.svg").exists()
    fresh, _ = line()
    fresh.load_checkpoint(out)
    assert torch.equal(fresh.model.w, trainer.model.w)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for foreign in (tmp_path / "full", tmp_path / "full" / "thesis.txt"):
        with pytest.raises(UserError, match="save to another folder"):
            trainer.save_checkpoint(foreign)
    assert (tmp_path / "full" / "thesis.txt").read_text() == "mine"


def test_a_save_that_is_interrupted_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    trainer, batches = line(16)
    trainer.save_checkpoint(tmp_path / "out")
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    trainer.train(batches)
    with monkeypatch.context() as patch:
        patch.setattr("core.durable.move", dying)
        with pytest.raises(KeyboardInterrupt):
            trainer.save_checkpoint(tmp_path / "out")
    fresh, _ = line()
    fresh.load_checkpoint(tmp_path / "out")
    assert torch.equal(fresh.model.w, torch.ones(4))
    trainer.save_checkpoint(tmp_path / "out")
    fresh.load_checkpoint(tmp_path / "out")
    assert torch.equal(fresh.model.w, trainer.model.w) and (tmp_path / "out" / "thesis.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def dying(*_) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "options, words",
    [
        ({"seed": 3}, "seed: the checkpoint has none, this trainer has one"),
        ({"amp": "fp16"}, "scaler .*the checkpoint has none"),
        ({"character_class": "rogue"}, "has a character"),
        ({"use_xp_system": True}, "other dice: use_xp_system"),
    ],
)
def test_a_checkpoint_of_another_trainer_changes_nothing(options, words, tmp_path):
    first, _ = rolled("cnn", num_epochs=1)
    first.save_checkpoint(tmp_path / "kept")
    other, _ = rolled("cnn", born=4, **options)
    before, stream = weights(other), torch.get_rng_state()
    with pytest.raises(UserError, match=words):
        other.load_checkpoint(tmp_path / "kept")
    assert same(before, weights(other)) and torch.equal(stream, torch.get_rng_state())
    second, _ = rolled("cnn", born=4)
    second.scheduler = None
    with pytest.raises(UserError, match="scheduler: the checkpoint has one, this trainer has none"):
        second.load_checkpoint(tmp_path / "kept")
    second, _ = rolled("cnn", born=4)
    second.optimizer = torch.optim.AdamW(second.model.head.parameters())
    with pytest.raises(UserError, match="the optimizer's groups have"):
        second.load_checkpoint(tmp_path / "kept")


def test_the_quick_start_of_the_readme_runs_learns_and_goes_on(tmp_path, monkeypatch):
    blocks = (CHECKOUT / "README.md").read_text().split("```python\n")[1:]
    (example,) = (block.partition("```")[0] for block in blocks if "RollToTrain" in block)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(example, names)
    trainer = names["trainer"]
    losses = [found["loss"] for found in trainer.history.evaluations]
    assert losses[-1] < 0.9 * losses[0] and trainer.scheduler.last_epoch == len(trainer.history.steps) == 28
    assert "before the roll" in (tmp_path / "losses.svg").read_text()
    trainer.load_checkpoint("rolled")
    assert trainer.game.turns == 28 and trainer.game.experience.points > 0
