"""Checkpoints written while training goes on: the next battle begins, wishes keep their promises, kills change nothing."""

import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import resident as home
from resident import accept_sums, hold_back, resident

from core import between_steps, checkpoint_writer, control
from core.between_steps import BetweenSteps
from core.checkpoints import pointed, read, verify
from core.forge.snapshot import Snapshot
from core.ledger import Ledger
from core.paths import CHECKOUT, RealmPaths
from core.status import quest_in_battle

pytestmark = pytest.mark.usefixtures("small_hero")


@pytest.fixture
def enqueue(realm, ledger):
    return partial(accept_sums, realm, ledger)


@pytest.fixture
def gate(monkeypatch):
    """Closed: no checkpoint is committed. It opens at the end of the test, if not before."""
    gate = threading.Event()
    hold_back(gate, monkeypatch.setattr)
    monkeypatch.setattr(between_steps, "LOOK_SECONDS", 0.0)
    yield gate
    gate.set()


@pytest.fixture
def at_step(monkeypatch):
    """Have something done after a step of a quest."""

    def register(quest: int, step: int, action) -> None:
        after_step = BetweenSteps.after_step

        def act(self, facts):
            if (self.quest.id, facts.step) == (quest, step):
                action(self)
            return after_step(self, facts)

        monkeypatch.setattr(BetweenSteps, "after_step", act)

    return register


@pytest.fixture
def uninterrupted(realm, tmp_path):
    """The weights after all that waits was trained straight through, in a copy of the realm."""

    def weights() -> bytes:
        twin = RealmPaths(tmp_path / "twin")
        shutil.copytree(realm.root, twin.root)
        hero = resident(twin, Ledger(twin.ledger))
        train_all(hero)
        return weights_of(twin)

    return weights


def train_all(hero) -> None:
    while hero.loop():
        pass
    hero.end_writing()


def weights_of(paths: RealmPaths) -> bytes:
    return (paths.current_model / "model.safetensors").read_bytes()


def battle_states(ledger, quest: int) -> list[str]:
    return [row["state"] for row in ledger.all("SELECT state FROM battles WHERE quest=? ORDER BY id", (quest,))]


def wish_of(ledger, verb: str, quest: int | None = None):
    key = control.wish(ledger, verb, None if quest is None else str(quest))
    return lambda: ledger.one("SELECT done, result FROM control WHERE id=?", (key,))


def test_the_next_battle_begins_before_the_last_ones_checkpoint_is_there(realm, ledger, enqueue, gate, at_step):
    first, second = enqueue("first"), enqueue("second")
    hero, seen = resident(realm, ledger), {}
    born = hero.tip.id

    def look(battle):
        seen.update(state=hero.queue.find(first).state, battles=battle_states(ledger, first),
                    tip=pointed(realm.tip), skipped=quest_in_battle(realm, hero.queue))  # fmt: skip
        gate.set()

    at_step(second, 2, look)
    assert hero.loop() and hero.loop()
    assert seen == {"state": "processing", "battles": ["saving"], "tip": born, "skipped": second}
    hero.end_writing()
    assert battle_states(ledger, first) == battle_states(ledger, second) == ["done"]
    assert hero.queue.find(first).state == hero.queue.find(second).state == "recently_completed"
    assert hero.tip.trained == ((first, second),) and pointed(realm.current_model) == pointed(realm.tip) == hero.tip.id
    assert verify(realm.vault / hero.tip.parent).trained == ((first, first),)


def test_a_kill_while_the_first_of_two_is_written_changes_no_weight_and_a_crash_is_the_seconds_fault(
    realm, ledger, enqueue, uninterrupted, tmp_path
):
    late, urgent = enqueue("late", priority="low"), enqueue("urgent", priority="high")
    expected = uninterrupted()
    command = [sys.executable, home.__file__, str(realm.root)]
    child = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, timeout=60)
    assert child.returncode == -9
    half_built = next(realm.vault.glob(".building-*"))
    assert (half_built / "optimizer.safetensors").stat().st_size > 1e6
    crashed = RealmPaths(tmp_path / "crashed")
    shutil.copytree(realm.root, crashed.root, symlinks=True)
    queue = resident(crashed, Ledger(crashed.ledger), "-11").queue
    assert queue.find(urgent).state == "processing" and queue.find(late).state == "low"
    hero = resident(realm, ledger, "-9")
    assert not half_built.exists() and hero.tip.step == 0
    assert [quest.id for quest in hero.queue.processing()] == [urgent, late], "in the order of their claims"
    train_all(hero)
    assert weights_of(realm) == expected
    assert battle_states(ledger, urgent) == battle_states(ledger, late) == ["lost", "done"]


def test_a_stop_waits_for_the_checkpoint_under_way_and_for_its_own(realm, ledger, enqueue, gate, at_step):
    first, second = enqueue("first"), enqueue("second", 160)
    hero = resident(realm, ledger)

    def stop(battle):
        hero.should_exit.set()
        threading.Timer(0.3, gate.set).start()

    at_step(second, 2, stop)
    hero.run()
    tip = verify(realm.vault / pointed(realm.tip))
    assert tip.trained == ((first, first),) and tip.open == {second: 2}
    assert hero.queue.find(first).state == "recently_completed" and hero.queue.find(second).state == "processing"


