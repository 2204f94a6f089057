"""The detector of crashes: a table of last words and exits, then processes that really die each way."""

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from core.dossier import Action, Crash, Kind
from core.paths import CHECKOUT
from safety.child import Child
from safety.crash_detector import ADVICE, Evidence, diagnose
from safety.evidence import KernelLog, MemoryGroup

CUDA = """Traceback (most recent call last):
  File "core/train.py", line 282, in _passes
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.32 GiB. GPU 0 has a total capacity of 23.64 GiB"""
DRIVER = "RuntimeError: The NVIDIA driver on your system is too old; CUDA driver version is insufficient for CUDA runtime version"
HEADER = (
    "safetensors_rust.SafetensorError: Error while deserializing header: incomplete metadata, file not fully covered"
)
HEAP = "terminate called after throwing an instance of 'std::bad_alloc'\n  what():  std::bad_alloc"
LIBRARY = "OSError: libcudart.so.12: cannot open shared object file: No such file or directory"
FULL = "sqlite3.OperationalError: database or disk is full"
SEGFAULT = (
    'Fatal Python error: Segmentation fault\n\nCurrent thread 0x0000 (most recent call first):\n  File "x.py", line 3'
)

# exit, last words, what else is known, class, what follows in battle, what follows elsewhere
CASES = [
    (-9, "", {"oom_killed": True}, Kind.OOM_KILL, Action.HALVE, Action.RESTART),
    (137, "", {"oom_killed": True}, Kind.OOM_KILL, Action.HALVE, Action.RESTART),
    (-9, "", {}, Kind.KILLED, Action.RESTART, Action.RESTART),
    (-9, "", {"hung": True, "oom_killed": True}, Kind.HANG, Action.RESTART, Action.RESTART),
    (0, "", {"hung": True}, Kind.HANG, Action.RESTART, Action.RESTART),
    (-15, CUDA, {}, Kind.KILLED, Action.RESTART, Action.RESTART),
    (0, "a warning about MemoryError", {}, Kind.STOPPED, Action.RESTART, Action.RESTART),
    (1, CUDA, {}, Kind.CUDA_OOM, Action.HALVE, Action.RESTART),
    (-6, HEAP, {}, Kind.CUDA_OOM, Action.HALVE, Action.RESTART),
    (None, "[Errno 12] Cannot allocate memory", {}, Kind.CUDA_OOM, Action.HALVE, Action.RESTART),
    (1, FULL, {}, Kind.DISK, Action.WAIT_FOR_DISK, Action.WAIT_FOR_DISK),
    (1, "FloatingPointError: step 3: loss nan, gradient norm 1.0", {}, Kind.NAN, Action.QUARANTINE, Action.RESTART),
    (1, DRIVER, {}, Kind.IMPORT_ERROR, Action.STOP, Action.STOP),
    (1, LIBRARY, {}, Kind.IMPORT_ERROR, Action.STOP, Action.STOP),
    (1, HEADER, {}, Kind.DATA, Action.QUARANTINE, Action.RESTART),
    (-11, SEGFAULT, {"oom_killed": True}, Kind.BUG, Action.RESTART, Action.RESTART),
    (1, "MemoryError\n" + "later\n" * 30 + "ValueError: x", {}, Kind.BUG, Action.RESTART, Action.RESTART),
]


@pytest.mark.parametrize(("code", "said", "more", "kind", "in_battle", "elsewhere"), CASES)
def test_what_is_known_of_a_death_tells_its_class_and_what_follows(code, said, more, kind, in_battle, elsewhere):
    for phase, action in (("step", in_battle), ("setup", elsewhere), ("", elsewhere)):
        crash = diagnose(Evidence(code, said, phase=phase, step=12, **more))
        assert (crash.kind, crash.action, crash.advice) == (kind, action, ADVICE[kind])
        assert Crash.told(crash.text()) == crash
        outside = kind in (Kind.KILLED, Kind.STOPPED, Kind.DISK, Kind.IMPORT_ERROR)
        assert crash.blames_quest == (phase == "step" and not outside)


