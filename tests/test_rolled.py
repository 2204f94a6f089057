"""Dice in a battle: rolled, told, kept and resumed; what cannot be rolled is refused."""

import dataclasses

import numpy as np
import pytest
import torch
from resident import Killed, accept_sums, dying_at, fight, resident

from core import checkpoints
from core.between_steps import BetweenSteps
from core.config import Config, Memory, check_config
from core.dice_config import Dice
from core.durable import read_json
from core.errors import UserError
from core.forge.step_guard import StepGuard
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import Sidecar, check_sidecar, freeze
from core.steps import open_read_only

pytestmark = pytest.mark.usefixtures("small_hero")

BRAVE = Dice(enabled=True, dc=8, rules="methodology", character_class="cleric", encounter_chance=0.5)


def told(realm: RealmPaths, name: str) -> list[float]:
    connection = open_read_only(realm.metrics)
    rows = connection.execute("SELECT value FROM told WHERE name=? ORDER BY step", (name,)).fetchall()
    connection.close()
    return [row["value"] for row in rows]


def twin_of(tmp_path) -> RealmPaths:
    twin = RealmPaths(tmp_path / "twin")
    twin.make()
    return twin


@pytest.mark.parametrize(
    "dice",
    [BRAVE, BRAVE.model_copy(update={"mode": "per_mini_batch", "rules": "gentle", "character_class": "wizard"})],
    ids=["steps", "passes"],
)
def test_a_rolled_battle_that_is_killed_comes_out_the_same_bit_for_bit(dice, realm, ledger, tmp_path, monkeypatch):
    settings = {"dice": dice, "save_steps": 2, "learning_rate": 1e-3, "pack_tokens": 128}
    twin = twin_of(tmp_path)
    whole = resident(twin, Ledger(twin.ledger))
    for stem in ("one", "two"):
        accept_sums(twin, whole.ledger, stem, count=96, **settings)
    assert fight(whole) and fight(whole)

    for stem in ("one", "two"):
        accept_sums(realm, ledger, stem, count=96, **settings)
    for step in (3, 5):
        with monkeypatch.context() as patch:
            patch.setattr(BetweenSteps, "after_step", dying_at(step))
            with pytest.raises(Killed):
                fight(resident(realm, ledger))
    hero = resident(realm, ledger)
    assert 0 < hero.tip.step < 6
    assert fight(hero) and fight(hero)
    assert hero.tip.files["model.safetensors"] == whole.tip.files["model.safetensors"]
    assert hero.trainer.rolled.game.state_dict() == whole.trainer.rolled.game.state_dict()
    assert told(realm, "roll") == told(twin, "roll") and len(set(told(realm, "roll"))) > 3
    assert whole.trainer.rolled.game.turns >= 12, "the second battle goes on with the game of the first"


def test_dice_change_the_weights_and_not_the_losses_that_are_told_first(realm, ledger, tmp_path):
    twin = twin_of(tmp_path)
    rolled, plain = resident(realm, ledger), resident(twin, Ledger(twin.ledger))
    accept_sums(realm, ledger, "sums", dice=Dice(enabled=True, rules="readme", encounter_chance=0))
    accept_sums(twin, plain.ledger, "sums")
    assert fight(rolled) and fight(plain)
    assert rolled.tip.files["model.safetensors"] != plain.tip.files["model.safetensors"]
    first = [
        worker.report.record._connection.execute("SELECT loss FROM steps ORDER BY step LIMIT 1").fetchone()["loss"]
        for worker in (rolled, plain)
    ]
    assert first[0] == first[1]
    assert told(realm, "roll_scale") and not told(twin, "roll_scale")


def test_what_was_rolled_is_shown_and_what_is_rare_is_an_event(realm, ledger):
    shown = []
    hero = resident(realm, ledger)
    accept_sums(realm, ledger, "sums", count=128, dice=BRAVE.model_copy(update={"encounter_chance": 1.0}))
    show = hero.report.show
    hero.report.show = lambda *known: (show(*known), shown.append(read_json(realm.status, {})["battle"]))[0]
    assert fight(hero)
    hero.report.show({})
    dice = next(battle["dice"] for battle in reversed(shown) if battle and battle.get("dice"))
    assert dice["rolls"][0]["outcome"] and 1 <= dice["rolls"][0]["natural"] <= 20
    assert dice["monster"]["hit_points"] <= dice["monster"]["of"] and dice["experience"]["level"] >= 1
    met = ledger.one("SELECT text FROM events WHERE code='dice_encounter'")["text"]
    assert met.startswith("sums, step 1: A ") and "appears" in met


