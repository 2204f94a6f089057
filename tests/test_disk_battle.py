"""The hero and its daemon on a full disk: the battle waits where it is, nothing is claimed, nothing is said too early."""

import sqlite3
import threading
import time

import pytest
from resident import accept_sums, resident
from tavern_server import client_of

from core import between_steps, disk
from core.between_steps import BetweenSteps
from core.config import Config, IdleGeneration
from core.disk import Level, Word
from core.inbox import drop
from core.paths import RealmPaths
from core.room import Room
from core.training_daemon import TrainingDaemon

pytestmark = pytest.mark.usefixtures("small_hero")

ASLEEP = Config(idle_generation=IdleGeneration(enabled=False))


def say(paths: RealmPaths, level: Level) -> None:
    disk.say(paths, Word(level, time.time(), f"The disk is {level.word}."))


def test_a_battle_waits_where_it_is_and_goes_on_with_the_next_step(realm, ledger, monkeypatch):
    monkeypatch.setattr(between_steps, "LOOK_SECONDS", 0.0)
    quest = accept_sums(realm, ledger, "sums", 160)
    hero, seen, after_step = resident(realm, ledger), [], BetweenSteps.after_step

    def fill_up_at_the_third(self, facts):
        seen.append(facts.step)
        if facts.step == 3:
            say(realm, Level.PAUSED)
            threading.Timer(0.4, lambda: (seen.append("room"), say(realm, Level.NORMAL))).start()
        return after_step(self, facts)

    monkeypatch.setattr(BetweenSteps, "after_step", fill_up_at_the_third)
    assert hero.loop()
    hero.end_writing()
    assert seen == [1, 2, 3, "room", *range(4, 11)] and hero.queue.find(quest).state == "recently_completed"
    codes = [event["code"] for event in ledger.events() if event["service"] == "trainer"]
    assert codes[codes.index("battle_began") :] == ["battle_began", "battle_waits", "battle_goes_on", "quest_done"]


def test_from_the_claim_mark_on_nothing_is_taken_from_the_queue_or_the_inbox_and_uploads_are_told_why(realm, ledger):
    quest = accept_sums(realm, ledger, "sums")
    with drop(realm, "later") as file:
        file.write(b'{"text": "later"}\n')
    hero = resident(realm, ledger)
    say(realm, Level.NOT_CLAIMING)
    assert not hero.loop() and hero.queue.find(quest).state == "normal"
    daemon = TrainingDaemon(realm, ASLEEP, ledger, time.monotonic, lambda: None, disk=lambda now: Level.NOT_CLAIMING)
    daemon.loop(time.monotonic() + 5)
    assert [path.name for path in realm.inbox.glob("*.jsonl")] == ["later.jsonl"]
    with client_of(realm) as client:
        refused = client.post(
            "/api/quests?name=a.jsonl", content=b'{"text": "a"}\n', headers={"sec-fetch-site": "same-origin"}
        )
        assert (refused.status_code, refused.json()["error"]["code"]) == (507, "no_room")
        assert "not_claiming" in refused.text and "not_claiming" in client.get("/").text
    say(realm, Level.NORMAL)
    assert hero.loop()
    hero.end_writing()


def test_a_stop_on_a_full_disk_ends_at_once_and_says_nothing_was_saved(realm, ledger, monkeypatch):
    monkeypatch.setattr(between_steps, "LOOK_SECONDS", 0.0)
    quest = accept_sums(realm, ledger, "sums", 160)
    hero, after_step = resident(realm, ledger), BetweenSteps.after_step
    monkeypatch.setattr(Room, "holds", lambda self, *wanted: facts_of[0])
    facts_of = [True]

    def fill_up(self, facts):
        if facts.step == 3:
            facts_of[0] = False
            threading.Timer(0.3, hero.should_exit.set).start()
        return after_step(self, facts)

    monkeypatch.setattr(BetweenSteps, "after_step", fill_up)
    began = time.monotonic()
    hero.run()
    assert time.monotonic() - began < 20 and hero.tip.step == 0
    facts_of[0] = True
    monkeypatch.setattr(BetweenSteps, "after_step", after_step)
    hero = resident(realm, ledger, "0")
    assert hero.loop()
    hero.end_writing()
    assert hero.tip.trained == ((quest, quest),) and hero.tip.step == 10


def test_a_disk_that_fails_is_not_the_quests_fault(realm, ledger, monkeypatch):
    quest = accept_sums(realm, ledger, "sums")
    hero = resident(realm, ledger)

    def fail(self, facts):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(BetweenSteps, "after_step", fail)
    with pytest.raises(sqlite3.OperationalError):
        hero.loop()
    row = ledger.one("SELECT failures, state FROM quests WHERE id=?", (quest,))
    assert row == {"failures": 0, "state": "processing"}
