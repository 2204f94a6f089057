"""Curves and GPU readings: small on the wire, exact where it counts."""

import math
import sqlite3
import sys
import time
from types import SimpleNamespace

import pytest

from core import steps
from core.ledger import migrate
from core.steps import Step, StepRecord
from monitoring import gpu
from monitoring.metrics import Metrics, smooth

MILLION, HERO = 1_000_000, "DIO"

pytestmark = pytest.mark.alone


@pytest.fixture(scope="module")
def million(tmp_path_factory):
    """A record of a million steps as an older version left it: without sums per block."""
    path = tmp_path_factory.mktemp("metrics") / "metrics.db"
    connection = sqlite3.connect(path, isolation_level=None)
    migrate(connection, steps.MIGRATIONS[:1])
    connection.execute("BEGIN")
    connection.execute(f"""
        WITH RECURSIVE counted(step) AS (SELECT 1 UNION ALL SELECT step + 1 FROM counted WHERE step < {MILLION})
        INSERT INTO steps SELECT step, 1 + step / 9000, 1e9 + step, 2.0 + (step * 7919 % 1000) / 1000.0, 1e-3,
        IIF(step % 3, 0.5 + (step % 11), NULL), 4000 + step % 7, 0.25 + (step % 5) / 100.0 FROM counted""")
    connection.execute("INSERT INTO validations SELECT step, quest, time, loss FROM steps WHERE step % 50 = 0")
    connection.execute("UPDATE steps SET loss = 99 WHERE step = 543210")
    connection.execute("COMMIT")
    connection.close()
    StepRecord(path, HERO)
    return path


def plain(path, query, *values):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query, values).fetchone()
    finally:
        connection.close()


def record(path, *rows, hero=HERO):
    """Rows are (step, quest, loss)."""
    writer = StepRecord(path, hero)
    for step, quest, loss in rows:
        writer.add(Step(step, quest, 1e9 + step, loss, 1e-3, 1.0, 4000, 0.5))
    writer.flush()
    return writer


def test_a_million_steps_answer_within_a_tenth_of_a_second(million):
    metrics, took = Metrics(million, HERO), []
    for _ in range(3):
        began = time.perf_counter()
        curves = metrics.curves()
        took.append(time.perf_counter() - began)
    assert min(took) < 0.1, took
    assert 100 < len(curves.first) <= 240 and len(curves.validation) <= 240


def test_downsampling_keeps_ends_and_extremes(million):
    curves = Metrics(million, HERO).curves()
    loss = curves.series["loss"]
    assert (curves.first[0], curves.last[-1]) == (1, MILLION)
    assert max(loss.max) == 99 and min(loss.min) == 2.0
    place = loss.max.index(99)
    assert curves.first[place] <= 543210 <= curves.last[place]
    assert all(last + 1 == first for last, first in zip(curves.last, curves.first[1:], strict=False))


