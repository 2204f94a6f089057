"""Logs: one record is one line, days roll over, nothing in a message can forge a line or steer a terminal."""

import json
import logging
import subprocess
import sys
import threading
import time

import pytest

from core.errors import UserError
from core.logs import DailyFile, HumanText, JsonLines, as_text, follow, newest_records, visible
from core.paths import CHECKOUT, RealmPaths

NASTY = "one\ntwo\r\x1b[2J\x9b31m\u202etxt.exe\u2066 \u2028\ud800\x7f end"


@pytest.fixture
def paths(tmp_path):
    made = RealmPaths(tmp_path)
    made.make()
    return made


def record(message: str, moment: float | None = None, trace=None) -> logging.LogRecord:
    made = logging.LogRecord("quest", logging.WARNING, __file__, 1, message, None, trace)
    made.created = moment or made.created
    return made


def written(paths: RealmPaths, service: str, *messages: tuple[str, float]) -> None:
    handler = DailyFile(paths.logs, service)
    for message, moment in messages:
        handler.emit(record(message, moment))
    handler.close()


def test_a_record_is_one_line_of_json_that_gives_the_message_back():
    line = JsonLines("daemon").format(record(NASTY))
    assert line.isprintable() and len(line.splitlines()) == 1
    assert json.loads(line)["message"] == NASTY
    assert json.loads(line)["level"] == "warning"


def test_text_in_other_scripts_stays_readable():
    assert "Жар-птица 火の鳥 🔥" in JsonLines("daemon").format(record("Жар-птица 火の鳥 🔥"))


def test_an_exception_is_a_field_of_its_record():
    try:
        raise ValueError("broken\nrow")
    except ValueError as problem:
        line = JsonLines("daemon").format(record("failed", trace=(ValueError, problem, problem.__traceback__)))
    assert len(line.splitlines()) == 1
    assert "ValueError: broken\nrow" in json.loads(line)["trace"]


def test_text_for_people_cannot_steer_their_terminal():
    assert "\x1b" not in HumanText().format(record(NASTY))
    assert HumanText().format(record(NASTY)).count("\n") == 0
    assert visible("\u202e") == "\\u202e"


def test_the_day_rolls_at_midnight_without_a_restart(paths):
    noon = time.mktime((2030, 5, 17, 12, 0, 0, 0, 0, -1))
    written(paths, "daemon", ("first", noon), ("second", noon + 86400), ("third", noon + 86401))
    names = sorted(file.name for file in paths.logs.iterdir())
    assert names == ["daemon_20300517.log", "daemon_20300518.log"]
    assert len((paths.logs / names[1]).read_text().splitlines()) == 2


def test_two_writers_can_share_a_file(paths):
    now = time.time()
    lines = [[(f"{number} " + "x" * 3000, now)] * 200 for number in range(2)]
    writers = [threading.Thread(target=written, args=(paths, "daemon", *some)) for some in lines]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    (file,) = paths.logs.iterdir()
    assert sorted(json.loads(line)["message"][0] for line in file.read_text().splitlines()) == ["0"] * 200 + ["1"] * 200


def test_the_newest_records_of_all_services_come_in_order_of_time(paths):
    now = time.time()
    written(paths, "daemon", *((f"d{number}", now + number) for number in range(0, 1000, 2)))
    written(paths, "trainer", *((f"t{number}", now + number) for number in range(1, 1000, 2)))
    assert [record["message"] for record in newest_records(paths, count=4)] == ["d996", "t997", "d998", "t999"]
    assert [record["message"] for record in newest_records(paths, "daemon", 2)] == ["d996", "d998"]
    assert len(newest_records(paths, count=5000)) == 1000


def test_an_unknown_service_is_refused_with_the_nearest_name(paths):
    written(paths, "trainer", ("hello", time.time()))
    with pytest.raises(UserError, match=r"no log of 'trianer'; did you mean 'trainer'\?"):
        newest_records(paths, "trianer")


def test_a_line_cut_by_a_crash_is_shown_as_it_is(paths):
    (paths.logs / "daemon_20300517.log").write_bytes(b'{"time": 1, "message": "whole"}\n{"time": 2, "mess')
    assert [record["message"] for record in newest_records(paths)] == ['{"time": 2, "mess', "whole"]


def test_following_sees_new_lines_and_new_files_and_waits_for_a_whole_line(paths):
    written(paths, "daemon", ("old", time.time()))
    slept = []

    def write_half_a_line(seconds: float) -> None:
        slept.append(seconds)
        file = paths.logs / "tavern_20300517.log"
        halves = [b'{"message": "com', b'plete"}\n']
        with open(file, "ab") as log:
            log.write(halves[min(len(slept), 2) - 1])

    seen = follow(paths, None, write_half_a_line)
    assert next(seen)["message"] == "complete"
    assert len(slept) == 2


def test_a_trace_is_shown_indented_below_its_record():
    trace = "Traceback\n  \x1b[1mline"
    shown = as_text({"time": 0.0, "service": "daemon", "level": "error", "message": "failed", "trace": trace})
    assert shown.splitlines()[1:] == ["    Traceback", "      \\u001b[1mline"]


def test_a_crash_that_nobody_catches_is_in_the_log_with_its_trace(tmp_path):
    program = (
        "from pathlib import Path; from core.logs import start_logging; from core.paths import CHECKOUT, RealmPaths\n"
        f"for name in ('a', 'b'): start_logging(RealmPaths(Path({str(tmp_path)!r}) / name), 'daemon')\n"
        "1 / 0"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True)
    assert result.returncode == 1 and "ZeroDivisionError" in result.stderr
    assert not (tmp_path / "a").exists()  # logging that is started anew writes to the last place only
    (crash,) = newest_records(RealmPaths(tmp_path / "b"))
    assert crash["level"] == "critical" and "ZeroDivisionError: division by zero" in crash["trace"]
