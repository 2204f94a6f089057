"""The Judge in a resident hero: preferences from the file to better judgement, killed and gone on the same."""

import json
import random

import pytest
import torch
from resident import Killed, accept_sums, dying_at, fight, resident
from tavern_server import client_of

from core import checkpoints
from core.between_steps import BetweenSteps
from core.config import Config
from core.forge.out_of_memory import halved
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.quest import Sidecar, freeze
from core.rendering import Renderer
from core.school_config import JudgeSettings, Schools
from core.steps import last_told
from core.train import HeroTrainer
from core.validator import validate_file

pytestmark = pytest.mark.usefixtures("small_hero")

WORDS = ("red", "blue", "green", "gold", "iron", "salt", "snow", "moss")


def _tastes(count: int, seed: int) -> list[dict]:
    """Of two answers the chosen one is calm and the other shouts."""
    draw = random.Random(seed)
    pairs = (draw.sample(WORDS, 2) for _ in range(count))
    return [
        {"prompt": f"Say {one} or {two}, {number}.", "chosen": f"{one}.", "rejected": f"{one}! {two}!"}
        for number, (one, two) in enumerate(pairs)
    ]


def _labelled(count: int, seed: int) -> list[dict]:
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for number, row in enumerate(_tastes(count, seed))
        for side in [("chosen", "rejected")[number % 2]]
    ]


@pytest.mark.parametrize("rows", [_tastes(256, 1), _labelled(256, 1)], ids=["pairs", "labels"])
def test_preferences_from_a_file_are_learned_and_told(rows, realm, ledger):
    hero = resident(realm, ledger)
    quest = accept_sums(realm, ledger, "taste", rows=rows, learning_rate=3e-4, eval_steps=4)
    assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)
    battle = ledger.one("SELECT * FROM battles WHERE quest=?", (quest,))
    looks = ledger.all("SELECT value FROM evaluations WHERE quest=? AND kind='accuracy' ORDER BY id", (quest,))
    told = last_told(realm.metrics, hero.tip.hero, quest)
    assert battle["school"] == "judge" and battle["state"] == "done" and looks[-1]["value"] >= 0.9
    assert {"reward_accuracy", "chosen_reward", "rejected_reward"} <= set(told) and told["reward_accuracy"] > 0.5
    with client_of(realm) as client:
        card = client.get("/schools").text.partition('id="judge"')[2].partition("</li>")[0]
    assert "Reward accuracy" in card and 'class="line first"' in card and "schools.judge.beta" in card


@pytest.mark.parametrize("forgotten", [False, True], ids=["found", "asked again"])
def test_a_battle_that_was_killed_goes_on_with_the_same_references(forgotten, realm, ledger, tmp_path, monkeypatch):
    settings = {"learning_rate": 3e-4, "save_steps": 2, "schools": Schools(judge=JudgeSettings(loss_type="ipo"))}
    twin = RealmPaths(tmp_path / "twin")
    twin.make()
    whole = resident(twin, Ledger(twin.ledger))
    accept_sums(twin, whole.ledger, "taste", rows=_tastes(128, 2), **settings)
    assert fight(whole)

    accept_sums(realm, ledger, "taste", rows=_tastes(128, 2), **settings)
    with monkeypatch.context() as patch:
        patch.setattr(BetweenSteps, "after_step", dying_at(5))
        with pytest.raises(Killed):
            fight(resident(realm, ledger))
    if forgotten:
        (file,) = realm.prepared.glob("*/reference-q*.bin")
        file.unlink()
    hero = resident(realm, ledger)
    assert 0 < hero.tip.step < 5
    assert fight(hero) and hero.tip.files["model.safetensors"] == whole.tip.files["model.safetensors"]


@pytest.mark.parametrize("forgotten", [False, True], ids=["of the hero", "of its parent"])
def test_a_hero_that_computes_in_bf16_begins_beside_its_references(forgotten, realm, ledger, monkeypatch):
    rows = [
        dict(row, rejected=f"{row['chosen'][:-1]}!") for row in _tastes(64, 5)
    ]  # pairs of one length, so of one shape
    accept_sums(realm, ledger, "taste", rows=rows, trainer={"bf16": True}, save_steps=1, learning_rate=1e-12)
    hero = resident(realm, ledger)
    if forgotten:
        with monkeypatch.context() as patch:
            patch.setattr(BetweenSteps, "after_step", dying_at(2))
            with pytest.raises(Killed):
                fight(hero)
        next(realm.prepared.glob("*/reference-q*.bin")).unlink()
        hero = resident(realm, ledger)
        assert hero.tip.open
    assert fight(hero)
    margins = hero.report.record._connection.execute("SELECT value FROM told WHERE name='reward_margin'").fetchall()
    assert max(abs(row["value"]) for row in margins) < 1e-6


def test_a_pair_that_does_not_fit_into_memory_alone_ends_its_battle(realm, ledger, monkeypatch):
    hero, passes = resident(realm, ledger), []

    def shortage(self, model, batch):
        passes.append(max(len(pack.lengths) for pack in batch.packs))
        assert len(passes) < 20, "it tries for ever"
        raise torch.OutOfMemoryError("the allocator's own words")

    monkeypatch.setattr(HeroTrainer, "_passes", shortage)
    quest = accept_sums(realm, ledger, "taste", rows=_tastes(32, 4))
    assert fight(hero)
    reason = ledger.one("SELECT reason FROM battles WHERE quest=?", (quest,))["reason"]
    assert "does not fit into memory, alone in its pass" in reason
    assert passes == sorted(passes, reverse=True) and passes[-1] == 2
    assert ledger.one("SELECT COUNT(*) AS n FROM events WHERE code='memory_short'")["n"] == len(passes) - 1


def test_after_a_kill_for_memory_passes_are_halved_by_pairs(realm, ledger):
    hero = resident(realm, ledger)
    plan = hero.plan_of(hero.queue.find(accept_sums(realm, ledger, "taste", rows=_tastes(32, 4), batch_size=2)))
    pairs = [sum(plan.lengths_at(step)[first : first + 2]) for step in range(plan.total_steps) for first in (0, 2)]
    widest = max(one + other for one, other in zip(pairs[0::2], pairs[1::2], strict=True))
    assert halved(plan, range(plan.total_steps), 4096, together=2) == max(*pairs, widest // 2)
    assert halved(plan, range(plan.total_steps), max(pairs), together=2) is None


def test_what_no_judge_can_use_is_refused_by_line_field_and_remedy(realm, ledger):
    bad = [
        {"prompt": "Say red.", "chosen": "red.", "rejected": "red."},
        {"prompt": "Say red.", "chosen": "red."},
        {"prompt": "Say red.", "chosen": "", "rejected": "red!"},
    ]
    path = realm.claims / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*_tastes(20, 3), *bad]))
    report = validate_file(path, freeze(Config(), Sidecar()), Renderer.load(BUNDLED_TOKENIZER, 256))
    assert report["verdict"] == "rejected" and report["school"] == "judge"
    assert [(error["line"], error["field"]) for error in report["errors"]] == [
        (21, "rejected"),
        (22, "rejected"),
        (23, "chosen"),
    ]
    assert all(error["remedy"] for error in report["errors"])
    other = validate_file(path, freeze(Config(), Sidecar(school="champion")), Renderer.load(BUNDLED_TOKENIZER, 256))
    assert "the school champion teaches from rows of the forms problem, reward" in other["reason"]
