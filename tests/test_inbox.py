"""Every way in which files get into a folder: what is complete is taken soon, what is being written never."""

import contextlib
import fcntl
import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from core.errors import UserError
from core.inbox import (
    LONGEST_STEM,
    QUIET_SECONDS,
    SIDECAR,
    Inbox,
    drop,
    has_no_writer,
    is_quest_name,
    queue_stem,
    safe_stem,
)
from core.paths import CHECKOUT, RealmPaths

ROW = b'{"text": "x"}\n'
SOON, LATER, MUCH_LATER = 0.5, QUIET_SECONDS + 0.1, 1000.0


class Watch:
    """An inbox and its clock, which the test moves."""

    def __init__(self, realm: RealmPaths):
        self.inbox, self.now = Inbox(realm), 100.0

    def after(self, seconds: float) -> list:
        self.now += seconds
        return self.inbox.complete(self.now)

    def names_after(self, seconds: float) -> list[str]:
        return [arrival.path.name for arrival in self.after(seconds)]


@pytest.fixture
def watch(realm) -> Watch:
    return Watch(realm)


@pytest.fixture
def target(realm) -> Path:
    return realm.inbox / "x.jsonl"


# Copies


def test_a_file_that_is_written_and_closed_is_taken_when_it_was_quiet(watch, target):
    target.write_bytes(ROW)
    assert watch.names_after(0) == []
    assert watch.names_after(QUIET_SECONDS - 0.2) == []
    assert watch.names_after(0.3) == ["x.jsonl"]


def test_a_slow_copy_is_not_taken_before_its_end_however_long_it_pauses(watch, target):
    with subprocess.Popen(["cp", "/dev/stdin", target], stdin=subprocess.PIPE) as copy:
        copy.stdin.write(ROW)
        copy.stdin.flush()
        while not (target.exists() and target.stat().st_size):
            time.sleep(0.01)
        assert watch.names_after(0) == watch.names_after(MUCH_LATER) == watch.names_after(MUCH_LATER) == []
        assert watch.inbox.pending == 1
        copy.stdin.write(ROW)
    assert watch.names_after(SOON) == []
    assert watch.names_after(LATER) == ["x.jsonl"]
    assert watch.inbox.pending == 0


def test_a_copy_whose_writer_was_killed_is_taken_as_it_is(watch, target):
    with subprocess.Popen(["cp", "/dev/stdin", target], stdin=subprocess.PIPE) as copy:
        copy.stdin.write(ROW + b'{"te')
        copy.stdin.flush()
        while not (target.exists() and target.stat().st_size):
            time.sleep(0.01)
        copy.kill()
    watch.after(0)
    assert watch.names_after(LATER) == ["x.jsonl"]


def test_a_writer_that_comes_back_after_closing_starts_the_wait_anew(watch, target):
    for _ in range(4):
        with open(target, "ab") as file:
            file.write(ROW)
        assert watch.names_after(QUIET_SECONDS - 0.3) == []
    assert watch.names_after(LATER) == ["x.jsonl"]


def test_a_file_that_is_written_anew_in_the_same_size_starts_the_wait_anew(watch, target):
    target.write_bytes(ROW)
    watch.after(0)
    target.write_bytes(ROW.replace(b"x", b"y"))
    assert watch.names_after(LATER) == []
    assert watch.names_after(LATER) == ["x.jsonl"]


def test_a_file_mapped_for_writing_is_not_taken_though_its_descriptor_is_closed(watch, target):
    target.write_bytes(ROW)
    with open(target, "r+b") as file:
        mapped = mmap.mmap(file.fileno(), 0)
    watch.after(0)
    assert watch.names_after(MUCH_LATER) == []
    mapped.close()
    assert watch.names_after(LATER) == ["x.jsonl"]


def test_a_reader_does_not_hold_a_file_up(watch, target):
    target.write_bytes(ROW)
    with open(target, "rb"):
        watch.after(0)
        assert watch.names_after(LATER) == ["x.jsonl"]


def test_a_file_that_lay_there_before_the_start_is_taken_at_the_first_look(realm, target):
    target.write_bytes(ROW)
    time.sleep(QUIET_SECONDS + 0.05)
    assert Watch(realm).names_after(0) == ["x.jsonl"]


def test_a_file_that_goes_away_again_is_forgotten(watch, target):
    target.write_bytes(ROW)
    watch.after(0)
    target.unlink()
    assert watch.names_after(LATER) == [] and watch.inbox.pending == 0


# Renames


