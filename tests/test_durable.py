"""Files that are replaced in one instant, moves that replace nothing, pointers that never lead nowhere."""

import errno
import multiprocessing
import os
import resource
import signal

import pytest

from core.durable import move, point, read_json, write_bytes, write_json

SIZE = 1 << 18


def write_for_ever(path, ready):
    for turn in range(1_000_000):
        write_bytes(path, bytes([turn % 256]) * SIZE, durable=False)
        ready.set()


def test_a_reader_sees_the_old_bytes_or_the_new_and_never_a_mixture(tmp_path):
    path, context = tmp_path / "file", multiprocessing.get_context("fork")
    ready = context.Event()
    writer = context.Process(target=write_for_ever, args=(path, ready), daemon=True)
    writer.start()
    try:
        assert ready.wait(10)
        seen = set()
        for _ in range(400):
            data = path.read_bytes()
            assert len(data) == SIZE
            assert len(set(data)) == 1
            seen.add(data[0])
        assert len(seen) > 5, "the writer wrote too slowly for this test to say anything"
    finally:
        writer.kill()
        writer.join()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        with pytest.raises(OSError):
            write_bytes(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_leaves_only_its_file(tmp_path):
    write_bytes(tmp_path / "file", b"1")
    write_json(tmp_path / "file", {"a": [1, 2]})
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert read_json(tmp_path / "file") == {"a": [1, 2]}


def test_reading_json_that_is_missing_or_broken_gives_the_default(tmp_path):
    (tmp_path / "broken").write_bytes(b'{"a": ')
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    for name in ("broken", "bytes", "missing", "broken/below"):
        assert read_json(tmp_path / name, 7) == 7


def test_a_move_refuses_to_replace_a_file_a_folder_or_a_link(tmp_path):
    source = tmp_path / "source"
    source.write_text("new")
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "folder", "link"):
        with pytest.raises(FileExistsError) as problem:
            move(source, tmp_path / name)
        assert problem.value.filename == str(source) and problem.value.filename2 == str(tmp_path / name)
    assert (source.read_text(), (tmp_path / "file").read_text()) == ("new", "old")


def test_a_move_of_nothing_says_so(tmp_path):
    with pytest.raises(FileNotFoundError):
        move(tmp_path / "none", tmp_path / "target")


def test_a_move_within_and_between_folders_carries_the_file(tmp_path):
    (tmp_path / "below").mkdir()
    (tmp_path / "a").write_text("x")
    inode = (tmp_path / "a").stat().st_ino
    move(tmp_path / "a", tmp_path / "b")
    move(tmp_path / "b", tmp_path / "below" / "ünï \n cödé")
    assert (tmp_path / "below" / "ünï \n cödé").stat().st_ino == inode
    assert os.listdir(tmp_path) == ["below"]


def test_a_move_to_another_file_system_is_an_error_of_that_name(tmp_path):
    if os.stat("/dev/shm").st_dev == tmp_path.stat().st_dev:
        pytest.skip("/dev/shm is the same file system")
    (tmp_path / "a").write_text("x")
    with pytest.raises(OSError) as problem:
        move(tmp_path / "a", tmp_path.__class__(f"/dev/shm/realm-test-{os.getpid()}"))
    assert problem.value.errno == errno.EXDEV


def point_for_ever(link, targets, ready):
    while True:
        for target in targets:
            point(link, target)
            ready.set()


def test_a_pointer_always_leads_somewhere_while_it_is_moved(tmp_path):
    targets = [tmp_path / "vault" / name for name in ("one", "two")]
    for target in targets:
        target.mkdir(parents=True)
        (target / "name").write_text(target.name)
    link, context = tmp_path / "current", multiprocessing.get_context("fork")
    ready = context.Event()
    mover = context.Process(target=point_for_ever, args=(link, targets, ready), daemon=True)
    mover.start()
    try:
        assert ready.wait(10)
        assert {(link / "name").read_text() for _ in range(2000)} == {"one", "two"}
    finally:
        mover.kill()
        mover.join()


def test_a_pointer_survives_the_move_of_the_whole_realm(tmp_path):
    target = tmp_path / "realm" / "vault" / "one"
    target.mkdir(parents=True)
    point(tmp_path / "realm" / "current", target)
    point(target.parent / "tip", target)
    (tmp_path / "realm").rename(tmp_path / "moved")
    assert (tmp_path / "moved" / "current").resolve() == tmp_path / "moved" / "vault" / "one"
    assert os.readlink(tmp_path / "moved" / "vault" / "tip") == "one"
    assert sorted(os.listdir(tmp_path / "moved")) == ["current", "vault"]