def test_every_class_has_its_advice():
    assert set(ADVICE) == set(Kind) and all(text.count(". ") <= 1 for text in ADVICE.values())


DEATHS = {  # a program that dies, and what is found
    "import no_such_library": (Kind.IMPORT_ERROR, "exit 1"),
    "raise FloatingPointError('step 3: loss nan, gradient norm 1.0')": (Kind.NAN, "exit 1"),
    "import json; json.loads('{')": (Kind.DATA, "exit 1"),
    "open('/dev/full', 'w').write('x' * 9999)": (Kind.DISK, "exit 1"),
    "import resource as r; r.setrlimit(r.RLIMIT_AS, (1 << 30,) * 2); bytearray(1 << 33)": (Kind.CUDA_OOM, "exit 1"),
    "import ctypes, faulthandler; faulthandler.enable(); ctypes.string_at(0)": (Kind.BUG, "SIGSEGV"),
    "import os; os.abort()": (Kind.BUG, "SIGABRT"),
    "import os; os.kill(os.getpid(), 9)": (Kind.KILLED, "SIGKILL"),
    "import os; os.kill(os.getpid(), 15)": (Kind.KILLED, "SIGTERM"),
    "raise SystemExit(3)": (Kind.BUG, "exit 3"),
    "pass": (Kind.STOPPED, "exit 0"),
}


def end_of(child: Child) -> int:
    deadline = time.monotonic() + 20
    while (code := child.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return code


def found(child: Child) -> Crash:
    return diagnose(Evidence(end_of(child), child.said(), child.oom_killed(), phase="step"))


def test_processes_that_die_each_way_are_told_apart_by_what_they_leave(tmp_path):
    output, kernel = tmp_path / "trainer.out", KernelLog()
    output.write_text("torch.OutOfMemoryError: CUDA out of memory, in a former life\n")
    for program, (kind, exit) in DEATHS.items():
        crash = found(Child([sys.executable, "-c", program], output, {}, CHECKOUT, kernel))
        assert (crash.kind, crash.exit) == (kind, exit), program
        assert not any("former" in line for line in crash.lines)


@pytest.fixture
def small_group():
    """A control group of 60 MB of memory, where this user may make one."""
    for base, limit in (
        (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
        (Path("/sys/fs/cgroup"), "memory.max"),
    ):
        group = base / f"realm-test-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text("60000000")
            yield group
            return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("control groups of memory cannot be made here")


def test_the_kernels_killer_of_a_full_control_group_is_told_from_a_kill_by_hand(tmp_path, small_group):
    hoard = "import os, sys, time; time.sleep(0.3); hoard = [bytearray(os.urandom(1 << 20)) for _ in range(200)]"
    sleep = "import time; time.sleep(100)"
    for program, kind in ((hoard, Kind.OOM_KILL), (sleep, Kind.KILLED)):
        child = Child([sys.executable, "-c", program], tmp_path / "out", {}, CHECKOUT)
        (small_group / "cgroup.procs").write_text(str(child.pid))
        child._next_look = 0.0
        child.poll()
        if program == sleep:
            child.send(signal.SIGKILL)
        assert found(child).kind == kind


def test_kills_are_counted_in_both_versions_of_control_groups_and_a_process_that_ends_keeps_its_group(tmp_path):
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "7").mkdir(parents=True)
    for listing, file in (
        ("4:memory:/user\n0::/", mount / "memory" / "user" / "memory.oom_control"),
        ("0::/realm.service", mount / "realm.service" / "memory.events"),
    ):
        (proc / "7" / "cgroup").write_text(listing)
        file.parent.mkdir(parents=True)
        (mount / "memory").mkdir(exist_ok=True)
        (mount / "memory" / "memory.oom_control").write_text("oom_kill 0\n")
        file.write_text("low 0\noom_kill 4\n")
        group = MemoryGroup(7, proc, mount)
        group.look()
        assert not group.killed()
        file.write_text("low 0\noom_kill 5\n")
        (proc / "7" / "cgroup").write_text("4:memory:/\n0::/")
        group.look()
        assert group.killed()
    assert not MemoryGroup(8, proc, mount).killed()
