"""From the inbox to the queue with real reader processes: every file ends where the contract says, with a reason."""

import contextlib
import hashlib
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Config, IdleGeneration
from core.dice_config import Dice
from core.durable import read_json
from core.errors import UserError
from core.inbox import LONGEST_STEM, drop
from core.intake import Intake
from core.ledger import Ledger
from core.quest import quest_name
from core.quest_file import CHUNK_BYTES, chunks
from core.skills import skill
from core.training_daemon import TrainingDaemon
from core.training_queue import TrainingQueue
from core.validation_process import SILENT_SECONDS, ValidationProcess
from core.validator import DETECT_ROWS

ZEROS = bytes(3 * CHUNK_BYTES // 2)


class Desk:
    """An intake, files dropped into its inbox, and what becomes of them."""

    def __init__(self, paths, config, ledger, lanes):
        self.paths, self.ledger, self.queue = paths, ledger, TrainingQueue(paths, ledger)
        self.intake = Intake(paths, config, ledger, self.queue, *lanes)

    def put(self, data: bytes | str, name="quest.jsonl", folder="", sidecar=None) -> Path:
        """A file renamed into the inbox, as the documented way in asks for."""
        path = self.paths.inbox / folder / name
        if sidecar is not None:
            path.with_name(path.name.removesuffix(".jsonl") + ".quest.json").write_text(sidecar)
        hidden = path.with_name(".arriving")
        hidden.write_bytes(data.encode() if isinstance(data, str) else data)
        os.rename(hidden, path)
        self.intake.inbox.renamed_in(path)
        return path

    def work(self, seconds=60.0):
        """Turn by turn until nothing is on its way any more."""
        end = time.monotonic() + seconds
        self.intake.look(time.monotonic())
        while self.intake.busy:
            self.intake.look(time.monotonic())
            self.intake.advance(time.monotonic())
            assert time.monotonic() < end, "the intake did not come to rest"
            time.sleep(0.005)

    def judge(self, data, **kwargs):
        """Put one file in and return its quest once it is judged."""
        self.put(data, **kwargs)
        self.work()
        return self.queue.find(self.ledger.one("SELECT MAX(id) AS id FROM quests")["id"])

    def row(self, quest) -> dict:
        return self.ledger.one("SELECT * FROM quests WHERE id=?", (quest.id,))


@pytest.fixture
def desk(realm, config, ledger, lanes):
    return Desk(realm, config, ledger, lanes)


def rows(count, first=0) -> list[str]:
    return [
        json.dumps({"question": f"What is {n} plus 1?", "answer": f"It is {n + 1}."})
        for n in range(first, first + count)
    ]


def text(lines) -> str:
    return "".join(line + "\n" for line in lines)


# Good files


def test_a_good_file_waits_in_the_queue_with_card_report_row_and_event(desk):
    data = text(rows(30))
    quest = desk.judge(data)
    assert (quest.state, quest.stem, quest.path.read_text()) == ("normal", "quest", data)
    sha256 = hashlib.sha256(data.encode()).hexdigest()
    assert {
        "sha256": sha256,
        "rows": 30,
        "bad_rows": 0,
        "form": "question",
        "school": "scribe",
        "bytes": len(data),
    }.items() <= quest.card.items()
    assert quest.settings.batch_size == Config().batch_size and quest.settings.epochs == 1
    assert (
        quest.report["verdict"] == "accepted"
        and quest.report["file"] == "quest.jsonl"
        and quest.report["tokens"]["exact"]
    )
    assert desk.row(quest) | {"state": "queued", "sha256": sha256, "rows": 30, "origin": "user"} == desk.row(quest)
    assert desk.ledger.events()[-1]["code"] == "quest_accepted"
    assert list(desk.paths.claims.iterdir()) == [] and [path.name for path in desk.paths.inbox.iterdir()] in (
        ["high", "low"],
        ["low", "high"],
    )


@pytest.mark.parametrize(
    "data",
    [text(rows(3)).rstrip(), text(rows(3)).replace("\n", "\r\n"), "\ufeff" + text(rows(3)), "\n\n" + text(rows(3))],
)
def test_line_ends_byte_order_marks_and_blank_lines_are_no_mistakes(desk, data):
    quest = desk.judge(data)
    assert (quest.state, quest.report["rows"], quest.report["bad_rows"]) == ("normal", 3, 0)


def test_the_folder_gives_the_priority_and_the_sidecar_overrides_it(desk):
    assert desk.judge(text(rows(3)), folder="high").state == "high"
    assert desk.judge(text(rows(4)), folder="high", sidecar='{"priority": "low"}').state == "low"


def test_dice_of_a_sidecar_that_do_not_go_with_the_configs_are_refused_with_the_reason(realm, config, ledger, lanes):
    desk = Desk(realm, config.model_copy(update={"dice": Dice(enabled=True, intelligence=1)}), ledger, lanes)
    quest = desk.judge(text(rows(4)), sidecar='{"dice": {"rules": "readme"}}')
    assert quest.settings.dice == Dice(enabled=True, intelligence=1, rules="readme")
    refused = desk.judge(text(rows(5)), sidecar='{"dice": {"dc": 18}}')
    assert refused.state == "rejected" and "dc 18 is out of reach" in desk.row(refused)["reason"]


def test_the_sidecar_is_frozen_into_the_card(desk):
    lines = [json.dumps({"ask": "a?", "reply": f"{n}"}) for n in range(5)]
    sidecar = {"epochs": 3, "seed": 9, "skill": "BIN", "columns": {"ask": "prompt", "reply": "response"}}
    quest = desk.judge(text(lines), sidecar=json.dumps(sidecar))
    assert (quest.settings.epochs, quest.settings.seed, quest.card["skill"], quest.card["form"]) == (
        3,
        9,
        "BIN",
        "completion",
    )
    assert list(desk.paths.claims.iterdir()) == []


def test_two_files_of_one_name_both_get_their_place(desk):
    first, second = desk.judge(text(rows(3))), desk.judge(text(rows(4)))
    assert first.stem == second.stem == "quest" and first.path != second.path and second.report["rows"] == 4


# Bad rows


def broken_rows() -> tuple[list[str], list[int]]:
    """Two hundred rows, and the lines among them that are broken, one each of many kinds."""
    lines, kinds = rows(200), ['{"question": "a", "answer"', "[1, 2]", '{"question": "a"}', '{"question": "a", "answer": NaN}', "\x00",
                               '{"question": "a", "answer": 7}', '{"question": "", "answer": "b"}', "no json"]  # fmt: skip
    places = [1, 2, 50, DETECT_ROWS, DETECT_ROWS + 1, DETECT_ROWS + 2, 150, 200]
    for place, kind in zip(places, kinds, strict=True):
        lines[place - 1] = kind
    return lines, places


def test_a_bad_file_is_rejected_whole_and_its_report_names_every_line(desk):
    lines, places = broken_rows()
    quest = desk.judge(text(lines))
    assert (quest.state, quest.path.name, quest.path.read_text()) == ("rejected", "quest.jsonl", text(lines))
    assert [error["line"] for error in quest.report["errors"]] == places
    assert (quest.report["rows"], quest.report["bad_rows"]) == (192, 8)
    assert all(error["reason"] and error["field"] for error in quest.report["errors"])
    assert quest.report["reason"].startswith("8 of 200 rows are bad; max_bad_rows = 0.01 allows 2. The first: line 1 ")
    assert not quest.companion(".bad.jsonl").exists()
    assert desk.ledger.events()[-1]["code"] == "quest_rejected" and desk.row(quest)["reason"] == quest.report["reason"]


def test_a_few_bad_rows_are_set_aside_byte_for_byte_and_the_rest_waits(realm, ledger, lanes):
    lines, places = broken_rows()
    desk = Desk(realm, Config(max_bad_rows=0.04), ledger, lanes)
    quest = desk.judge(text(lines))
    assert quest.state == "normal" and quest.card["bad_rows"] == 8 and quest.path.read_text() == text(lines)
    assert quest.companion(".bad.jsonl").read_text() == text(lines[place - 1] for place in places)


def test_bad_rows_are_mended_and_dropped_again_under_their_name(desk):
    quest = desk.judge(text(rows(2)), name="quest-q000001.bad.jsonl")
    assert quest.state == "normal" and quest.stem == "quest-q000001.bad"
    assert desk.judge("nothing", name="other.bad.jsonl").report["verdict"] == "rejected"
    assert desk.queue.counts()["rejected"] == 1


def test_a_cut_off_last_line_is_a_bad_row_and_no_reason_to_wait(desk):
    quest = desk.judge(text(rows(200)) + '{"question": "wha')
    assert (quest.state, quest.card["bad_rows"], quest.report["errors"][0]["line"]) == ("normal", 1, 201)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "holds no rows"),
        (b"\n\n \n", "holds no rows"),
        (b"hello\nworld\n", "no line of the beginning is a JSON object"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "is a PNG image"),
        (b'{"a": 1, "b": 2}\n', "rows of no known form: fields a, b"),
        (b'{"prompt": "a", "chosen": "b", "rejected": "b"}\n', "line 1, rejected: is the same as chosen"),
        (b'{"question": "a", "answer": "b", "x": ' + b"[" * 5000 + b"]" * 5000 + b"}\n", "line 1 is "),
        (b'{"question": "a", "answer": "' + b"x" * (9 << 20) + b'"}\n', "line 1 is longer than 8 MiB"),
    ],
    ids=["empty", "blank", "prose", "image", "form", "school", "deep", "long line"],
)
def test_a_file_that_cannot_be_trained_is_rejected_with_the_reason(desk, data, reason):
    quest = desk.judge(data)
    assert quest.state == "rejected" and reason in quest.report["reason"]
    assert quest.path.read_bytes() == data


