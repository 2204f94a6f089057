"""The Temple: what a verdict follows from, and what follows from a verdict."""

import json
import random
import shutil
from dataclasses import replace

import pytest
from resident import accept_sums, resident
from resident import fight as fight_one

from core import campaign, checkpoints, judgement
from core.battle_report import BattleReport
from core.between_steps import BetweenSteps
from core.config import Temple
from core.durable import read_json
from core.ledger import Ledger
from core.paths import RealmPaths
from core.standing import Standing as Known
from core.temple import Standing, judge, word, worst

pytestmark = pytest.mark.usefixtures("small_hero")


def quality(before, after, unfit=None):
    return judge(before, after, unfit).quality


def test_words_are_those_of_the_contract():
    assert [word(value) for value in (0.0, 0.29, 0.3, 0.79, 0.8, 1.0)] == [
        "cursed", "cursed", "partial", "partial", "blessed", "blessed",
    ]  # fmt: skip


def test_what_is_not_worse_is_blessed_and_what_was_never_measured_is_not_held_against_a_battle():
    assert quality(Standing(2.0), Standing(1.5)) == 1.0
    assert quality(Standing(None), Standing(9.0)) == quality(Standing(2.0), Standing(None)) == 1.0
    assert quality(Standing(2.0), Standing(2.01)) == 1.0
    assert quality(Standing(900.0), Standing(1.0)) == 1.0, "however far it fell"


def test_a_held_out_loss_that_rises_takes_the_blessing_and_then_curses():
    falling = [quality(Standing(1.0), Standing(1.0 + rise)) for rise in (0.0, 0.05, 0.1, 0.2, 0.4, 2.0)]
    assert falling == sorted(falling, reverse=True) and falling[1] > 0.8 > falling[2] > 0.3 > falling[4]


def test_the_level_that_lost_most_decides_and_chance_costs_nothing():
    def with_canaries(**after):
        was = {"BIN/1": (64, 64), "BIN/2": (60, 64), "REV/1": (64, 64)}
        return judge(Standing(1.0, was), Standing(1.0, was | {key.replace("_", "/"): at for key, at in after.items()}))

    assert with_canaries().quality == 1.0
    assert with_canaries(BIN_2=(56, 64)).quality == 1.0, "four more wrong of 64 is what chance does"
    assert with_canaries(BIN_1=(50, 64)).word == "partial"
    garbage = with_canaries(BIN_1=(0, 64), BIN_2=(2, 64))
    assert garbage.word == "cursed" and "BIN/1 had 64 of 64 right before and 0 of 64 after" in worst(garbage.facts())


def test_who_forgets_for_something_that_can_be_learned_is_forgiven_in_part():
    was, now = {"BIN/1": (64, 64)}, {"BIN/1": (0, 64)}
    for bond, verdict in ((None, "cursed"), (0.5, "cursed"), (8.0, "partial")):
        assert judge(Standing(9.0, was), Standing(3.0, now, bond=bond)).word == verdict
    assert judge(Standing(3.0, was), Standing(9.0, now, bond=8.0)).word == "cursed", "it did not learn it either"


def test_a_canary_that_was_not_asked_before_says_nothing():
    assert quality(Standing(1.0, {}), Standing(1.0, {"BIN/1": (0, 64)})) == 1.0


def test_weights_that_are_unfit_or_blown_up_are_no_use():
    assert quality(Standing(1.0), Standing(0.5), "the held-out loss was nan") == 0.0
    grown = Standing(1.0, size=0.05, step=5000), Standing(1.0, size=1.0, step=5100)
    assert quality(*grown) < 0.3
    young = Standing(1.0, size=0.02, step=10), Standing(1.0, size=0.1, step=110)
    assert quality(*young) == 1.0, "a hatched hero's weights leave their beginning"


# What follows


@pytest.fixture
def hashed(monkeypatch):
    """The files that were hashed, in order."""
    found, sha256_of = [], checkpoints.sha256_of
    monkeypatch.setattr(checkpoints, "sha256_of", lambda path: found.append(path) or sha256_of(path))
    return found


