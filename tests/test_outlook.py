"""What comes next, how long the queue will take, what the hero can do: each told from what the realm really holds."""

import pytest
from tavern_realm import empty_realm, fill, services

from core.config import Config
from core.control import wish
from core.durable import read_json, write_json
from core.hero_loop import RESTING
from core.ledger import Ledger
from monitoring.servers.tavern import views
from monitoring.servers.tavern.outlook import what_next
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.words import about


@pytest.fixture
def paths(tmp_path):
    """A realm whose services live and whose hero rests."""
    paths = empty_realm(tmp_path)
    services(paths)
    snapshot(paths, "idle")
    return paths


def snapshot(paths, state, **more):
    hero = {"model": "qwen3", "parameters": 1, "global_step": 10}
    write_json(paths.status, {"state": state, "hero": hero, "battle": None, **more})


def service(paths, name, **facts):
    rows = [row | (facts if row["name"] == name else {}) for row in read_json(paths.services)["services"]]
    write_json(paths.services, {"services": rows})


def told(paths, **settings):
    realm = Realm(paths, Config(**settings))
    next = what_next(realm)
    realm.ledger.close()
    return next


BATTLE = {"quest": "lore", "quest_id": 1, "step": 3, "total_steps": 9, "eta_seconds": 60.0}


def test_a_realm_that_sleeps_is_blocked_and_the_command_that_wakes_it_is_named(tmp_path):
    next = told(empty_realm(tmp_path))
    assert (next.kind, next.title, next.command) == ("blocked", "The realm is asleep", "bash scripts/start.sh")


def test_a_config_that_is_wrong_is_named_and_not_called_waking_up(paths):
    snapshot(paths, "loading")
    assert told(paths).title == "The hero wakes up"
    ledger = Ledger(paths.ledger)
    ledger.event("trainer", "config_wrong", "The trainer waits: batch_size: -1 is less than 1", "alert")
    next = told(paths)
    assert next.kind == "blocked" and "batch_size: -1" in next.text and "once that is mended" in next.text
    ledger.event("trainer", "hero_awake", "DIO is awake.")
    assert told(paths).kind == "idle"
    ledger.close()


@pytest.mark.parametrize(("name", "log"), [("trainer", "logs trainer"), ("daemon", "logs daemon")])
def test_a_service_that_is_down_blocks_and_its_log_is_named(paths, name, log):
    service(paths, name, pid=None)
    next = told(paths)
    assert next.kind == "blocked" and "stopped" in next.title and next.command.endswith(log)


def test_a_battle_that_waits_for_room_is_blocked(paths):
    snapshot(paths, "blocked", battle=BATTLE)
    assert told(paths).title == "The trainer waits for room on the disk"


def test_a_pause_offers_to_go_on_unless_the_battle_does(paths):
    ledger = Ledger(paths.ledger)
    wish(ledger, "pause", None)
    assert told(paths).verb == "resume"
    snapshot(paths, "paused", battle=BATTLE)
    assert told(paths).title == "Paused" and told(paths).verb is None
    ledger.close()


def test_what_is_under_way_is_told_from_the_file_to_the_battle(paths):
    quiet = {"idle_generation": {"enabled": False}}
    assert told(paths, **quiet).text.startswith("No quest waits. Drop a .jsonl")
    assert "practises its skills" in told(paths).text
    ledger = Ledger(paths.ledger)
    ledger.set_mark(RESTING.format("DIO"), "maxed_out")
    assert "mastered every level" in told(paths).text
    ledger.set_mark(RESTING.format("DIO"), "what a newer trainer may say")
    assert told(paths).text.endswith("the hero rests.")
    ledger.set_mark(RESTING.format("DIO"), None)
    ledger.close()
    (paths.claims / "lore-q000001.jsonl").touch()
    assert told(paths).text == "One file is being checked; what is understood is trained at once."
    (paths.claims / "lore-q000001.jsonl").rename(paths.queued("high") / "lore-q000001.jsonl")
    assert told(paths).title == "A quest is being taken up"
    asked = {"quest": "lore", "quest_id": 1, "kind": "asking", "share": 0.25, "eta_seconds": 9}
    write_json(paths.asking, asked)
    assert told(paths).text == "25% of lore is answered; what was said is trained then."
    snapshot(paths, "preparing", preparing={"quest": "lore", "quest_id": 1, "share": 0.5, "eta_seconds": 1})
    assert told(paths).text.startswith("50% of lore is turned into tokens")  # what the trainer does is nearer
    paths.asking.unlink()
    snapshot(paths, "battle", battle=BATTLE)
    assert told(paths).kind == "go" and told(paths).text == "One quest waits behind it."
    (paths.queued("high") / "lore-q000001.jsonl").unlink()
    assert told(paths).text.startswith("No quest waits behind it.")
    snapshot(paths, "saving")
    assert told(paths).title == "The hero is being saved"


def test_the_end_of_the_queue_is_estimated_from_bytes_and_pace(tmp_path):
    paths = empty_realm(tmp_path)
    ledger = fill(paths)
    realm = Realm(paths, Config())
    pace = ledger.one(
        "SELECT SUM(seconds) AS s, SUM(bytes) AS b FROM battles JOIN quests ON quests.id=quest WHERE battles.state='done'"
    )
    waiting = ledger.one("SELECT SUM(bytes) AS b FROM quests WHERE state='queued'")["b"]
    assert realm.queue_seconds() == pytest.approx(64.2 + waiting * pace["s"] / pace["b"])
    assert views.now(realm)["text"]["queue.eta"] == about(realm.queue_seconds())
    ledger.connection.execute("UPDATE battles SET state='running'")
    assert Realm(paths, Config()).queue_seconds() is None  # nothing to judge by
    ledger.close()


def test_estimates_are_told_roughly():
    assert [about(seconds) for seconds in (None, 0, 40, 90, 8040, 20_000, 260_000)] == [
        "–", "–", "less than a minute", "about 1.5 min", "about 2 h", "about 6 h", "about 3 d",
    ]  # fmt: skip


def test_the_hero_card_names_the_skills_that_were_trained_with_their_newest_score(tmp_path):
    paths = empty_realm(tmp_path)
    fill(paths).close()
    assert views.skills(Realm(paths, Config())) == [
        {"skill": "BIN", "quests": 1, "title": "Binary arithmetic", "mastered": 0, "level": None, "right": 0.875}
    ]
    assert views.skills(Realm(empty_realm(tmp_path / "new"), Config())) == []