def test_a_file_renamed_in_is_taken_at_once(watch, target, tmp_path):
    (tmp_path / "elsewhere").write_bytes(ROW)
    os.rename(tmp_path / "elsewhere", target)
    watch.inbox.renamed_in(target)
    assert watch.names_after(0) == ["x.jsonl"]


def test_a_rename_that_nobody_told_of_is_taken_when_it_was_quiet(watch, target, tmp_path):
    (tmp_path / "elsewhere").write_bytes(ROW)
    os.utime(tmp_path / "elsewhere", (1, 1))  # old by its content, new by its name
    os.rename(tmp_path / "elsewhere", target)
    assert watch.names_after(0) == []
    assert watch.names_after(LATER) == ["x.jsonl"]


def test_a_file_renamed_in_while_its_writer_goes_on_is_taken_when_the_writer_closes(watch, target, tmp_path):
    with open(tmp_path / "elsewhere", "wb") as file:
        os.rename(tmp_path / "elsewhere", target)
        watch.inbox.renamed_in(target)
        assert watch.names_after(0) == watch.names_after(MUCH_LATER) == []
        file.write(ROW)
    assert watch.names_after(0) == ["x.jsonl"]


def test_a_rename_during_a_look_is_not_forgotten(realm, target, tmp_path):
    class Busy(RealmPaths):
        """A realm in whose inbox a file appears after that folder was read."""

        def inbox_for(self, priority):
            if priority == "low" and not target.exists():
                (tmp_path / "elsewhere").write_bytes(ROW)
                os.rename(tmp_path / "elsewhere", target)
                watch.inbox.renamed_in(target)
            return super().inbox_for(priority)

    watch = Watch(Busy(realm.root))
    assert watch.names_after(0) == []
    assert watch.names_after(0) == ["x.jsonl"]


def test_the_hint_of_one_file_does_not_serve_a_later_one_of_the_same_name(watch, target):
    target.write_bytes(ROW)
    watch.inbox.renamed_in(target)
    assert watch.names_after(0) == ["x.jsonl"]
    target.unlink()
    watch.after(0)
    target.write_bytes(ROW)
    assert watch.names_after(0) == []


@pytest.mark.parametrize("name", [".x.jsonl.AbC123", ".~tmp~/x.jsonl", "x.jsonl.part", "x.jsonl.filepart", "x.jsonl.crdownload",
                                  "x.jsonl.tmp", "x.jsonl~", ".x.jsonl.swp", ".x.jsonl", ".goutputstream-X1", ".fuse_hidden1.jsonl",
                                  "x.json", "x.jsonl.gz", "x.jsonl.quest.json", ".jsonl"])  # fmt: skip
def test_names_of_unfinished_copies_are_not_taken_until_they_are_renamed(watch, realm, target, name):
    unfinished = realm.inbox / name
    unfinished.parent.mkdir(exist_ok=True)
    unfinished.write_bytes(ROW)
    watch.after(0)
    assert watch.names_after(MUCH_LATER) == [] and watch.inbox.pending == 0
    os.rename(unfinished, target)
    watch.inbox.renamed_in(target)
    assert watch.names_after(0) == ["x.jsonl"]


def test_an_editor_that_moves_the_old_file_away_and_writes_a_new_one_loses_nothing(watch, realm, target):
    target.write_bytes(ROW)
    watch.after(SOON)
    (realm.inbox / ".x.jsonl.swp").write_bytes(b"swap")
    os.rename(target, realm.inbox / "x.jsonl~")
    with open(target, "wb") as file:
        watch.after(LATER)
        assert watch.names_after(LATER) == []
        file.write(ROW * 2)
    (realm.inbox / "x.jsonl~").unlink()
    watch.after(0)
    assert watch.names_after(LATER) == ["x.jsonl"]


def test_an_editor_that_renames_its_copy_over_the_file_gives_the_new_one(watch, realm, target):
    target.write_bytes(ROW)
    watch.after(SOON)
    (realm.inbox / "x.jsonl.new").write_bytes(ROW * 2)
    os.replace(realm.inbox / "x.jsonl.new", target)
    assert watch.names_after(QUIET_SECONDS - SOON) == []
    assert watch.names_after(LATER) == ["x.jsonl"]


# What is no regular file of its own


def test_a_symbolic_link_is_refused_and_not_followed(watch, realm, target, tmp_path):
    (tmp_path / "secret").write_bytes(ROW)
    target.symlink_to(tmp_path / "secret")
    (realm.inbox / "dangling.jsonl").symlink_to("nowhere")
    watch.after(0)
    assert sorted((arrival.path.name, "link" in arrival.refusal) for arrival in watch.after(LATER)) == [
        ("dangling.jsonl", True), ("x.jsonl", True)]  # fmt: skip