def test_a_step_that_the_guard_leaves_out_is_not_rolled(realm, ledger, monkeypatch):
    look = StepGuard.look

    def spoil(self, loss, norm):
        self.looked = getattr(self, "looked", 0) + 1
        return look(self, loss * np.nan if self.looked == 2 else loss, norm)

    monkeypatch.setattr(StepGuard, "look", spoil)
    for mode in ("per_accumulation_step", "per_mini_batch"):
        hero = resident(realm, ledger)
        before = hero.trainer.rolled.game.turns if hero.trainer.rolled.game else 0
        dice = Dice(enabled=True, mode=mode, rules="methodology", encounter_chance=0)
        quest = accept_sums(realm, ledger, f"sums {mode}", dice=dice)
        assert fight(hero)
        steps = ledger.one("SELECT total_steps FROM battles WHERE quest=?", (quest,))["total_steps"]
        assert hero.trainer.rolled.game.turns == steps - 1, before


def test_the_clerics_weights_are_in_the_checkpoint(realm, ledger):
    hero = resident(realm, ledger)
    accept_sums(realm, ledger, "sums", dice=BRAVE)
    assert fight(hero)
    kept = {name: tensor.clone() for name, tensor in hero.trainer.rolled.kept.items()}
    assert kept
    again = resident(realm, ledger)
    assert kept.keys() == again.trainer.rolled.kept.keys()
    assert all(torch.equal(tensor, again.trainer.rolled.kept[name]) for name, tensor in kept.items())
    checkpoints.verify(realm.vault / hero.tip.id)


def test_a_cleric_never_brings_back_the_weights_of_another_battle(realm, ledger):
    hero = resident(realm, ledger)
    accept_sums(realm, ledger, "sums", dice=BRAVE)
    accept_sums(realm, ledger, "more", dice=Dice())
    assert fight(hero) and hero.trainer.rolled.kept and "kept" in hero.trainer.rolled.game.character.own
    turns = hero.trainer.rolled.game.turns
    assert fight(hero) and not hero.trainer.rolled.kept, "a battle without dice carries no copy of the weights"
    assert "kept" not in hero.trainer.rolled.game.character.own and hero.trainer.rolled.game.turns == turns


def test_what_cannot_be_rolled_ends_its_battle_with_the_remedy(realm, ledger):
    quest = accept_sums(realm, ledger, "sums", dice=BRAVE)
    assert fight(resident(realm, ledger, memory=Memory(gradient_release=True)))
    assert "memory.gradient_release" in ledger.one("SELECT reason FROM battles WHERE quest=?", (quest,))["reason"]
    quest = accept_sums(realm, ledger, "more", dice=BRAVE, trainer={"optim": "schedule_free_adamw"}, priority="high")
    assert fight(resident(realm, ledger))
    assert "take another class" in ledger.one("SELECT reason FROM battles WHERE quest=?", (quest,))["reason"]


def test_a_sidecar_lays_its_dice_over_the_configs():
    config = check_config({"dice": {"enabled": True, "die": "d6", "dc": 4}})
    frozen = freeze(config, check_sidecar({"dice": {"rules": "readme"}}, "x"))
    assert frozen.dice == Dice(enabled=True, die="d6", dc=4, rules="readme")
    assert not freeze(Config(), Sidecar()).dice.enabled and check_config({"dice": {}}).dice == Dice()
    larger = freeze(check_config({"dice": {"die": "d100"}}), check_sidecar({"dice": {"dc": 60}}, "x"))
    assert (larger.dice.die, larger.dice.dc) == ("d100", 60), "a part is not judged by itself"
    with pytest.raises(UserError, match="out of reach"):
        freeze(config, check_sidecar({"dice": {"die": "d4", "intelligence": 4}}, "x"))


@pytest.mark.parametrize(
    "values, words",
    [
        ({"dc": 25}, "dc 25 is out of reach.*set dc to 20 or lower"),
        ({"die": "d4", "intelligence": 3}, "dc 2 is out of reach.*a higher intelligence or a larger die"),
        ({"die": "d3"}, "dice.die"),
        ({"character_class": "bard"}, "dice.character_class"),
        ({"sides": 20}, "dice.sides"),
        ({"level": 0}, "dice.level"),
    ],
)
def test_dice_that_nobody_can_throw_are_refused(values, words):
    with pytest.raises(UserError, match=words):
        check_config({"dice": values})


def test_a_cleric_of_a_battle_that_goes_on_after_another_one_keeps_nothing_of_that(realm, ledger):
    hero, plans = resident(realm, ledger), []
    rolled = hero.trainer.rolled
    begin = rolled.begin
    rolled.begin = lambda plan, first, cooldown: (plans.append(plan), begin(plan, first, cooldown))[-1]
    accept_sums(realm, ledger, "sums", dice=BRAVE)
    assert fight(hero)
    again = resident(realm, ledger).trainer.rolled
    again.begin(plans[0], 2, cooldown=False)
    assert again.kept and "kept" in again.game.character.own, "the same battle goes on"
    again.begin(dataclasses.replace(plans[0], quest_sha256="0" * 64), 2, cooldown=False)
    assert not again.kept and "kept" not in again.game.character.own
