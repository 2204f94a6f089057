"""Copies of the numbers for TensorBoard and Trackio: all of them, once, whatever dies; and nobody is hurt by a sink."""

import contextlib
import importlib.util
import json
import os
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace

import pytest
from processes import until

from core.config import check_config
from core.durable import write_json
from core.errors import UserError
from core.paths import CHECKOUT
from core.steps import Step, StepRecord
from monitoring.sinks import open_sink
from monitoring.sinks.copier import Copier
from monitoring.sinks.tensorboard import checksum
from safety.daemon_watchdog import Service, Watchdog
from training.watchdog_process import _beginner, services

needs_trackio = pytest.mark.skipif(not importlib.util.find_spec("trackio"), reason="requirements-sinks.txt")


class Kept:
    """A sink that shows what a tool would: what is behind the place where it was opened is void."""

    def __init__(self):
        self.shown, self.flushed, self.closed = {}, 0, 0

    def opened(self, after):
        self.shown = {key: value for key, value in self.shown.items() if key[1] <= after}
        return self

    def write(self, step, time, values):
        for name, value in values.items():
            assert (name, step) not in self.shown, "told twice"
            self.shown[name, step] = value

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed += 1


def train(record, realm, first, last, loss=2.0, quest=1):
    for step in range(first, last + 1):
        record.add(Step(step, quest, time.time(), loss, 1e-3, 0.5, 4000, 0.5))
    record.flush()
    record.validation(last, quest, time.time(), loss + 0.1)
    write_json(realm.status, {"hero": {"global_step": last}})


def all_of(copier):
    while copier.turn(time.monotonic()):
        pass


@pytest.fixture
def record(realm):
    return StepRecord(realm.metrics, "DIO")


def test_every_step_is_copied_once_and_a_new_life_goes_on_where_the_last_was(realm, ledger, record):
    kept = Kept()
    copier = Copier(realm, "kept", "DIO", ledger, kept.opened)
    all_of(copier)
    assert kept.shown == {}
    train(record, realm, 1, 4500)
    all_of(copier)
    train(record, realm, 4501, 4600)
    copier.close()
    copier = Copier(realm, "kept", "DIO", ledger, kept.opened)
    all_of(copier)
    assert [kept.shown["train/loss", step] for step in range(1, 4601)] == [2.0] * 4600
    assert kept.shown["train/tokens_per_second", 7] == 8000 and kept.shown["validation/loss", 4600] == 2.1
    assert len(kept.shown) == 4 * 4600 + 2 and kept.closed == 1


def test_what_is_trained_again_replaces_what_was_shown(realm, ledger, record):
    kept = Kept()
    copier = Copier(realm, "kept", "DIO", ledger, kept.opened)
    train(record, realm, 1, 100)
    all_of(copier)
    write_json(realm.status, {"hero": {"global_step": 90}})  # told late: nothing has gone back
    all_of(copier)
    assert kept.closed == 0
    train(record, realm, 61, 80, loss=7.0, quest=2)  # rolled back to 60
    all_of(copier)
    assert kept.shown["train/loss", 60] == 2.0 and kept.shown["train/loss", 80] == 7.0 and kept.closed == 1
    train(record, realm, 81, 120, loss=7.0, quest=2)
    all_of(copier)
    assert {kept.shown["train/loss", step] for step in range(61, 121)} == {7.0}


def fields(data):
    """(field, value) of a protocol buffer's message, from its description: numbers as they are, texts and messages as bytes."""
    place = 0

    def varint():
        nonlocal place
        number = shift = 0
        while True:
            byte = data[place]
            place, number, shift = place + 1, number | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return number

    while place < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            size = {1: 8, 5: 4}.get(key & 7) or varint()
            raw, place = data[place : place + size], place + size
            yield key >> 3, struct.unpack("<d" if size == 8 else "<f", raw)[0] if key & 7 in (1, 5) else raw


def events(folder):
    """(tag, step, value) of every scalar in the event files, in the order in which TensorBoard reads them."""
    found = []
    for path in sorted(folder.rglob("events.out.tfevents.*"), key=lambda path: path.name):
        data = path.read_bytes()
        while len(data) >= 16:
            size = struct.unpack("<Q", data[:8])[0]
            event = dict(fields(data[12 : 12 + size]))
            if 7 in event:
                found = [told for told in found if told[1] < event[2]]
            values = [dict(fields(value)) for _, value in fields(event.get(5, b""))]
            found += [(value[1].decode(), event[2], value[2]) for value in values]
            data = data[16 + size :]
    return found