def test_a_pipe_is_refused_and_nobody_waits_for_its_other_end(watch, target):
    os.mkfifo(target)
    begun = time.monotonic()
    watch.after(0)
    [arrival] = watch.after(LATER)
    assert "pipe" in arrival.refusal and time.monotonic() - begun < 1


def test_a_folder_a_socket_and_a_device_are_refused(watch, realm, target):
    target.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(realm.inbox):
        listener.bind("s.jsonl")  # a socket's path may have only 107 bytes
    watch.after(0)
    assert sorted(arrival.refusal.split(";")[0] for arrival in watch.after(LATER)) == ["is a folder", "is a socket"]


def test_a_second_name_is_refused_when_it_stays_and_harmless_when_it_goes(watch, realm, target, tmp_path):
    (tmp_path / "other").write_bytes(ROW)
    os.link(tmp_path / "other", target)
    watch.after(0)
    assert "hard link" in watch.after(LATER)[0].refusal
    os.link(tmp_path / "other", realm.inbox / "y.jsonl")  # delivered as into a Maildir: link, then unlink
    target.unlink()
    assert watch.after(0) == watch.after(SOON) == []
    (tmp_path / "other").unlink()
    watch.after(0)
    assert [(arrival.path.name, arrival.refusal) for arrival in watch.after(LATER)] == [("y.jsonl", None)]


# Order and names


def test_arrivals_come_by_priority_and_then_by_age(watch, realm):
    for age, name in enumerate(("low/a", "b", "c", "high/d", "low/e", "high/f")):
        path = realm.inbox / f"{name}.jsonl"
        path.write_bytes(ROW)
        os.utime(path, (1000 - age, 1000 - age))
    watch.after(0)
    arrivals = watch.after(LATER)
    assert "".join(arrival.stem for arrival in arrivals) == "fdcbea"
    assert [arrival.priority for arrival in arrivals] == ["high", "high", "normal", "normal", "low", "low"]


def test_an_arrival_knows_its_sidecar_and_a_sidecar_is_no_arrival(watch, realm):
    (realm.inbox / "a.b.JSONL").write_bytes(ROW)
    (realm.inbox / "a.b.quest.json").write_text("{}")
    watch.after(0)
    [arrival] = watch.after(LATER)
    assert (arrival.stem, arrival.sidecar) == ("a.b", realm.inbox / f"a.b{SIDECAR}")


def test_an_inbox_folder_that_is_gone_holds_nothing(watch, realm):
    shutil.rmtree(realm.inbox)
    assert watch.after(0) == []


@pytest.mark.parametrize("name", ["x.jsonl", "X.JSONL", "x.bad.jsonl", "ünï.jsonl", "a b\n.jsonl"])
def test_any_jsonl_is_a_quest(name):
    assert is_quest_name(name)


# Who writes


def test_a_writer_is_seen_and_a_closed_one_is_not(target):
    with open(target, "wb"):
        assert has_no_writer(target) is False
    assert has_no_writer(target) is True


def test_a_file_that_is_gone_or_became_a_link_counts_as_written_and_raises_nothing(target):
    assert has_no_writer(target) is False
    target.with_name("file").write_bytes(ROW)
    target.symlink_to("file")
    assert has_no_writer(target) is False


def test_asking_leaves_no_lease_behind(target):
    target.write_bytes(ROW)
    has_no_writer(target)
    with open(target, "r+b") as file:
        assert fcntl.fcntl(file, fcntl.F_GETLEASE) == fcntl.F_UNLCK


