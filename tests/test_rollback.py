"""A rollback while the hero is at work: the trainer carries it out between two steps, and trains on as if nothing had been."""

import json
import shutil
import time
from functools import partial

import pytest
from processes import cli, free_port, in_state, status, until
from resident import accept_sums, fight, resident
from test_realm import drop, write_rows

from core import control
from core.between_steps import BetweenSteps
from core.checkpoints import pointed
from core.durable import read_json
from core.ledger import Ledger
from core.paths import RealmPaths
from core.worker import Worker

pytestmark = pytest.mark.usefixtures("small_hero")


def weights(paths: RealmPaths) -> bytes:
    return (paths.tip / "model.safetensors").read_bytes()


def states(worker: Worker) -> list[str]:
    return [worker.queue.find(quest["id"]).state for quest in worker.ledger.all("SELECT id FROM quests ORDER BY id")]


def test_after_a_rollback_training_goes_on_bit_for_bit_as_if_the_quest_had_never_been(realm, config, tmp_path):
    worker = resident(realm, Ledger(realm.ledger))
    enqueue = partial(accept_sums, realm, worker.ledger, config=config, save_steps=2)
    enqueue("good")
    fight(worker)
    target, twin = worker.tip.id, RealmPaths(tmp_path / "twin")
    shutil.copytree(realm.root, twin.root, symlinks=True)
    bad = enqueue("bad")
    fight(worker)
    key = control.wish(worker.ledger, "rollback", target)
    assert not fight(worker) and control.result(worker.ledger, key) == "done"
    assert pointed(realm.tip) == pointed(realm.current_model) == target == worker.tip.id
    assert read_json(realm.status)["hero"]["global_step"] == worker.tip.step
    enqueue("next", 96)
    fight(worker)

    other = resident(twin, Ledger(twin.ledger))
    other.ledger.add("quests", stem="x", origin="user", state="failed", priority="low", created=0, updated=0)
    assert accept_sums(twin, other.ledger, "next", 96, config=config, save_steps=2) == bad + 1
    fight(other)
    assert weights(realm) == weights(twin)
    assert states(worker) == ["recently_completed"] * 3

    again = resident(realm, Ledger(realm.ledger))  # a restart does not bring the quest back either
    assert states(again) == ["recently_completed"] * 3 and again.tip.id == worker.tip.id
    worker.ledger.close()


def test_in_the_midst_of_a_battle_the_quest_begins_anew_from_where_it_was_rolled_back_to(realm, config, monkeypatch):
    worker = resident(realm, Ledger(realm.ledger))
    birth = worker.tip.id
    enqueue = partial(accept_sums, realm, worker.ledger, config=config)
    first, second = enqueue("first"), enqueue("second", 96)
    fight(worker)
    monkeypatch.setattr("core.between_steps.LOOK_SECONDS", 0.0)
    after_step, wishes = BetweenSteps.after_step, []

    def wish_at_step_2(self, facts):
        if facts.step == 2 and not wishes:
            wishes.append(control.wish(worker.ledger, "promote", pointed(realm.tip)))
            wishes.append(control.wish(worker.ledger, "rollback", birth))
        return after_step(self, facts)

    monkeypatch.setattr(BetweenSteps, "after_step", wish_at_step_2)
    fight(worker)
    assert [control.result(worker.ledger, key) for key in wishes] == ["done", "done"]
    assert pointed(realm.tip) == birth and states(worker) == ["recently_completed", "processing"]
    left = worker.ledger.one("SELECT id FROM checkpoints WHERE rolled_back IS NOT NULL ORDER BY step DESC")["id"]
    assert (realm.vault / left).is_dir(), "what the battle had reached is kept"
    fight(worker)
    assert worker.tip.trained == ((second, second),) and states(worker) == ["recently_completed"] * 2
    assert worker.tip.step == 6, "all of its steps, from birth on"
    worker.ledger.close()
    assert first == 1


def test_a_wish_that_cannot_be_carried_out_says_why_and_training_goes_on(realm, config):
    worker = resident(realm, Ledger(realm.ledger))
    quest = accept_sums(realm, worker.ledger, "sums", config=config)
    before = worker.tip.id
    keys = [control.wish(worker.ledger, verb, "DIO-none") for verb in control.POINTING]
    assert fight(worker)
    assert all("not in the Vault" in control.result(worker.ledger, key) for key in keys)
    assert worker.queue.find(quest).state == "recently_completed" and worker.tip.parent == before
    worker.ledger.close()


def test_a_running_realm_is_turned_by_the_command_line_in_the_midst_of_a_battle(tmp_path):
    root = tmp_path / "realm"
    root.mkdir()
    settings = {"idle_generation": {"enabled": False}, "save_steps": 10, "batch_size": 16}
    (root / "config.json").write_text(json.dumps({**settings, "backup": {"to": str(tmp_path / "backups")}}))
    cli(root, "start-all", "--port", str(free_port()))
    try:
        paths = RealmPaths(root)
        drop(paths, write_rows(tmp_path / "first.jsonl", 200))
        until(lambda: in_state(paths, "recently_completed", "first"))
        target = pointed(paths.current_model)
        drop(paths, write_rows(tmp_path / "long.jsonl", 3000, 3))
        until(lambda: ((status(root)["battle"] or {}).get("step") or 0) > 12)
        began = time.monotonic()
        told = json.loads(cli(root, "vault", "rollback", target, "--json").stdout)
        assert told["lacking"] == [] and pointed(paths.current_model) == target
        assert time.monotonic() - began < 10
        rolled = [row for row in json.loads(cli(root, "vault", "list", "--json").stdout) if row["rolled_back"]]
        assert rolled and all(row["step"] > 12 for row in rolled[:1])
        until(lambda: (status(root)["battle"] or {}).get("step"))
        assert cli(root, "vault", "tag", "mine", "current").returncode == 0
        assert cli(root, "vault", "promote", rolled[0]["id"]).returncode == 0
        assert pointed(paths.current_model) == rolled[0]["id"] and in_state(paths, "processing", "long")
        assert cli(root, "vault", "promote", "DIO-none", check=False).returncode == 1
        assert cli(root, "vault", "backup", "mine").returncode == 0
    finally:
        cli(root, "stop-all")