def awake(paths, mode="strict"):
    return resident(paths, Ledger(paths.ledger), temple=Temple(mode=mode))


def fight(worker, stem, rows=None, **settings):
    """Train a quest of 128 sums to its end; its row, battle and last checkpoint in the ledger."""
    quest = accept_sums(worker.paths, worker.ledger, stem, 128, rows=rows, validation_fraction=0.1, **settings)
    assert fight_one(worker)
    return facts(worker, quest)


def facts(worker, quest):
    rows = (("quests", "id"), ("battles", "quest"), ("checkpoints", "quest"))
    return [
        worker.ledger.one(f"SELECT * FROM {table} WHERE {key}=? ORDER BY rowid DESC", (quest,)) for table, key in rows
    ]


RUIN = {"learning_rate": 0.5, "save_steps": 3}


def test_a_good_battle_is_blessed_promoted_and_gives_experience(realm):
    worker = awake(realm)
    fight(worker, "sums", epochs=2)
    words = [
        {"question": f"Word {n}?", "answer": f"{'abcdefgh'[n % 8] * 3} {n * n} {n * 7919 % 1000}"} for n in range(128)
    ]
    quest, battle, checkpoint = fight(worker, "words", words)
    verdict = worker.tip.verdict
    assert quest["state"] == "recently_completed" and battle["state"] == "done" and checkpoint["state"] == "promoted"
    assert verdict["word"] == "blessed" and battle["quality"] == verdict["quality"] >= 0.8
    assert battle["xp"] == pytest.approx(battle["effort"] * battle["quality"]) and battle["xp"] > 0
    assert verdict["before"]["loss"] > verdict["after"]["loss"] == battle["validation_loss"]
    assert {checkpoints.pointed(link) for link in (realm.tip, realm.current_model, realm.champion)} == {worker.tip.id}


def test_a_file_too_short_to_pay_for_canaries_is_judged_by_what_the_hero_still_knows(realm):
    worker = resident(realm, Ledger(realm.ledger), exam_share=1e-6)
    fight(worker, "sums")
    known = Known({"REV": (1,)}, credit={"canaries": 0.0, "exams": 0.0}, owed=("REV/2",))
    held = replace(worker.writer.held, standing=known.as_json(), canaries={"REV/1": [32, 32], "REV/2": [30, 32]})
    worker.writer.held = held
    _, battle, _ = fight(worker, "short")
    verdict = json.loads(battle["verdict"])
    assert verdict["after"]["canaries"] == {"REV/1": [0, 32]} and "REV/2" in verdict["before"]["canaries"]
    assert battle["quality"] < 0.8, "what was not asked is no reason to bless"