def test_a_pause_is_carried_out_when_its_checkpoint_is_there(realm, ledger, enqueue, gate, at_step):
    quest, seen = enqueue("sums", 160), []
    hero = resident(realm, ledger)

    def pause(battle):
        told = wish_of(ledger, "pause")

        def watch():
            seen.append((told()["done"], pointed(realm.tip) == hero.tip.id))
            gate.set()
            while not told()["done"]:
                pass
            seen.append(verify(realm.vault / pointed(realm.tip)).open)
            control.wish(Ledger(realm.ledger), "resume")

        threading.Timer(0.3, watch).start()

    at_step(quest, 2, pause)
    hero.loop()
    assert seen == [(None, True), {quest: 2}]


def test_while_one_is_saved_another_can_be_skipped_but_the_trained_one_not_cancelled(
    realm, ledger, enqueue, gate, at_step
):
    first, second = enqueue("first"), enqueue("second", 160)
    hero, told = resident(realm, ledger), {}

    def wish(battle):
        told.update(cancel=wish_of(ledger, "cancel", first), skip=wish_of(ledger, "skip", second))
        threading.Timer(0.3, gate.set).start()

    at_step(second, 2, wish)
    assert hero.loop() and hero.loop()
    assert "is trained" in told["cancel"]()["result"] and told["skip"]()["result"] == "done"
    assert hero.queue.find(first).state == "recently_completed" and hero.queue.find(second).state == "low"
    assert hero.tip.trained == ((first, first),) and hero.tip.open == {second: 2}


def test_a_disk_that_fills_up_in_the_background_holds_the_battle_up_and_nothing_is_trained_again(
    realm, ledger, enqueue, uninterrupted, monkeypatch, at_step
):
    first, second = enqueue("first"), enqueue("second", 160)
    expected = uninterrupted()
    write, refusals, filled = Snapshot.write, [], threading.Event()

    def write_to_a_full_disk(self, folder: Path, tokenizer):
        if len(refusals) < 3:
            assert filled.wait(30)
            refusals.append(folder)
            (folder / "model.safetensors").symlink_to("/dev/full")
        return write(self, folder, tokenizer)

    def fill_up(battle):
        filled.set()
        while hero.writer.stuck is None:
            time.sleep(0.01)
        assert not list(realm.vault.glob(".building-*")) and hero.tip.step == 0

    monkeypatch.setattr(Snapshot, "write", write_to_a_full_disk)
    monkeypatch.setattr(checkpoint_writer, "ROOM_SECONDS", 0.3)
    monkeypatch.setattr(between_steps, "LOOK_SECONDS", 0.0)
    at_step(second, 2, fill_up)
    hero = resident(realm, ledger)
    train_all(hero)
    told = [event["code"] for event in ledger.events() if event["service"] == "trainer"][2:]
    assert told == ["battle_began", "battle_began", "battle_waits", "quest_done", "battle_goes_on", "quest_done"]
    assert len(refusals) == 3 and weights_of(realm) == expected and hero.tip.trained == ((first, second),)
    rows = ledger.all("SELECT quest, start_step, end_step FROM battles ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [(first, 0, 4), (second, 4, 14)]


def test_training_waits_where_as_much_as_an_interval_is_on_no_disk_and_hears_wishes_meanwhile(
    realm, ledger, enqueue, gate, at_step
):
    quest, seen = enqueue("sums", 320, save_steps=4), {}
    hero = resident(realm, ledger)

    def look(battle):
        """In the midst of the wait, from a thread of its own."""
        seen.update(step=hero.trainer.global_step, tip=hero.tip.step, begun=hero.writer.held.step)
        seen["skipped"] = wish_of(ledger, "skip", quest)
        threading.Timer(0.3, gate.set).start()

    at_step(quest, 4, lambda battle: threading.Timer(1.0, look, [battle]).start())
    hero.loop()
    assert {key: seen[key] for key in ("step", "tip", "begun")} == {"step": 4, "tip": 0, "begun": 3}
    assert seen["skipped"]()["result"] == "done" and hero.tip.open == {quest: 4}


def test_checkpoints_are_on_disk_before_their_interval_is_over(realm, ledger, enqueue, monkeypatch):
    enqueue("first", 240, save_steps=5), enqueue("second", 240, save_steps=5)
    after_step, at_risk = BetweenSteps.after_step, []

    def watch(self, facts):
        tip = read(realm.vault / pointed(realm.tip))
        at_risk.append(facts.global_step - tip.step)
        return after_step(self, facts)

    monkeypatch.setattr(BetweenSteps, "after_step", watch)
    monkeypatch.setattr(between_steps, "LOOK_SECONDS", 0.05)
    train_all(resident(realm, ledger))
    assert max(at_risk) <= 5 and len(at_risk) == 30
