"""A disk that fills up: when that counts, what is given back, and that nothing is lost, refused wrongly or said too early."""

import itertools
import json
import os
import random
import sqlite3
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from processes import until

from core import disk
from core.config import Config, Disk, IdleGeneration, check_config
from core.disk import Level
from core.errors import UserError
from core.full_disk import Reserve
from core.inbox import drop
from core.ledger import Ledger
from core.paths import RealmPaths
from core.room import Room
from core.status import realm_status
from core.steps import Step, StepRecord
from core.training_daemon import TrainingDaemon
from management.auto_disk_manager import AutoDiskManager, judge, lacking
from training.bench.faults_disk import fill, fill_and_free, refusal, small_disk

GB = 10**9
NEED = 80 * 10**6  # a micro hero's
ASLEEP = Config(idle_generation=IdleGeneration(enabled=False))


@pytest.fixture
def tiny(tmp_path):
    """A realm on a file system of 16 MiB and 400 inodes."""
    if why := refusal():
        pytest.skip(why)
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk(folder, 16 << 20, 400) as root:
        paths = RealmPaths(root / "realm")
        paths.make()
        yield paths


def free_again(paths: RealmPaths) -> None:
    for file in (paths.root / "filling").iterdir():
        file.unlink()


# When a disk counts as full


def at(percent: float, size: int = 4 * GB, inodes: float = 0.0) -> Room:
    return Room(size, int(size * (1 - percent / 100)), 1000, int(1000 * (1 - inodes / 100)))