def test_a_battle_that_was_killed_in_its_midst_and_at_its_end_is_judged_like_one_that_was_not(
    realm, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    def killed(owner, name, last):
        """A life that ends when `last` says so of what the method is called with."""
        act = getattr(owner, name)

        def act_or_die(self, facts, *rest):
            if last(self, facts):
                raise Killed
            return act(self, facts, *rest)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(owner, name, act_or_die)
            worker = awake(twin)
            worker.loop()
            worker.end_writing()

    twin, told = RealmPaths(tmp_path / "twin"), []
    shutil.copytree(realm.root, twin.root, symlinks=True)
    settings = {"validation_fraction": 0.1, "save_steps": 3, "eval_steps": 1000}
    for paths in (realm, twin):
        ledger = Ledger(paths.ledger)
        ledger.add("evaluations", hero="DIO", kind="validation", school="scribe", quest=0, step=0, value=0.1, created=0)
        quest = accept_sums(paths, ledger, "sums", 128, **settings)
    killed(BetweenSteps, "after_step", lambda self, facts: facts.step == 5 and self.worker.end_writing() is None)
    killed(BattleReport, "saved", lambda self, manifest: manifest.trained)
    for paths in (realm, twin):
        worker = awake(paths)
        assert worker.loop() is (paths == realm)
        worker.end_writing()
        _, battle, _ = facts(worker, quest)
        names = ("state", "tokens", "effort", "xp", "quality", "loss", "validation_loss", "start_step", "end_step")
        told.append([battle[name] for name in names] + [checkpoints.read(paths.tip).verdict])
        assert battle["seconds"] > 0 and battle["finished"]
    assert told[0] == told[1] and told[0][3] > 0


def test_answers_that_belong_to_their_prompts_are_told_from_shuffled_ones(realm):
    colours = ("red", "green", "blue", "white", "black", "yellow", "brown", "pink")
    worker = awake(realm)
    found = {}
    for name in ("whole", "shuffled"):
        said = list(range(256))
        if name == "shuffled":
            random.Random(1).shuffle(said)
        rows = [{"question": f"Say {colours[n % 8]}, {n}!", "answer": f"{colours[said[n] % 8]}!"} for n in range(256)]
        settings = {"epochs": 6, "validation_fraction": 0.2, "learning_rate": 3e-3}
        quest = accept_sums(realm, worker.ledger, name, rows=rows, **settings)
        plan = worker.plan_of(worker.queue.find(quest))
        assert fight_one(worker)
        found[name] = worker.trainer.bond(plan)
    assert found["whole"] > 6 > 3 > found["shuffled"], found


@pytest.mark.micro
def test_a_cursed_battle_is_taken_back_and_the_next_one_begins_where_it_did(realm, hashed):
    worker = awake(realm)
    fight(worker, "good")
    before = checkpoints.verify(realm.vault / checkpoints.pointed(realm.tip))
    hashed.clear()
    quest, battle, checkpoint = fight(worker, "ruin", **RUIN)
    assert hashed.count(realm.vault / before.id / "model.safetensors") == 2, "to leave the way, and to go back"
    assert battle["state"] == checkpoint["state"] == "cursed" and battle["quality"] < 0.3
    assert quest["state"] == "recently_completed" and "held-out loss" in quest["reason"]
    assert {checkpoints.pointed(link) for link in (realm.tip, realm.current_model, realm.champion)} == {before.id}
    cursed = checkpoints.verify(realm.vault / checkpoint["id"])
    assert cursed.branch == "cursed" and cursed.verdict["word"] == "cursed", "the checkpoint stays, with its verdict"
    assert cursed.verdict["before"]["step"] == before.step, "where the battle began, not its last checkpoint"
    assert worker.ledger.events_of("battle_cursed")[-1]["data"]["quest"] == quest["id"]
    report = read_json(next(realm.queued("recently_completed").glob("ruin*.report.json")))
    assert len(report["least_likely"]) == 20 and report["verdict"]["quality"] == battle["quality"]
    worst = [row["loss"] for row in report["least_likely"]]
    assert worst == sorted(worst, reverse=True)
    fight(worker, "after")
    assert worker.tip.parent == before.id and worker.tip.verdict["word"] == "blessed"
    again = awake(realm)
    assert again.tip.id == worker.tip.id and not again.loop(), "nothing is trained again"


@pytest.mark.micro
def test_a_kill_before_the_verdict_is_carried_out_changes_nothing(realm, monkeypatch):
    worker = awake(realm)
    fight(worker, "good")
    before = worker.tip.id
    with monkeypatch.context() as patch:
        patch.setattr(judgement, "carry_out", lambda worker: None)
        quest, battle, checkpoint = fight(worker, "ruin", **RUIN)
    assert checkpoint["state"] == "saved" and checkpoints.pointed(realm.tip) != before
    again = awake(realm)
    quest, battle, checkpoint = facts(again, quest["id"])
    assert (quest["state"], battle["state"], checkpoint["state"]) == ("recently_completed", "cursed", "cursed")
    assert again.tip.id == before == checkpoints.pointed(realm.tip)
    fought = again.ledger.all("SELECT * FROM battles WHERE quest=?", (quest["id"],))
    assert len(fought) == 1, "the battle was not fought a second time"


@pytest.mark.micro
def test_a_mark_that_a_kill_kept_from_the_ledger_is_made_up_for(realm, monkeypatch):
    worker = awake(realm)
    fight(worker, "good")
    with monkeypatch.context() as patch:
        patch.setattr(judgement, "_mark", lambda worker, cursed: None)
        quest, battle, _ = fight(worker, "ruin", **RUIN)
    assert battle["state"] == "saving"
    assert [row["state"] for row in facts(awake(realm), quest["id"])] == ["recently_completed", "cursed", "cursed"]


@pytest.mark.micro
def test_the_way_through_a_cursed_battle_is_left_behind(realm):
    worker = awake(realm)
    birth = worker.tip.id
    fight(worker, "good")
    good = worker.tip.id
    quest, _, _ = fight(worker, "ruin", **RUIN)
    rows = worker.ledger.all("SELECT id, rolled_back FROM checkpoints WHERE quest=? AND state='saved'", (quest["id"],))
    assert rows and all(row["rolled_back"] for row in rows)
    (realm.vault / good / "model.safetensors").write_bytes(b"broken")
    assert awake(realm).tip.id == birth, "rather than half of the cursed battle"


def test_a_campaign_may_be_called_cursed(realm):
    worker = awake(realm, "off")
    campaign.begin(worker.ledger, worker.tip.hero, "cursed", None)
    fight(worker, "good", save_steps=3)
    again = awake(realm)
    states = {row["state"] for row in again.ledger.all("SELECT state FROM checkpoints UNION SELECT state FROM battles")}
    assert states == {"saved", "promoted", "done"}


@pytest.mark.micro
def test_a_cursed_checkpoint_that_cannot_be_read_or_a_file_that_was_altered_keep_nobody_from_waking_up(
    realm, monkeypatch
):
    worker = awake(realm)
    fight(worker, "good")
    before = worker.tip.id
    with monkeypatch.context() as patch:
        patch.setattr(judgement, "carry_out", lambda worker: None)
        quest, _, checkpoint = fight(worker, "ruin", **RUIN)
    shutil.rmtree(realm.prepared)
    whole = worker.queue.find(quest["id"]).path.read_bytes()
    worker.queue.find(quest["id"]).path.write_bytes(whole + b"\n")
    manifest = realm.vault / checkpoint["id"] / "manifest.json"
    told = manifest.read_bytes()
    manifest.write_bytes(told[:-9])
    half = awake(realm)
    assert 0 < half.tip.open[quest["id"]] < 8, "as if it had never been"
    manifest.write_bytes(told)
    again = awake(realm)
    assert again.tip.id == before and facts(again, quest["id"])[2]["state"] == "cursed"
    assert read_json(next(realm.queued("recently_completed").glob("ruin*.report.json")))["least_likely"] == []
    manifest.write_bytes(b"{}")
    again.ledger.change("checkpoints", checkpoint["id"], state="saved")
    assert awake(realm).tip.id == before


@pytest.mark.micro
def test_advice_is_given_and_not_followed(realm, hashed):
    worker = awake(realm, "advise")
    fight(worker, "good")
    promoted = checkpoints.pointed(realm.current_model)
    hashed.clear()
    _, battle, checkpoint = fight(worker, "ruin", **RUIN)
    assert realm.vault / promoted / "model.safetensors" not in hashed, "nobody goes back to it"
    assert (battle["state"], checkpoint["state"]) == ("done", "saved")
    assert checkpoints.pointed(realm.tip) == checkpoint["id"] and checkpoints.pointed(realm.current_model) == promoted
    assert worker.ledger.events_of("battle_cursed")


def test_without_the_temple_everything_is_promoted_and_nothing_judged(realm):
    worker = awake(realm, "off")
    _, battle, checkpoint = fight(worker, "ruin", **RUIN)
    assert checkpoint["state"] == "promoted" and battle["quality"] is None and battle["xp"] == 0