ASK_AS_NOBODY = """
import os, sys
from pathlib import Path
from core.inbox import Inbox, has_no_writer
from core.paths import RealmPaths
root = Path(sys.argv[1])
os.setgid(65534), os.setuid(65534)
inbox = Inbox(RealmPaths(root))
print(has_no_writer(root / "inbox" / "others.jsonl"), has_no_writer(root / "inbox" / "closed.jsonl"))
print([[arrival.stem for arrival in inbox.complete(now)] for now in (0, 5, 9, 10.5)])
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_files_of_other_users_are_taken_after_a_longer_quiet_readable_or_not():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        for name, mode in (("others", 0o644), ("closed", 0o600)):
            path = root / "inbox" / f"{name}.jsonl"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(ROW)
            path.chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", ASK_AS_NOBODY, folder], cwd=CHECKOUT, capture_output=True, text=True, check=True
        )
    assert done.stdout.splitlines() == ["None None", "[[], [], [], ['others', 'closed']]"]


# The realm's own way in


def in_inbox(realm) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in realm.inbox.iterdir() if path.is_file()}


def test_a_drop_appears_whole_with_its_sidecar(realm):
    with drop(realm, "quest.jsonl", "normal", {"epochs": 2}) as file:
        file.write(ROW)
        assert not any(is_quest_name(path.name) or path.name.endswith(SIDECAR) for path in realm.inbox.iterdir())
    assert in_inbox(realm) == {"quest.jsonl": ROW, "quest.quest.json": b'{\n  "epochs": 2\n}\n'}


def test_a_drop_whose_writer_fails_leaves_nothing(realm):
    with pytest.raises(ZeroDivisionError), drop(realm, "quest", "normal", {"epochs": 2}) as file:
        file.write(ROW)
        raise ZeroDivisionError
    assert in_inbox(realm) == {}


def test_a_drop_to_an_unknown_priority_is_refused_before_anything_is_written(realm):
    with pytest.raises(UserError, match="unknown priority 'urgent'"), drop(realm, "quest", "urgent"):
        raise AssertionError("must not be reached")
    assert in_inbox(realm) == {}


def test_drops_of_one_name_never_replace_one_another(realm):
    start, failures = threading.Barrier(8), []

    def write(number):
        try:
            with drop(realm, "same", "normal", {"seed": number} if number % 2 else None) as file:
                file.write(str(number).encode())
                start.wait()
        except Exception as problem:
            failures.append(problem)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = in_inbox(realm)
    quests = {name: int(data) for name, data in files.items() if name.endswith(".jsonl")}
    assert not failures and sorted(quests.values()) == list(range(8))
    for name, number in quests.items():
        sidecar = files.get(name.removesuffix(".jsonl") + SIDECAR)
        assert (json.loads(sidecar)["seed"] if sidecar else None) == (number if number % 2 else None)


def test_a_drop_takes_neither_the_name_nor_the_sidecar_that_somebody_left(realm):
    (realm.inbox / "quest.quest.json").write_text('{"epochs": 9}')
    with drop(realm, "quest") as file:
        file.write(ROW)
    names = sorted(in_inbox(realm))
    assert len(names) == 2 and "quest.jsonl" not in names and "quest.quest.json" in names


HOSTILE = ["../../etc/passwd", "..", ".", "", "/abs/olute.jsonl", "a/../../b.jsonl", "..\\..\\windows.jsonl", "nul\0byte", "a\nb\r\x1b[31m",
           ".hidden", "x.jsonl.jsonl", "-rf", "~", "$(id)", "`id`", "<img src=x>", "\u202eevil", "\ud800", " . ", "名" * 200, "🦄" * 200,
           "a" * 5000, "con:aux", "x.quest.json", "x.part", "x.jsonl.part", "x.bad"]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_drop_of_any_name_lands_in_the_inbox_under_a_tame_one(realm, watch, name):
    with drop(realm, name) as file:
        file.write(ROW)
    assert sorted(path.name for path in realm.root.iterdir()) == ["inbox", "logs", "models", "queue", "state", "status"]
    [landed] = in_inbox(realm)
    assert is_quest_name(landed) and not set(landed) & set("/\\\0\n\r\x1b<>$`\u202e")
    watch.inbox.renamed_in(realm.inbox / landed)
    assert watch.names_after(0) == [landed]


@pytest.mark.parametrize(
    ("name", "stem"), [("Año_ß 1+2=3@x.jsonl", "Año_ß 1+2=3@x"), ("a.b.json", "a.b"), ("x.jsonl", "x"), ("..", "quest")]
)
def test_good_names_stay_as_they_are(name, stem):
    assert safe_stem(name) == stem


@pytest.mark.parametrize("stem", ["a", "a.b-q000001", "ünï cödé 名", "<b>", "\u202e"])
def test_the_stem_of_a_dropped_file_is_kept(stem):
    assert queue_stem(stem) == stem


@pytest.mark.parametrize("stem", ["a\nb", "\x1b[31m", os.fsdecode(b"\xff\xfe"), "x" * 249, "名" * 83])
def test_stems_that_the_queue_cannot_keep_are_tamed(stem):
    tame = queue_stem(stem)
    assert tame and tame.isprintable() and len(tame.encode()) <= LONGEST_STEM
    tame.encode()  # no lone surrogates: the ledger could not store it
