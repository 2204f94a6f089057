"""The resident hero in this process: waking up, battles one after another, corrupt checkpoints, failures, wishes."""

import random
import shutil
import sqlite3
from functools import partial

import pytest
import torch
from resident import accept_sums, death, fight, resident

from core import control
from core.battle_report import BattleReport
from core.between_steps import BetweenSteps
from core.checkpoints import pointed, verify
from core.durable import read_json
from core.errors import CheckpointError
from core.forge.hatch import micro_hero
from core.forge.state import save_model
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.status import alerts
from core.steps import KEPT_OF_QUEST, read_previews
from core.training_queue import TrainingQueue
from core.worker import Worker
from safety.crash_detector import Evidence, diagnose

pytestmark = pytest.mark.usefixtures("small_hero")


@pytest.fixture
def enqueue(realm, ledger, config):
    return partial(accept_sums, realm, ledger, config=config)


@pytest.fixture
def wake(realm, ledger, config):
    """A worker that has woken up; call it again for the next life."""

    def awaken(last_exit: str = "", paths: RealmPaths = realm, **evidence) -> Worker:
        own = ledger if paths == realm else Ledger(paths.ledger)
        return resident(paths, own, death(last_exit, **evidence), config=config)

    return awaken


def state_of(worker: Worker, quest: int) -> str:
    return worker.queue.find(quest).state


def weights(folder) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_hero_hatches_as_checkpoint_0_and_its_battles_are_promoted(realm, wake, enqueue):
    worker = wake()
    assert worker.tip.step == 0 and pointed(realm.current_model) == worker.tip.id
    first, second = enqueue("first"), enqueue("second")
    assert fight(worker) and fight(worker) and not fight(worker)
    assert state_of(worker, first) == state_of(worker, second) == "recently_completed"
    assert worker.tip.trained == ((first, second),) and worker.tip.step == 8
    assert pointed(realm.current_model) == pointed(realm.tip) == worker.tip.id
    battles = worker.ledger.all("SELECT * FROM battles ORDER BY id")
    assert [battle["state"] for battle in battles] == ["done", "done"]
    assert battles[1]["start_step"] == 4 and battles[1]["validation_loss"] == worker.tip.validation_loss


def test_what_the_user_brought_to_models_is_the_hero(realm, wake):
    brought = realm.models / "Qwen3-mini"
    model = micro_hero(seed=99)
    save_model(model, brought, BUNDLED_TOKENIZER)
    worker = wake()
    assert worker.tip.settings["base_model"] == "Qwen3-mini"
    assert weights(realm.current_model) == weights(brought)
    assert (realm.current_model / "tokenizer.json").read_bytes() == (brought / "tokenizer.json").read_bytes()


def test_killed_after_any_checkpoint_the_weights_come_out_the_same(realm, wake, enqueue, tmp_path, monkeypatch):
    straight = wake()
    quest = enqueue("sums", 160, save_steps=3, eval_steps=4)
    twin = RealmPaths(tmp_path / "twin")
    shutil.copytree(realm.root, twin.root, symlinks=True)
    fight(straight)
    expected = weights(realm.current_model)

    class Killed(BaseException):
        pass

    after_step = BetweenSteps.after_step
    for last_step in (2, 4, 7):

        def die(self, facts, last_step=last_step):
            if facts.step > last_step:
                self.worker.collect(patient=True)
                raise Killed
            return after_step(self, facts)

        monkeypatch.setattr(BetweenSteps, "after_step", die)
        with pytest.raises(Killed):
            wake("-9", twin).loop()
    monkeypatch.setattr(BetweenSteps, "after_step", after_step)
    worker = wake("-9", twin)
    assert worker.tip.open == {quest: 6}
    fight(worker)
    assert weights(twin.current_model) == expected


