"""The supervisor: histories with a clock and processes of the test's own, then stand-in services that really die."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from processes import until

from core.dossier import Action, Crash, Kind
from core.durable import read_json
from core.errors import RealmBusy
from core.heartbeat import Beat
from core.ledger import Ledger
from core.paths import CHECKOUT, RealmPaths
from core.realm_lock import held, holder
from safety.child import orphans
from safety.crash_detector import exit_name
from safety.daemon_watchdog import Service, Watchdog
from safety.states import NEXT, State, change

SIGKILLED = -9


@dataclass
class FakeProcess:
    """Dies by itself with `code` at `ends`, or of a signal it does not ignore."""

    world: "World"
    pid: int
    ends: float
    code: int
    deaf: bool = False
    started: float = 1.0
    signals: list[int] = field(default_factory=list)

    def poll(self) -> int | None:
        return self.code if self.world.now >= self.ends else None

    def send(self, number: int) -> None:
        self.signals.append(number)
        if number == signal.SIGKILL or (number == signal.SIGTERM and not self.deaf):
            self.ends, self.code = self.world.now, -number

    def stopped(self) -> bool:
        return self.world.stopped

    def said(self) -> str:
        return self.world.said

    def oom_killed(self) -> bool:
        return self.world.oom


class World:
    """A clock, a service whose lives are given as (seconds, exit code, whether it got on), and what was seen."""

    def __init__(self, lives=(), silence: float = 1e9, trainer: bool = True, deaf: bool = False, others=()):
        self.now, self.progress, self.deaf = 0.0, 0, deaf
        self.said, self.oom, self.stopped = "", False, False
        self.lives = list(lives)
        self.starts: list[float] = []
        self.exits: list[str] = []
        self.told: list[tuple[str, str]] = []
        self.published: list[list[dict]] = []
        self.processes: list[FakeProcess] = []
        self.crashes: list[Crash] = []
        self.beats: dict[str, Beat] = {}
        service = Service("trainer", ("t",), silence, 60.0, (lambda: self.progress) if trainer else None)
        self.watchdog = Watchdog(
            [service, *others],
            self.begin,
            self.beats.get,
            self.published.append,
            self.tell,
            clock=lambda: self.now,
            jitter=lambda: 0.0,
        )

    def begin(self, service: Service, environment: dict[str, str]) -> FakeProcess:
        if service.name != "trainer":
            return FakeProcess(self, 99, 1e9, 0)
        self.starts.append(self.now)
        self.exits.append(environment["REALM_LAST_EXIT"])
        if crash := Crash.told(environment["REALM_LAST_CRASH"]):
            self.crashes.append(crash)
        seconds, code, got_on = self.lives.pop(0) if self.lives else (1e9, 0, False)
        if seconds is None:
            raise OSError("no memory")
        self.progress += got_on
        process = FakeProcess(self, 100 + len(self.starts), self.now + seconds, code, self.deaf)
        self.processes.append(process)
        return process

    def tell(self, code: str, text: str, level: str, **data) -> None:
        self.told.append((code, level))

    def beat(self, phase: str = "", silence: float | None = None) -> None:
        self.beats["trainer"] = Beat((int(self.now), phase), phase, 7, silence)

    def live(self, until: float, beating: bool = False) -> State:
        while self.now < until:
            if beating:
                self.beat()
            self.watchdog.loop(self.now)
            self.now += 1.0
        return self.watchdog.lives[0].state


# name: lives of the trainer, seconds after which it was started, its state in the end
HISTORIES = {
    "a crash after progress is answered at once": ([(5, SIGKILLED, True)], [0, 5], "starting"),
    "crashes without progress wait longer and longer": ([(1, 1, False)] * 4, [0, 1, 3, 6, 11], "starting"),
    "the fifth in ten minutes is the last": ([(1, 1, False)] * 5, [0, 1, 3, 6, 11], "failed"),
    "progress in between starts the count anew": (
        [(1, 1, False)] * 3 + [(1, SIGKILLED, True)] + [(1, 1, False)] * 3,
        [0, 1, 3, 6, 7, 9, 12, 17],
        "starting",
    ),
    "a trainer that gets on is never given up": ([(10, SIGKILLED, True)] * 30, list(range(0, 310, 10)), "starting"),
    "slow crashes are not given up, but wait a minute": (
        [(200, 1, False)] * 9,
        [0, 200, 401, 603, 807, 1015, 1231, 1463, 1723, 1983],
        "starting",
    ),
    "an exit of zero is a crash, too": ([(1, 0, False)] * 5, [0, 1, 3, 6, 11], "failed"),
    "a process that cannot be started counts": ([(None, 0, False)] * 5, [0, 1, 2, 4, 8], "failed"),
}


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_history(history):
    lives, starts, state = history
    world = World(lives)
    assert world.live(2500) == state
    assert world.starts == starts


def test_a_service_without_progress_of_its_own_gets_on_by_living_a_minute():
    world = World([(61, 1, False)] * 12, trainer=False)
    assert world.live(13 * 61) == "starting"
    assert world.starts == list(range(0, 13 * 61, 61))


def test_the_next_life_is_told_how_the_last_one_ended():
    world = World([(3, SIGKILLED, True), (3, 1, True)])
    world.live(20)
    assert world.exits == ["", "-9", "1"]


def test_a_failed_service_is_told_as_an_alert_and_the_others_go_on():
    world = World([(1, 1, False)] * 5, others=[Service("daemon", ("d",), silence=1e9)])
    world.live(100)
    assert world.told.count(("service_failed", "alert")) == 1
    assert world.told.count(("crash", "alert")) == 5
    assert [row["state"] for row in world.published[-1]] == ["failed", "starting"]


def test_a_service_runs_when_it_was_heard_and_the_table_is_published_on_change_only():
    world = World()
    world.beats["trainer"] = Beat((-5, "of a former life"), "step", 3, 1.0)
    assert world.live(10) == "starting"
    assert world.live(20, beating=True) == "running"
    count = len(world.published)
    world.live(50, beating=True)
    assert len(world.published) == count


def test_a_silent_service_is_asked_where_it_stands_then_to_end_then_killed():
    world = World(silence=300.0, deaf=True)
    world.live(100, beating=True)
    world.live(500)
    first = world.processes[0]
    assert first.signals[:2] == [signal.SIGUSR1, signal.SIGTERM]
    assert signal.SIGKILL in first.signals
    assert 399 + 30 <= world.starts[1] <= 399 + 35
    assert ("service_hung", "warning") in world.told


def test_a_heartbeat_that_jumps_with_the_wall_clock_is_no_silence():
    world = World(silence=60.0)
    world.live(50, beating=True)
    world.beats["trainer"] = Beat((-(10**9), ""))
    world.live(100)
    assert world.processes[0].signals == []


def test_each_phase_has_its_own_limit_and_the_next_life_hears_where_it_hung():
    world = World(silence=600.0, deaf=True)
    world.beat("checkpoint", 420.0)
    world.live(3)
    world.now += 1
    world.beat("checkpoint", 420.0)
    world.live(420)
    assert world.processes[0].signals == []
    world.beat("step", 60.0)
    world.live(480)
    assert world.processes[0].signals == []
    world.live(520)
    assert world.starts[1] - 480 < 35
    crash = world.crashes[0]
    assert (crash.kind, crash.phase, crash.step) == (Kind.HANG, "step", 7) and crash.blames_quest


def test_a_realm_that_stood_still_as_a_whole_and_a_service_that_somebody_stopped_are_no_hang():
    world = World(silence=60.0)
    world.live(50, beating=True)
    world.now += 86400.0  # a laptop's lid
    world.watchdog.loop(world.now)
    world.live(world.now + 55)
    assert world.processes[0].signals == []
    world.stopped = True
    world.live(world.now + 30)
    assert world.processes[0].signals == [signal.SIGUSR1, signal.SIGTERM, signal.SIGCONT]
    assert [(crash.kind, crash.blames_quest) for crash in world.crashes] == [(Kind.KILLED, False)]


def test_deaths_from_outside_never_end_a_service():
    world = World([(1, SIGKILLED, False)] * 40)
    assert world.live(3000) == "starting" and len(world.starts) == 41
    assert ("crash", "warning") in world.told and not any(level == "alert" for _, level in world.told)


@pytest.mark.parametrize(("deaths", "state"), [(9, "starting"), (10, "failed")])
def test_deaths_in_battle_count_half_so_that_three_poison_quests_in_a_row_do_not_end_the_trainer(deaths, state):
    world = World([(3, -11, False)] * deaths)
    while world.now < 590:
        if len(world.starts) <= deaths:  # the last life is not heard of
            world.beat("step", 60.0)
        world.live(world.now + 1)
    assert world.watchdog.lives[0].state == state


def test_what_a_restart_cannot_mend_is_tried_once_more_and_a_full_disk_is_waited_for():
    world = World([(1, 1, False)] * 20)
    world.said = "ModuleNotFoundError: No module named 'torch'"
    assert world.live(100) == "failed" and world.starts == [0, 1]
    assert world.crashes[0].action is Action.STOP
    world = World([(1, 1, False)] * 20)
    world.said = "OSError: [Errno 28] No space left on device"
    assert world.live(2000) == "starting" and ("crash", "alert") in world.told


def test_stopping_asks_all_and_kills_only_who_stays_longer_than_granted():
    world = World(deaf=True, others=[Service("daemon", ("d",), silence=1e9)])
    world.live(5)

    def sleep(seconds: float) -> None:
        world.now += 1.0

    world.watchdog.stop(sleep)
    assert world.processes[0].signals[0] == signal.SIGTERM
    assert world.now >= 5 + 60
    assert [row["state"] for row in world.published[-1]] == ["stopped", "stopped"]
    assert [row["pid"] for row in world.published[-1]] == [None, None]


def test_a_service_on_demand_lives_while_it_is_wanted_and_may_end_by_itself():
    wishes: list[bool] = []
    world = World(others=[Service("oracle", ("o",), silence=1e9, wanted=lambda: bool(wishes))])
    oracle = world.watchdog.lives[1]
    world.live(5)
    assert oracle.state is State.OFF and oracle.process is None
    wishes.append(True)
    world.live(7)
    assert oracle.process and oracle.state is State.STARTING
    oracle.process.ends, oracle.process.code = world.now, SIGKILLED  # it dies, and is still wanted
    world.live(10)
    assert oracle.process and oracle.restarts == 1
    wishes.clear()
    oracle.process.ends, oracle.process.code = world.now, 0  # nobody has asked for long
    world.live(12)
    assert oracle.state is State.OFF and oracle.process is None and len(oracle.crashes) == 1
    wishes.append(True)
    world.live(14)
    assert oracle.process
    world.watchdog.stop(lambda seconds: None)
    assert oracle.state is State.STOPPED


def test_states_change_only_as_the_table_says():
    assert set(NEXT) == set(State)
    with pytest.raises(AssertionError, match="cannot go from failed to running"):
        change(State.FAILED, State.RUNNING)


def test_exits_have_names():
    assert [exit_name(code) for code in (0, 1, -9, -15, -99)] == ["exit 0", "exit 1", "SIGKILL", "SIGTERM", "signal 99"]


# With real processes

STAND_IN = """
import os, subprocess, sys, time
from pathlib import Path
from core import heartbeat
from core.paths import RealmPaths
from safety.lifeline import Lifeline
root, name = Path(sys.argv[1]), sys.argv[2]
lifeline = Lifeline(RealmPaths(root), name, int(sys.argv[3]))
with open(root / f"{name}.lives", "a") as file:
    file.write(f"[{os.environ['REALM_LAST_EXIT']}]")