@pytest.mark.parametrize(
    ("room", "level"),
    [
        (at(80), Level.NORMAL),
        (at(86), Level.PRUNING),
        (at(91), Level.NOT_CLAIMING),
        (at(96), Level.PAUSED),
        (at(10, inodes=91), Level.NOT_CLAIMING),
        (at(10, inodes=96), Level.PAUSED),
        (at(91, size=2000 * GB), Level.NORMAL),  # 180 GB are free
        (at(10, size=NEED), Level.PAUSED),  # less is free than the next checkpoint wants
        (Room(GB, GB // 2), Level.NORMAL),  # no limit of inodes
    ],
)
def test_marks_count_where_little_is_free_in_bytes_or_inodes(room, level):
    assert judge(room, NEED, Disk(), Level.NORMAL) is level


def test_what_was_paused_goes_on_below_the_claim_mark_and_not_before():
    level, seen = Level.NORMAL, []
    for percent in (89, 90.5, 89.5, 88.9, 95.5, 94, 90.1, 89.9, 84.5, 83.9):
        level = judge(at(percent), NEED, Disk(), level)
        seen.append(level)
    assert seen == [1, 2, 2, 1, 3, 3, 3, 2, 1, 0]


rooms = st.builds(Room, st.just(10 * GB), st.integers(0, 10 * GB), st.just(1000), st.integers(0, 1000))


@given(rooms, st.integers(1, GB), st.sampled_from(Level), st.sampled_from(Level), st.integers(1, GB))
def test_more_room_never_makes_it_worse_and_the_same_room_changes_nothing(room, need, before, worse_before, more):
    level = judge(room, need, Disk(), before)
    assert judge(room, need, Disk(), level) is level
    roomier = Room(room.size, min(room.size, room.free + more), room.inodes, room.free_inodes)
    assert judge(roomier, need, Disk(), before) <= level
    assert judge(room, need, Disk(), max(before, worse_before)) >= level
    if room.inodes and room.free_inodes > 150:
        freed = Room(room.size, min(room.size, room.free + lacking(room, need, Disk())), 0, 0)
        assert judge(freed, need, Disk(), level) < Level.NOT_CLAIMING, "what lacks is enough to work again"


def test_marks_that_do_not_rise_are_refused_in_words():
    with pytest.raises(UserError, match="the marks must rise"):
        check_config({"disk": {"prune_percent": 92.0}})


def test_the_manager_says_its_word_keeps_the_reserve_and_asks_for_pruning(realm, ledger):
    room, asked = at(50), []
    manager = AutoDiskManager(realm, Disk(reserve_bytes=1 << 16), ledger, asked.append, lambda: room)
    clock = itertools.count(0, 10)
    assert manager.turn(next(clock)) is Level.NORMAL and Reserve(realm).bytes == 1 << 16 and asked == []
    room = at(94)
    assert manager.turn(next(clock)) is Level.NOT_CLAIMING is disk.heard(realm).level
    assert asked[0] > 0 and Reserve(realm).bytes, "it is given back to a full disk only"
    room = Room(4 * GB, 1000)
    assert manager.turn(next(clock)) is Level.PAUSED and Reserve(realm).bytes == 0
    status = realm_status(realm, ASLEEP, ledger)
    assert [alert["code"] for alert in status["alerts"]] == ["disk_low"]
    assert status["disk"]["state"] == "paused" and "training goes on by itself" in status["alerts"][0]["text"]
    room = at(50)
    assert manager.turn(next(clock)) is Level.NORMAL and Reserve(realm).bytes
    assert realm_status(realm, ASLEEP, ledger)["alerts"] == []
    assert [event["code"] for event in ledger.events()] == ["disk_low", "disk_low", "disk_ok"]


# Writing to a full disk


@pytest.mark.parametrize("kind", ["bytes", "inodes"])
def test_the_reserve_lets_the_ledger_finish_and_without_it_nothing_is_said_to_be_there(tiny, kind):
    reserve = Reserve(tiny)
    ledger = Ledger(tiny.ledger, reserve.release)
    assert reserve.take(1 << 20) and os.stat(next(tiny.reserve.glob("bytes"))).st_blocks * 512 >= 1 << 20
    fill(tiny.root / "filling", kind)
    for number in range(50):
        ledger.event("daemon", "told", f"sentence {number}" * 20)
    assert len(ledger.all("SELECT id FROM events")) == 50 and reserve.bytes == 0
    fill(tiny.root / "filling", kind)
    with pytest.raises(sqlite3.OperationalError):
        for _ in range(500):
            ledger.event("daemon", "told", "one more" * 200)
    rows = len(ledger.all("SELECT id FROM events"))
    assert ledger.one("PRAGMA integrity_check") == {"integrity_check": "ok"}
    free_again(tiny)
    ledger.event("daemon", "told", "there is room again")
    assert len(ledger.all("SELECT id FROM events")) == rows + 1


@pytest.mark.parametrize("kind", ["bytes", "inodes"])
def test_steps_that_found_no_room_are_recorded_when_there_is(tiny, kind):
    record = StepRecord(tiny.metrics, "DIO")
    fill(tiny.root / "filling", kind)
    for step in range(1, 4001):
        record.add(Step(step, 1, 0.0, 2.0, 1e-3, 1.0, 100, 0.1))
    record.flush()
    record.validation(4000, 1, 0.0, 2.5)
    connection = sqlite3.connect(tiny.metrics)
    assert connection.execute("SELECT COUNT(*) FROM steps").fetchone()[0] == 0
    free_again(tiny)
    record.flush()
    assert connection.execute("SELECT COUNT(*) FROM steps").fetchone()[0] == 4000
    assert connection.execute("SELECT loss FROM validations").fetchone()[0] == 2.5
    connection.close()


@pytest.mark.parametrize("kind", ["bytes", "inodes"])
def test_a_file_that_is_judged_on_a_full_disk_is_not_rejected_and_queued_as_soon_as_there_is_room(tiny, kind):
    ledger = Ledger(tiny.ledger)
    rows = [json.dumps({"question": f"{n}?", "answer": str(n)}) for n in range(2000)]
    with drop(tiny, "songs") as file:
        file.write("\n".join([*rows, *["{broken"] * 15]).encode())
    daemon = TrainingDaemon(tiny, ASLEEP, ledger, time.monotonic, lambda: None)
    stop, life = threading.Event(), threading.Thread(target=lambda: daemon.run(stop))
    daemon.loop(time.monotonic())
    assert until(lambda: list(tiny.claims.glob("songs*.jsonl")) or (not daemon.loop(time.monotonic()) and 0))
    fill(tiny.root / "filling", kind)
    life.start()
    try:
        time.sleep(1.5)
        counts = daemon.queue.counts()
        assert list(tiny.claims.glob("songs-q*[0-9].jsonl")) and life.is_alive() and not any(counts.values())
        free_again(tiny)
        assert until(lambda: daemon.queue.counts()["normal"] == 1)
        quest = daemon.queue.quests("normal")[0]
        assert quest.card["rows"] == 2000 and len(quest.companion(".bad.jsonl").read_text().splitlines()) == 15
        assert ledger.one("SELECT state FROM quests") == {"state": "queued"}
    finally:
        stop.set()
        life.join()


# For real


@pytest.mark.skipif(bool(refusal()), reason=str(refusal()))
def test_a_realm_whose_disk_is_filled_reads_on_waits_and_goes_on(tmp_path: Path):
    rounds, lost = fill_and_free(["bytes", "inodes"], random.Random(7), compare=False)
    assert [each.findings for each in rounds] == [[], []] and lost == []
    assert all(each.reads >= 6 and each.resumed < 60 for each in rounds)