@pytest.mark.parametrize(
    ("first", "last"), [(1, MILLION), (100, 777_777), (999_000, MILLION), (63, 320_000), (5, 70), (7, 7)]
)
def test_every_bucket_says_what_the_steps_say(million, first, last):
    curves = Metrics(million, HERO).curves(first, last)
    for place in (0, len(curves.first) // 2, -1):
        low, high, mean, speed, norm = plain(
            million,
            "SELECT MIN(loss), MAX(loss), AVG(loss), 1.0 * SUM(tokens) / SUM(seconds), AVG(gradient_norm) "
            "FROM steps WHERE step BETWEEN ? AND ?",
            curves.first[place],
            curves.last[place],
        )
        loss, speeds = curves.series["loss"], curves.series["tokens_per_second"]
        assert (loss.min[place], loss.max[place]) == (low, high)
        assert math.isclose(loss.mean[place], mean) and math.isclose(speeds.mean[place], speed, rel_tol=1e-9)
        assert curves.series["gradient_norm"].mean[place] == pytest.approx(norm)
    assert (curves.first[0], curves.last[-1]) == (first, last)


def test_few_steps_stay_single_steps(tmp_path):
    record(tmp_path / "m.db", *((step, 1, step / 10) for step in range(1, 101)))
    curves = Metrics(tmp_path / "m.db", HERO).curves(recent=40)
    assert curves.first == curves.last == list(range(61, 101))
    assert curves.series["loss"].mean == [step / 10 for step in range(61, 101)]


def test_a_quest_has_a_curve_of_its_own(tmp_path):
    rows = [(step, 1 if step % 900 < 450 else 2, 1.0 if step % 900 < 450 else 5.0) for step in range(1, 40_001)]
    record(tmp_path / "m.db", *rows)
    metrics = Metrics(tmp_path / "m.db", HERO)
    curves = metrics.curves(quest=2)
    assert metrics.span(2) == (450, 39_999 if rows[-2][1] == 2 else curves.last[-1])
    assert set(curves.quests) == {2} and set(curves.series["loss"].mean) == {5.0}


def test_a_step_trained_again_replaces_what_was_there(tmp_path):
    record(tmp_path / "m.db", *((step, 1, 9.0) for step in range(1, 30_001)))
    record(tmp_path / "m.db", *((step, 2, 1.0) for step in range(29_000, 30_001)))
    metrics = Metrics(tmp_path / "m.db", HERO)
    assert metrics.span(1) == (1, 28_999)
    curves = metrics.curves(buckets=10)
    (mean,) = plain(tmp_path / "m.db", "SELECT AVG(loss) FROM steps WHERE step >= ?", curves.first[-1])
    assert curves.series["loss"].mean[-1] == pytest.approx(mean)


def test_a_new_heros_steps_leave_the_old_ones_alone(tmp_path):
    record(tmp_path / "m.db", *((step, 1, 2.0) for step in range(1, 201)))
    record(tmp_path / "m.db", *((step, 2, 9.0) for step in range(1, 101)), hero="Qwen").validation(100, 2, 1e9, 8.0)
    old, new = (Metrics(tmp_path / "m.db", hero).curves(buckets=10) for hero in (HERO, "Qwen"))
    assert (old.last[-1], set(old.series["loss"].max), old.validation) == (200, {2.0}, [])
    assert (new.last[-1], set(new.series["loss"].max), new.validation) == (100, {9.0}, [8.0])
    assert Metrics(tmp_path / "m.db", "Nobody").span() is None


@pytest.mark.parametrize(("place", "rubbish"), [(0, b"no database at all"), (4096, bytes(3 * 4096))])
def test_a_record_that_a_power_cut_broke_gives_way_to_a_new_one(tmp_path, place, rubbish):
    path = tmp_path / "metrics.db"
    record(path, *((number, 1, 2.0) for number in range(1, 400)))._connection.close()
    with open(path, "r+b") as file:
        file.seek(place)
        file.write(rubbish)
    record(path, (400, 1, 1.5))
    assert plain(path, "SELECT COUNT(*), MAX(step), MAX(loss) FROM steps") == (1, 400, 1.5)
    assert plain(path, "PRAGMA integrity_check") == ("ok",) and path.with_name("metrics.db.broken").exists()


def test_nothing_recorded_is_an_empty_answer(tmp_path):
    metrics = Metrics(tmp_path / "m.db", HERO)
    assert metrics.span() is None and not metrics.curves()
    (tmp_path / "m.db").write_bytes(b"no database at all, but long enough to be taken for one" * 40)
    assert metrics.span() is None and not metrics.curves()


def test_smoothing_keeps_a_jump_between_battles():
    smoothed = smooth([1.0] * 20 + [5.0] * 20, [1] * 20 + [2] * 20)
    assert smoothed[19] == pytest.approx(1.0) and smoothed[20] == pytest.approx(5.0)
    assert smooth([1.0, None, 3.0], [1, 1, 1])[1] is None
    assert smooth([], []) == []


def test_a_machine_without_gpu_has_no_readings(monkeypatch):
    monkeypatch.setattr(gpu, "_library", None)
    monkeypatch.setattr(gpu, "_asked", -1e9)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu.read_gpus() == []


def test_a_reading_that_a_card_does_not_offer_is_null(monkeypatch):
    def unwilling(*_):
        raise RuntimeError("not supported")

    driver = SimpleNamespace(
        NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda _: b"Card",
        nvmlDeviceGetMemoryInfo=lambda _: SimpleNamespace(used=1, total=2),
        nvmlDeviceGetTemperature=lambda *_: 40,
        nvmlDeviceGetPowerUsage=unwilling,
        nvmlDeviceGetEnforcedPowerLimit=unwilling,
        nvmlDeviceGetUtilizationRates=unwilling,
    )
    monkeypatch.setattr(gpu, "_library", driver)
    assert gpu.read_gpus() == [
        {
            "index": 0,
            "name": "Card",
            "utilization_percent": None,
            "memory_used_bytes": 1,
            "memory_total_bytes": 2,
            "temperature_celsius": 40,
            "power_watts": None,
            "power_limit_watts": None,
        }
    ]
    driver.nvmlDeviceGetCount = unwilling
    assert gpu.read_gpus() == [] and gpu._library is None


def test_what_was_told_last_is_found_without_reading_what_was_told_before(tmp_path):
    path = tmp_path / "m.db"

    def effort(until: int) -> int:
        """Instructions of SQLite, after so many steps."""
        writer = record(path, (until, 7, 1.0))
        for step in range(until // 2, until):
            entropy = math.nan if step > until - 3 else 2.0 * step
            writer.told(step, 7, {"clipped": 1.0 * step, "entropy": entropy})
        writer.told(until, 8, {"clipped": -1.0, "other": -1.0})
        writer.add(Step(until, 7, 1e9, 1.0, 1e-3, 1.0, 4000, 0.5))
        writer.flush()
        counted, connection = [], steps.open_read_only(path)
        connection.set_progress_handler(lambda: counted.append(1), 1)
        wanted = {"hero": HERO, "quest": 7}
        connection.execute(steps.LAST_TOLD, wanted).fetchall()
        connection.set_progress_handler(None, 0)
        plan = [row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {steps.LAST_TOLD}", wanted)]
        assert not [step for step in plan if "SCAN told" in step or "TEMP" in step]
        return len(counted)

    assert steps.last_told(path, HERO, 7) == {}
    few = effort(8)
    assert steps.last_told(path, HERO, 7) == {"clipped": 7.0, "entropy": 10.0}
    assert steps.last_told(path, HERO, 9) == steps.last_told(path, "nobody", 7) == {}
    assert effort(8_000) < 2 * few