@given(st.lists(st.integers(0, 3 * CHUNK_BYTES // 2), max_size=30), st.integers(1, 5))
def test_rows_are_read_in_chunks_of_bounded_bytes_and_none_is_lost(sizes, most):
    lines = [(number, memoryview(ZEROS)[:size]) for number, size in enumerate(sizes)]
    found = list(chunks(iter(lines), most))
    assert [line for chunk in found for line in chunk] == lines
    assert all(0 < len(chunk) <= most for chunk in found)
    assert all(sum(len(line) for _, line in chunk[:-1]) < CHUNK_BYTES for chunk in found)


# Duplicates


def test_the_same_content_again_is_rejected_as_a_duplicate_under_any_name(desk):
    first = desk.judge(text(rows(3)))
    for state in ("normal", "processing", "recently_completed"):
        again = desk.judge(text(rows(3)), name=f"{state}.jsonl")
        assert (again.state, again.report["reason"], again.report["duplicate_of"]) == (
            "rejected",
            "duplicate",
            first.id,
        )
        assert f"quest retry {again.id} --force" in again.report["text"]
        if state == "normal":
            desk.queue.claim()
        elif state == "processing":
            desk.queue.finish(desk.queue.find(first.id))


def test_two_copies_dropped_together_are_trained_once(desk):
    desk.put(text(rows(3)), name="a.jsonl")
    desk.put(text(rows(3)), name="b.jsonl")
    desk.work()
    assert (desk.queue.counts()["normal"], desk.queue.counts()["rejected"]) == (1, 1)


def test_a_file_with_an_evaluation_problem_is_refused_whole_and_the_line_is_named(desk):
    asked = skill("REV").evaluation(2, 5, 1)[0]
    kept = json.dumps({"question": asked.prompt, "answer": asked.response})
    quest = desk.judge("\n".join([*rows(500), kept]) + "\n")
    assert quest.state == "rejected"
    assert "evaluation problems of REV" in quest.report["reason"] and "lines 501" in quest.report["reason"]
    assert quest.report["errors"][0]["line"] == 501 and "skill sample" in quest.report["errors"][0]["remedy"]
    taught = [json.dumps(row) for row in skill("REV").quest_rows(2, 5, 500)]
    assert desk.judge("\n".join(taught) + "\n").state == "normal"


def test_a_duplicate_is_kept_whole_and_its_bad_rows_are_not_set_aside_once_more(desk):
    data = text(rows(200)) + "no json\n"
    assert desk.judge(data).companion(".bad.jsonl").exists()
    again = desk.judge(data)
    assert again.report["reason"] == "duplicate" and again.path.read_text() == data
    assert not again.companion(".bad.jsonl").exists() and list(desk.paths.claims.iterdir()) == []


def test_content_that_failed_or_was_rejected_may_come_again(desk):
    first = desk.judge(text(rows(3)))
    desk.queue.give_up(first, "cancelled")
    assert desk.judge(text(rows(3))).state == "normal"


def test_force_trains_it_again(desk):
    desk.judge(text(rows(3)))
    assert desk.judge(text(rows(3)), sidecar='{"force": true}').state == "normal"


# Sidecars


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        ('{"epoch": 2}', "unknown field 'epoch'; did you mean 'epochs'?"),
        ('{"epochs": "two"}', "epochs = 'two'"),
        ('{"priority": "urgent"}', "priority = 'urgent'"),
        ("[1]", "must be one JSON object"),
        ("{", "must be one JSON object"),
    ],
)
def test_a_wrong_sidecar_rejects_the_file_and_stays_beside_it(desk, sidecar, reason):
    quest = desk.judge(text(rows(3)), sidecar=sidecar)
    assert quest.state == "rejected" and reason in quest.report["reason"] and "quest" in quest.report["reason"]
    assert quest.companion(".quest.json").read_text() == sidecar
    assert list(desk.paths.claims.iterdir()) == []


# Hostile names and things


@pytest.mark.parametrize(
    "name",
    [
        b"x" * 249,
        b"a\nb",
        b"\xff\xfe",
        b"\x1b[31mred",
        "名".encode() * 83,
        b"a-q000001",
        b"-q1",
        b"<b>&\"'",
        b" ",
        b"quest.quest",
    ],
)
def test_a_file_of_any_name_is_taken_and_can_be_found_and_rejected(desk, name):
    quest = desk.judge(text(rows(3)), name=os.fsdecode(name + b".jsonl"))
    assert quest.state == "normal" and len(quest.stem.encode()) <= LONGEST_STEM
    again = desk.judge(text(rows(3)), name=os.fsdecode(name + b".jsonl"))
    assert again.report["reason"] == "duplicate" and again.path.exists()
    desk.queue.reconcile()
    assert desk.queue.finish(desk.queue.claim()).card["rows"] == 3


def test_things_that_are_no_regular_files_are_rejected_unread(desk, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(text(rows(3)))
    (desk.paths.inbox / "link.jsonl").symlink_to(secret)
    os.link(secret, desk.paths.inbox / "hard.jsonl")
    os.mkfifo(desk.paths.inbox / "pipe.jsonl")
    (desk.paths.inbox / "folder.jsonl").mkdir()
    desk.intake.look(time.monotonic())
    desk.intake.look(time.monotonic() + 100)
    reasons = {path.name: read_json(path)["reason"] for path in desk.paths.queued("rejected").glob("*.report.json")}
    assert {name.split(".")[0]: reason.split(" (")[0].split(";")[0] for name, reason in reasons.items()} == {
        "link": "is a symbolic link", "hard": "has a second name", "pipe": "is a pipe", "folder": "is a folder"}  # fmt: skip
    assert (desk.paths.queued("rejected") / "link.jsonl").is_symlink() and secret.exists()
    assert desk.queue.waiting() == [] and not desk.intake.busy


# Readers that die


def kill_reader(lane):
    with contextlib.suppress(ProcessLookupError):  # killed before, and its successor has not begun
        os.kill(lane._child.pid, signal.SIGKILL)


def test_a_reader_that_is_killed_once_reads_again(realm, config, ledger):
    lanes = ValidationProcess(lambda: None), ValidationProcess(lambda: None)
    try:
        desk = Desk(realm, config, ledger, lanes)
        desk.put(text(rows(20)))
        desk.intake.look(time.monotonic())
        desk.intake.advance(time.monotonic())
        kill_reader(lanes[0])
        desk.work()
        assert desk.queue.find(1).state == "normal"
    finally:
        [lane.close() for lane in lanes]


def test_a_file_that_kills_its_reader_twice_is_rejected_and_the_next_one_is_read(realm, config, ledger):
    lanes = ValidationProcess(lambda: None), ValidationProcess(lambda: None)
    try:
        desk = Desk(realm, config, ledger, lanes)
        desk.put(text(rows(50_000)), name="poison.jsonl")  # it takes so long that the killer always comes in time
        desk.put(text(rows(21)), name="good.jsonl")
        desk.intake.look(time.monotonic())
        for _ in range(6000):
            desk.intake.advance(time.monotonic())
            if lanes[0].busy and "poison" in lanes[0].task["path"]:
                kill_reader(lanes[0])
            if desk.queue.counts()["rejected"]:
                break
            time.sleep(0.01)
        desk.work()
        assert [quest.stem for quest in desk.queue.waiting()] == ["good"]
        report = desk.queue.find(1).report
        assert "reading it ended the reader (signal 9)" in report["reason"] and desk.queue.counts()["rejected"] == 1
    finally:
        [lane.close() for lane in lanes]


def test_a_reader_that_stands_still_is_ended_and_the_file_rejected(realm, config, ledger):
    lanes = ValidationProcess(lambda: None), ValidationProcess(lambda: None)
    try:
        desk = Desk(realm, config, ledger, lanes)
        desk.put(text(rows(20)))
        now = time.monotonic()
        desk.intake.look(now)
        desk.intake.advance(now)
        os.kill(lanes[0]._child.pid, signal.SIGSTOP)
        desk.intake.advance(now + SILENT_SECONDS - 1)
        assert lanes[0].busy
        desk.intake.advance(now + SILENT_SECONDS + 1)
        assert "stood still" in desk.queue.find(1).report["reason"]
        assert desk.judge(text(rows(21))).state == "normal"
    finally:
        [lane.close() for lane in lanes]


# Crashes of the daemon


def another(desk, lanes) -> Desk:
    """The same realm after the daemon died and came back."""
    fresh = Desk(desk.paths, desk.intake.config, Ledger(desk.paths.ledger), lanes)
    fresh.intake.recover()
    return fresh


def test_what_was_claimed_before_a_crash_is_judged_after_it(desk, lanes):
    desk.put(text(rows(3)), sidecar='{"epochs": 4}')
    desk.intake.look(time.monotonic())
    assert [path.name for path in sorted(desk.paths.claims.iterdir())] == [
        "quest-q000001.jsonl",
        "quest-q000001.quest.json",
    ]
    (desk.paths.claims / "quest-q000001.bad.jsonl").write_text("half")
    (desk.paths.claims / ".quest-q000009.jsonl.tmp").write_text("half")
    fresh = another(desk, lanes)
    fresh.work()
    quest = fresh.queue.find(1)
    assert (quest.state, quest.settings.epochs, list(desk.paths.claims.iterdir())) == ("normal", 4, [])
    assert not quest.companion(".bad.jsonl").exists()


def test_a_crash_before_the_file_moved_leaves_it_in_the_inbox_with_its_sidecar(desk, lanes):
    desk.ledger.add("quests", stem="quest", origin="user", state="arriving", priority="high", created=1.0, updated=1.0)
    (desk.paths.claims / "quest-q000001.quest.json").write_text('{"epochs": 4}')
    path = desk.put(text(rows(3)), folder="high")
    fresh = another(desk, lanes)
    assert (
        list(desk.paths.claims.iterdir()) == [] and desk.ledger.one("SELECT state FROM quests")["state"] == "vanished"
    )
    fresh.intake.inbox.renamed_in(path)
    fresh.work()
    quest = fresh.queue.find(2)
    assert (quest.state, quest.settings.epochs) == ("high", 4)


def test_a_link_that_was_claimed_before_a_crash_is_not_read_after_it(desk, lanes, tmp_path):
    (tmp_path / "secret").write_text(text(rows(3)))
    quest = desk.ledger.add(
        "quests", stem="link", origin="user", state="arriving", priority="normal", created=1.0, updated=1.0
    )
    (desk.paths.claims / f"{quest_name('link', quest)}.jsonl").symlink_to(tmp_path / "secret")
    fresh = another(desk, lanes)
    fresh.work()
    assert fresh.queue.find(quest).state == "rejected" and fresh.queue.waiting() == []


def test_a_file_that_its_owner_takes_back_in_the_last_moment_leaves_its_sidecar(desk):
    path = desk.put(text(rows(3)), sidecar='{"epochs": 4}')
    [arrival] = desk.intake.inbox.complete(time.monotonic())
    path.unlink()
    assert desk.intake.claims.take([arrival]) == ([], [])
    assert arrival.sidecar.read_text() == '{"epochs": 4}' and list(desk.paths.claims.iterdir()) == []


def test_a_sidecar_that_is_no_regular_file_keeps_its_quest_in_the_inbox_and_says_so(desk, tmp_path):
    (tmp_path / "secret").write_text('{"epochs": 9}')
    spoil = {
        "link": lambda path: path.symlink_to(tmp_path / "secret"),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
        "second name": lambda path: os.link(tmp_path / "secret", path),
    }
    for name, make in spoil.items():
        make(desk.paths.inbox / f"{name}.quest.json")
        desk.put(text(rows(3)), name=f"{name}.jsonl")
    desk.intake.look(-2000.0)
    desk.intake.look(-1000.0)
    assert sorted(path.name for path in desk.paths.inbox.glob("*.jsonl")) == sorted(f"{name}.jsonl" for name in spoil)
    assert not any(desk.paths.claims.iterdir())
    told = [event["text"] for event in desk.ledger.events() if event["code"] == "quest_stuck"]
    assert len(told) == len(spoil) and any("link.quest.json is a symbolic link" in each for each in told)
    (desk.paths.inbox / "link.quest.json").unlink()
    desk.work()
    assert [quest.stem for quest in desk.queue.waiting()] == ["link"]


def test_a_folder_of_the_inbox_that_leads_elsewhere_is_not_looked_into(desk, tmp_path):
    (tmp_path / "home").mkdir()
    private = tmp_path / "home" / "private.jsonl"
    private.write_text(text(rows(3)))
    os.utime(private, (1.0, 1.0))
    (desk.paths.inbox / "high").rmdir()
    (desk.paths.inbox / "high").symlink_to(tmp_path / "home")
    (desk.paths.inbox / "low").rmdir()
    (desk.paths.inbox / "low").write_text("no folder")
    desk.put(text(rows(3)))
    for now in (-3000.0, -2000.0, -1000.0):
        desk.intake.look(now)
    assert private.exists() and len(list(desk.paths.claims.glob("*.jsonl"))) == 1
    told = [event["text"] for event in desk.ledger.events() if event["code"] == "inbox_wrong"]
    assert (
        len(told) == 2 and "inbox/high is a symbolic link" in told[0] and "inbox/low cannot be looked into" in told[1]
    )
    with pytest.raises(UserError, match="symbolic link"), drop(desk.paths, "mine", "high"):
        pass


def test_many_files_are_claimed_by_one_transaction_and_all_of_them_are_safe_before_they_are_judged(desk, monkeypatch):
    for number in range(300):
        desk.put(text(rows(1)), name=f"many {number}.jsonl")
    synced = []
    monkeypatch.setattr("core.claims.sync_folder", synced.append)
    desk.intake.look(-2000.0)
    desk.intake.look(-1000.0)
    assert len(list(desk.paths.claims.glob("*.jsonl"))) == 300 and not list(desk.paths.inbox.glob("*.jsonl"))
    assert synced == [desk.paths.claims, desk.paths.inbox]


# The daemon around it


@pytest.fixture
def daemon(realm):
    """A running daemon whose hero is not idle; its beats are counted."""
    beats, ledger = [], Ledger(realm.ledger)
    config = Config(idle_generation=IdleGeneration(enabled=False))
    daemon = TrainingDaemon(realm, config, ledger, time.monotonic, lambda: beats.append(1))
    should_exit = threading.Event()
    thread = threading.Thread(target=daemon.run, args=(should_exit,))
    thread.start()
    yield daemon
    should_exit.set()
    thread.join(10)
    assert not thread.is_alive() and beats


def taken_after(realm, name, since, patience=10.0) -> float:
    while (realm.inbox / name).exists():
        assert time.monotonic() - since < patience
        time.sleep(0.01)
    return time.monotonic() - since


def test_the_daemon_takes_a_rename_within_a_second_and_a_copy_within_three(realm, daemon):
    time.sleep(0.3)
    with drop(realm, "dropped") as file:
        file.write(text(rows(3)).encode())
    assert taken_after(realm, "dropped.jsonl", time.monotonic()) < 1.0
    (realm.inbox / "copied.jsonl").write_text(text(rows(4)))
    assert 1.5 < taken_after(realm, "copied.jsonl", time.monotonic()) < 3.0


def test_a_quest_that_is_claimed_while_it_would_be_prepared_does_no_harm(realm, ledger, daemon):
    queue = TrainingQueue(realm, ledger)
    for number in range(6):
        with drop(realm, f"quest{number}") as file:
            file.write(text(rows(3, first=10 * number)).encode())
    claimed, end = 0, time.monotonic() + 30
    while claimed < 6:
        claimed += queue.claim() is not None
        assert time.monotonic() < end
    with drop(realm, "one more") as file:
        file.write(text(rows(3, first=500)).encode())
    taken_after(realm, "one more.jsonl", time.monotonic())


def test_the_idle_hero_writes_one_starter_quest_and_not_two(realm, ledger, lanes):
    now = [0.0]
    daemon = TrainingDaemon(
        realm, Config(idle_generation=IdleGeneration(pause_seconds=0)), ledger, lambda: now[0], lambda: None
    )
    try:
        for _ in range(200):
            now[0] += 0.0001  # turns so close together that none of them may look into the inbox
            daemon.loop(now[0])
        assert ledger.one("SELECT COUNT(*) AS n FROM quests")["n"] + len(list(realm.inbox.glob("low/*.jsonl"))) == 1
    finally:
        daemon._small.close()
        daemon._large.close()


def test_while_it_is_unclear_who_the_hero_is_good_files_wait(realm, ledger, config, tmp_path):
    for name in ("one", "two"):
        (realm.models / name).mkdir()
        (realm.models / name / "config.json").write_text('{"model_type": "qwen3"}')
    daemon = TrainingDaemon(realm, config, ledger, time.monotonic, lambda: None)
    try:
        with drop(realm, "good.jsonl") as file:
            file.write(b'{"question": "a?", "answer": "b"}\n')
        daemon.intake.inbox.renamed_in(realm.inbox / "good.jsonl")
        for _ in range(20):
            daemon.loop(time.monotonic())
        assert len(list(realm.claims.glob("good-q*.jsonl"))) == 1
        assert [event["code"] for event in ledger.events()] == ["hero_unclear"]
        for path in realm.models.glob("*/config.json"):
            path.unlink()
        end = time.monotonic() + 30
        while not list(realm.queued("normal").glob("good*.jsonl")) and time.monotonic() < end:
            daemon.loop(time.monotonic())
            time.sleep(0.05)
        assert list(realm.queued("normal").glob("good*.jsonl"))
    finally:
        daemon._small.close()
        daemon._large.close()