if name == "doomed":
    sys.exit(3)
if name == "family":
    subprocess.Popen(["sleep", "1000"])
if name == "learner":
    heartbeat.SILENCE["step"] = 1.5
    for step in range(1000):
        lifeline.enter("step", step)
        if os.environ["REALM_LAST_EXIT"]:
            break
        time.sleep(1000 if step == 3 else 0.05)  # it hangs in a step, deaf to everything
while not lifeline.should_exit.wait(0.05):
    lifeline.beat()
"""

SUPERVISOR = """
import os, sys
from pathlib import Path
import safety.daemon_watchdog as watchdog
from core.logs import start_logging
from core.paths import RealmPaths
from training.watchdog_process import supervise
watchdog.BACKOFF_SECONDS, watchdog.HANG_SECONDS = (0.05, 1.0), 0.5
paths, script = RealmPaths(Path(sys.argv[1])), sys.argv[2]
start_logging(paths, "watchdog")
begin = (sys.executable, "-c", script, sys.argv[1])
kept = [watchdog.Service(name, (*begin, name, str(os.getpid())), silence=2.0) for name in sys.argv[3:]]
supervise(paths, 1, kept=kept)
"""


@pytest.fixture
def realm(tmp_path):
    paths = RealmPaths(tmp_path)
    paths.make()
    began: list[subprocess.Popen] = []

    def begin(*names: str) -> subprocess.Popen:
        command = [sys.executable, "-c", SUPERVISOR, str(tmp_path), STAND_IN, *names]
        with open(paths.logs / "supervisors.err", "ab") as errors:
            began.append(subprocess.Popen(command, cwd=CHECKOUT, stderr=errors))
        return began[-1]

    yield paths, begin
    for supervisor in began:
        supervisor.terminate()
        supervisor.wait(15)


def table(paths: RealmPaths) -> dict[str, dict]:
    return {service["name"]: service for service in (read_json(paths.services) or {"services": []})["services"]}


def running(paths: RealmPaths, name: str) -> dict | None:
    service = table(paths).get(name, {})
    return service if service.get("state") == "running" else None


def family(supervisor: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(supervisor.pid).children(recursive=True)


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_a_killed_service_is_back_at_once_and_one_that_cannot_live_fails_alone(realm):
    paths, begin = realm
    begin("steady", "doomed")
    first = until(lambda: running(paths, "steady"))
    os.kill(first["pid"], signal.SIGKILL)
    killed = time.monotonic()
    until(lambda: table(paths)["steady"]["restarts"] == 1)
    assert time.monotonic() - killed < 1.0
    second = until(lambda: running(paths, "steady"))
    assert second["pid"] != first["pid"] and second["last_exit"] == "-9"
    assert (paths.root / "steady.lives").read_text() == "[][-9]"

    until(lambda: table(paths)["doomed"]["state"] == "failed")
    assert (paths.root / "doomed.lives").read_text() == "[]" + "[3]" * 4
    assert running(paths, "steady")
    events = Ledger(paths.ledger).events()
    assert [event["data"]["name"] for event in events if event["code"] == "service_failed"] == ["doomed"]
    crashes = [(event["data"]["kind"], event["data"]["exit"]) for event in events if event["code"] == "crash"]
    assert sorted(crashes) == [("bug", "exit 3")] * 5 + [("killed", "SIGKILL")]


def test_sigterm_ends_every_service_and_what_it_had_begun(realm):
    paths, begin = realm
    supervisor = begin("one", "family")
    until(lambda: running(paths, "one") and running(paths, "family"))
    processes = until(lambda: len(found := family(supervisor)) == 3 and found)  # two services, one with a child
    assert holder(paths).pid == supervisor.pid
    supervisor.terminate()
    assert supervisor.wait(15) == 0
    assert all_gone(processes)
    assert {name: service["state"] for name, service in table(paths).items()} == {
        "watchdog": "stopped",
        "one": "stopped",
        "family": "stopped",
    }
    assert holder(paths) is None


def test_a_killed_supervisor_leaves_no_service_behind_and_a_new_one_just_works(realm):
    paths, begin = realm
    supervisor = begin("one")
    first = until(lambda: running(paths, "one"))
    supervisor.kill()
    supervisor.wait()
    second = begin("one")
    until(lambda: (service := running(paths, "one")) and service["pid"] != first["pid"])
    assert not psutil.pid_exists(first["pid"]) or psutil.Process(first["pid"]).status() == psutil.STATUS_ZOMBIE
    second.terminate()
    assert second.wait(15) == 0
    assert orphans(paths.services) == []


def test_a_service_that_hangs_in_a_step_says_where_and_is_replaced_with_all_it_had_begun(realm):
    paths, begin = realm
    begin("learner", "steady")
    crashes = until(lambda: [event["data"] for event in Ledger(paths.ledger).events() if event["code"] == "crash"])
    assert [(crash["name"], crash["kind"], crash["phase"], crash["step"]) for crash in crashes] == [
        ("learner", "hang", "step", 3)
    ]
    assert any("time.sleep" in line or "<string>" in line for line in crashes[0]["lines"]), "its stacks"
    until(lambda: (service := running(paths, "learner")) and service["restarts"] == 1)
    assert (paths.root / "learner.lives").read_text() == "[][-9]"


def test_a_service_that_is_stopped_by_a_signal_is_replaced_and_nothing_is_held_against_it(realm):
    paths, begin = realm
    begin("steady")
    first = until(lambda: running(paths, "steady"))
    os.kill(first["pid"], signal.SIGSTOP)
    until(lambda: (service := running(paths, "steady")) and service["pid"] != first["pid"])
    crash = next(event["data"] for event in Ledger(paths.ledger).events() if event["code"] == "crash")
    assert crash["kind"] == "stopped" and all_gone(
        [psutil.Process(first["pid"])] if psutil.pid_exists(first["pid"]) else []
    )


def test_of_five_parallel_starts_exactly_one_runs(realm):
    paths, begin = realm
    supervisors = [begin("one") for _ in range(5)]
    until(lambda: sum(supervisor.poll() is not None for supervisor in supervisors) == 4)
    until(lambda: running(paths, "one"))
    (winner,) = (supervisor for supervisor in supervisors if supervisor.poll() is None)
    assert holder(paths).pid == winner.pid
    assert (paths.root / "one.lives").read_text() == "[]"
    assert (paths.logs / "supervisors.err").read_text().count("RealmBusy: ") == 4


def test_the_lock_is_held_once_and_freed_with_its_holder(tmp_path):
    paths = RealmPaths(tmp_path)
    assert holder(paths) is None
    with held(paths, 8888) as me:
        assert holder(paths) == me
        with pytest.raises(RealmBusy, match="already run"), held(paths, 8889):
            pass
    assert holder(paths) is None
    assert json.loads(Path(paths.lock).read_text())["port"] == 8888  # the text stays; it is information only