@contextlib.contextmanager
def sink_process(realm, name):
    command = [sys.executable, "-m", "training.sink_process", "--root", str(realm.root), "--sink", name]
    process = subprocess.Popen([*command, "--parent", str(os.getpid())], cwd=CHECKOUT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_tensorboards_files_hold_every_step_once_though_their_writer_was_killed(realm, ledger, record):
    for life, end in enumerate((signal.SIGKILL, signal.SIGTERM)):
        train(record, realm, 50 * life + 1, 50 * life + 50)
        with sink_process(realm, "tensorboard") as process:
            last = ("validation/loss", 50 * life + 50)
            until(lambda last=last: last in {told[:2] for told in events(realm.runs)})
            process.send_signal(end)
            assert process.wait(10) == (-9 if end is signal.SIGKILL else 0)
    told = events(realm.runs)
    assert sorted(step for tag, step, _ in told if tag == "train/loss") == list(range(1, 101))
    assert {value for tag, _, value in told if tag == "train/loss"} == {2.0}
    names = {"train/loss", "train/learning_rate", "train/gradient_norm", "train/tokens_per_second", "validation/loss"}
    assert {tag for tag, *_ in told} == names
    assert [path.name for path in (realm.runs / "tensorboard").iterdir()] == ["DIO"]


def test_checksums_are_those_of_tensorflows_records():
    crc = 0xE3069283  # CRC-32C of these letters, by RFC 3720's polynomial
    assert checksum(b"123456789") == struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@needs_trackio
@pytest.mark.filterwarnings("ignore")
def test_trackio_holds_every_step(realm, ledger, record):
    train(record, realm, 1, 40)
    with sink_process(realm, "trackio") as process:
        until(lambda: (ledger.mark("sink:trackio:DIO") or {}).get("step") == 40)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with closing(sqlite3.connect(realm.runs / "trackio" / "realm.db")) as connection:
        rows = connection.execute("SELECT step, metrics FROM metrics ORDER BY step").fetchall()
    steps = [
        step for step, metrics in rows if b"train/loss" in (metrics if isinstance(metrics, bytes) else metrics.encode())
    ]
    assert steps == list(range(1, 41))


def test_a_sink_whose_package_is_missing_says_so_and_waits(realm, ledger, monkeypatch):
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(UserError, match=r"sinks.trackio needs trackio: `pip install -r requirements-sinks.txt`"):
        open_sink("trackio", realm.runs, "DIO", 0)


def test_only_what_config_names_becomes_a_service(realm):
    def names():
        return [service.name for service in services(realm, 8888)][4:]

    assert names() == []
    realm.config.write_text(json.dumps({"sinks": {"tensorboard": True}, "alerts": {"ntfy": "https://ntfy.sh/realm"}}))
    assert names() == ["herald", "sink_tensorboard"]
    realm.config.write_text('{"sinks": {"nonsense": true}}')
    assert names() == []
    assert check_config({"sinks": {"trackio": True}}).sinks.trackio


@pytest.mark.parametrize(
    "does", ["raise SystemExit(3)", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(99)"]
)
def test_a_sink_that_crashes_or_hangs_is_told_by_an_alert_and_given_up_while_others_live(realm, ledger, does):
    realm.config.write_text(json.dumps({"sinks": {"trackio": True}}))
    bad = replace(services(realm, 8888)[-1], command=(sys.executable, "-c", does))
    good = Service("good", (sys.executable, "-c", "import time; time.sleep(99)"), silence=1e9)
    clock = [0.0]

    def tell(code, text, level, **data):
        ledger.event("watchdog", code, text, level, **data)

    watchdog = Watchdog([good, bad], _beginner(realm), lambda _: None, lambda _: None, tell, clock=lambda: clock[0])
    try:
        while not ledger.events_of("service_failed") and clock[0] < 2000:
            watchdog.loop(clock[0])
            clock[0] += 2.0
            time.sleep(0.02)
        failed = ledger.events_of("service_failed")
        assert len(failed) == 1 and failed[0]["level"] == "alert" and "sink_trackio" in failed[0]["text"]
        assert watchdog.lives[0].process.poll() is None
    finally:
        watchdog.stop(time.sleep)