def test_a_checkpoint_with_a_flipped_bit_is_passed_over_and_its_quest_is_trained_again(realm, wake, enqueue):
    worker = wake()
    first, second = enqueue("first"), enqueue("second")
    fight(worker)
    before = worker.tip.id
    fight(worker)
    expected = weights(realm.current_model)
    broken = realm.vault / worker.tip.id / "model.safetensors"
    data = bytearray(broken.read_bytes())
    data[len(data) // 2] ^= 4
    broken.write_bytes(data)
    worker = wake()
    assert worker.tip.id == before and pointed(realm.current_model) == before
    assert state_of(worker, first) == "recently_completed" and state_of(worker, second) == "normal"
    assert worker.ledger.one("SELECT COUNT(*) AS n FROM events WHERE code='checkpoint_corrupt'")["n"] >= 1
    fight(worker)
    assert weights(realm.vault / worker.tip.id) == expected and verify(realm.vault / worker.tip.id)


def test_a_checkpoint_without_its_optimizer_is_no_checkpoint(realm, wake, enqueue):
    worker = wake()
    enqueue("sums")
    fight(worker)
    (realm.vault / worker.tip.id / "optimizer.safetensors").unlink()
    with pytest.raises(CheckpointError):
        verify(realm.vault / worker.tip.id)
    assert wake().tip.step == 0


def test_a_quest_that_fails_three_times_goes_to_failed_and_the_others_go_on(realm, wake, enqueue, monkeypatch):
    worker = wake()
    poison, good = enqueue("poison"), enqueue("good")
    after_step = BetweenSteps.after_step

    def spoil(self, facts):
        if self.quest.id == poison:
            raise ArithmeticError("nan, or some such")
        return after_step(self, facts)

    monkeypatch.setattr(BetweenSteps, "after_step", spoil)
    for _ in range(4):
        assert fight(worker)
    assert state_of(worker, poison) == "failed" and state_of(worker, good) == "recently_completed"
    assert "nan" in worker.queue.find(poison).report["reason"]
    assert worker.tip.trained == ((good, good),)
    assert all(torch.isfinite(parameter).all() for parameter in worker.trainer.model.parameters())


def test_steps_that_are_read_together_are_recorded_each_with_its_own_numbers(realm, wake, enqueue, monkeypatch):
    worker, seen = wake(), []
    enqueue("sums", 160)
    monkeypatch.setattr("core.between_steps.LOOK_SECONDS", 1e9)
    step = BattleReport.step
    monkeypatch.setattr(BattleReport, "step", lambda self, facts: (seen.append(facts), step(self, facts)))
    fight(worker)
    with sqlite3.connect(realm.metrics) as record:
        rows = record.execute("SELECT step, loss, gradient_norm, tokens, seconds FROM steps ORDER BY step").fetchall()
    assert rows == [
        (facts.global_step, facts.loss.item(), facts.gradient_norm.item(), facts.tokens, facts.seconds)
        for facts in seen
    ]
    assert len(rows) == 10 and len({loss for _, loss, *_ in rows}) == 10


@pytest.mark.micro
def test_learning_by_heart_raises_an_alarm_that_ends_with_the_battle(wake, enqueue, ledger, monkeypatch):
    worker, dice, shown = wake(), random.Random(1), []
    worker.trainer.look_share = float("inf")
    words = ["red", "green", "blue", "seven", "nine", "house", "tree", "dog"]
    rows = [{"question": f"What of {n}?", "answer": " ".join(dice.choices(words, k=4))} for n in range(40)]
    enqueue("nonsense", rows=rows, epochs=30, eval_steps=8, learning_rate=4e-3, validation_fraction=0.25)
    end = BattleReport.end
    monkeypatch.setattr(BattleReport, "end", lambda self, state: (shown.extend(alerts(ledger)), end(self, state)))
    fight(worker)
    assert [alert["code"] for alert in shown] == ["overfitting"] and "nonsense" in shown[0]["text"]
    assert ledger.one("SELECT level FROM events WHERE code='overfitting'")["level"] == "warning"
    assert alerts(ledger) == []
    battle = ledger.one("SELECT * FROM battles")
    losses = [row["value"] for row in ledger.all("SELECT value FROM evaluations WHERE kind='validation' ORDER BY id")]
    assert battle["validation_loss"] == losses[-1] > min(losses) + 0.02


@pytest.mark.micro
def test_the_heros_answers_stand_beside_the_expected_ones_and_only_the_newest_looks_are_kept(realm, wake, enqueue):
    worker = wake()
    worker.trainer.look_share = float("inf")
    rows = [
        {"question": f"Round {n}", "answer": "Well.\nAnswer: seven" if n % 2 else "Answer: seven"} for n in range(160)
    ]
    quest = enqueue("rounds", rows=rows, skill="BIN", eval_steps=4, epochs=3, learning_rate=3e-3)
    fight(worker)
    looks = read_previews(realm.metrics, quest)
    assert [look["step"] for look in looks] == sorted((look["step"] for look in looks), reverse=True)
    assert len(looks) == KEPT_OF_QUEST and looks[0]["step"] == worker.tip.step
    assert len({tuple(answer["prompt"] for answer in look["answers"]) for look in looks}) == 1
    newest = looks[0]["answers"][0]
    assert newest["prompt"].startswith("Round ") and newest["expected"].endswith("Answer: seven")
    kinds = worker.ledger.all("SELECT kind, COUNT(*) AS n, MAX(value) AS best FROM evaluations GROUP BY kind")
    best = {row["kind"]: row["best"] for row in kinds}
    assert set(best) == {"validation", "accuracy", "preview"} and best["accuracy"] > 0.8
    assert newest["answer"].endswith("Answer: seven") and newest["score"] == best["preview"] == 1.0


def test_a_tiny_file_without_held_out_rows_is_trained_without_a_look(realm, wake, enqueue):
    worker = wake()
    quest = enqueue("few", 5)
    fight(worker)
    assert state_of(worker, quest) == "recently_completed" and read_previews(realm.metrics) == []
    assert worker.ledger.all("SELECT * FROM evaluations") == []


def test_an_unexplained_kill_is_not_the_quests_fault_but_a_crash_is(wake, enqueue, realm, ledger):
    quest = enqueue("sums")
    TrainingQueue(realm, ledger).claim()
    for _ in range(4):
        wake("-9")
    assert state_of(wake("-9"), quest) == "processing"
    for _ in range(2):
        assert state_of(wake("-11"), quest) == "normal"
        TrainingQueue(realm, ledger).claim()
    assert state_of(wake("-11"), quest) == "failed"


def test_a_quest_that_kills_the_trainer_three_times_fails_with_its_dossier_unless_a_checkpoint_came_between(
    wake, enqueue, realm, ledger, monkeypatch
):
    quest = enqueue("poison", save_steps=2)
    assert fight(wake())  # so that its rows are prepared, and the other has something to lose
    other = enqueue("other", 96, save_steps=2)
    crash = {"said": "Fatal Python error: Segmentation fault", "step": 5}
    for count in (1, 2):
        TrainingQueue(realm, ledger).claim()
        worker = wake("-11", **crash)
        assert len(worker.queue.find(other).report["attempts"]) == count
    after_step = BetweenSteps.after_step

    def die(self, facts):
        if facts.step == 4:
            self.worker.collect(patient=True)
            raise KeyboardInterrupt
        return after_step(self, facts)

    monkeypatch.setattr(BetweenSteps, "after_step", die)
    with pytest.raises(KeyboardInterrupt):
        worker.loop()
    for count in (1, 2, 3):
        worker = wake("-11", **crash)
        attempts = worker.queue.find(other).report["attempts"]
        assert len(attempts) == count
        assert state_of(worker, other) == ("normal" if count < 3 else "failed")
        if count < 3:
            worker.queue.claim()
    assert {key: attempts[-1][key] for key in ("kind", "exit", "signal", "step")} == {
        "kind": "bug", "exit": "SIGSEGV", "signal": "SIGSEGV", "step": 5}  # fmt: skip
    assert attempts[-1]["lines"] == [crash["said"]] and attempts[-1]["advice"] and attempts[-1]["time"] > 1e9
    assert state_of(worker, quest) == "recently_completed"
    assert [alert["code"] for alert in alerts(ledger)] == ["quest_failed"]


def test_after_a_kill_for_memory_the_quest_goes_on_in_passes_half_as_large_and_the_third_ends_it(
    realm, wake, enqueue, ledger, tmp_path
):
    straight = wake()
    quest = enqueue("sums", 160)
    twin = RealmPaths(tmp_path / "twin")
    shutil.copytree(realm.root, twin.root, symlinks=True)
    fight(straight)
    steps = "SELECT step, tokens, loss FROM steps ORDER BY step"
    expected = sqlite3.connect(realm.metrics).execute(steps).fetchall()

    queue = TrainingQueue(twin, Ledger(twin.ledger))
    queue.claim()
    worker = wake("-9", twin, oom_killed=True, step=3)
    assert state_of(worker, quest) == "processing"
    fight(worker)
    assert state_of(worker, quest) == "recently_completed"
    ((first, tokens),) = read_json(twin.pack_limits)[worker.tip.hero]
    widest = max(tokens for _, tokens, _ in expected)
    assert first == 1 and widest // 2 - 20 <= tokens <= widest // 2
    assert [row[:2] for row in sqlite3.connect(twin.metrics).execute(steps)] == [row[:2] for row in expected]
    for ours, theirs in zip(sqlite3.connect(twin.metrics).execute(steps), expected, strict=True):
        assert ours[2] == pytest.approx(theirs[2], rel=1e-4)

    greedy, other = enqueue("greedy"), enqueue("other")
    TrainingQueue(realm, ledger).claim()
    for count in (1, 2, 3):
        worker = wake("-9", oom_killed=True, step=11)
        assert state_of(worker, greedy) == ("processing" if count < 3 else "failed")
    report = worker.queue.find(greedy).report
    assert [attempt["kind"] for attempt in report["attempts"]] == ["oom_kill"] * 3
    assert fight(worker) and state_of(worker, other) == "recently_completed"


def test_a_death_outside_a_battle_is_no_quests_fault_and_one_that_would_come_again_is_tried_once(
    realm, ledger, config, enqueue
):
    quest = enqueue("sums")
    TrainingQueue(realm, ledger).claim()
    for phase, said, state in (("setup", "ImportError", "processing"), ("setup", "x", "processing"),
                               ("step", "ImportError", "processing"), ("step", "No space left on device", "processing"),
                               ("step", "JSONDecodeError", "failed")):  # fmt: skip
        crash = diagnose(Evidence(1, said, phase=phase))
        worker = resident(realm, ledger, crash, config=config)
        assert state_of(worker, quest) == state


def test_cancel_in_battle_sends_the_quest_to_failed_with_what_was_learned_kept(realm, wake, enqueue, ledger):
    worker = wake()
    quest = enqueue("sums", 320)
    control.wish(ledger, "cancel", str(quest))
    TrainingQueue(realm, ledger).claim()
    worker._undertake(worker.queue.processing()[0])
    assert state_of(worker, quest) == "failed" and worker.queue.find(quest).report["reason"] == "cancelled"
    assert control.waiting(ledger) == []


@pytest.mark.parametrize(("left", "state"), [("skip", "low"), ("cancel", "failed"), ("stop", "processing")])
def test_a_quest_being_prepared_shows_how_far_it_is_and_can_be_left(
    realm, ledger, wake, enqueue, monkeypatch, left, state
):
    monkeypatch.setattr("core.preparation.LOOK_SECONDS", 0)
    monkeypatch.setattr("core.prepare.CHUNK_ROWS", 8)
    worker = wake()
    quest, shown, show = enqueue("long"), [], worker.report.preparing

    def preparing(*facts):
        show(*facts)
        shown.append(read_json(realm.status))
        if len(shown) == 3 and left == "stop":
            worker.should_exit.set()
        elif len(shown) == 3:
            control.wish(ledger, left, str(quest))

    worker.report.preparing = preparing
    fight(worker)
    assert [each["state"] for each in shown] == ["preparing"] * 3
    assert [each["preparing"]["share"] for each in shown] == pytest.approx([1 / 8, 2 / 8, 3 / 8], abs=0.02)
    assert state_of(worker, quest) == state and not list(realm.prepared.iterdir())
    if left == "skip":
        fight(worker)
        assert state_of(worker, quest) == "recently_completed"


def test_a_pause_while_a_quest_is_prepared_keeps_what_is_done(realm, ledger, wake, enqueue, monkeypatch):
    monkeypatch.setattr("core.preparation.LOOK_SECONDS", 0)
    worker = wake()
    quest, shown, show = enqueue("long"), [], worker.report.preparing

    def preparing(*facts):
        show(*facts)
        shown.append(read_json(realm.status)["state"])
        if len(shown) in (1, 4):
            control.wish(ledger, "pause" if len(shown) == 1 else "resume")

    worker.report.preparing = preparing
    fight(worker)
    assert shown == ["preparing", "paused", "paused", "paused"] and state_of(worker, quest) == "recently_completed"
