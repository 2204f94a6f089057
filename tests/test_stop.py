"""A real realm with listening pages, told to end while it wakes up and in its battle: nobody is left."""

import random
import signal
from itertools import pairwise
from pathlib import Path

import pytest

from training.bench.faults_realm import LiveRealm, until
from training.bench.faults_stop import SETTINGS, ended, listen, p95

pytestmark = pytest.mark.alone


def test_told_to_end_with_open_streams_every_process_ends_at_once_and_the_place_is_kept(tmp_path):
    realm = LiveRealm(tmp_path / "realm", **SETTINGS)
    realm.drop("long", 4000, 10, random.Random(1))
    waking = ended(realm, lambda: None)
    assert waking.held and waking.left == ()

    def in_battle():
        return until(lambda: (realm.snapshot().get("battle") or {}).get("step", 0) >= 3)

    fighting = ended(realm, in_battle)
    assert fighting.doing == "battle" and fighting.held and fighting.seconds < 20
    assert realm.place("long") == "processing" and realm.crashes() == []
    steps = [step for step, *_ in realm.steps()]
    assert len(steps) >= 3 and all(later == earlier + 1 for earlier, later in pairwise(steps))


def test_a_trainer_killed_in_battle_is_told_as_a_kill_from_outside_and_the_kernel_would_choose_it_first(tmp_path):
    realm = LiveRealm(tmp_path / "realm", **SETTINGS)
    realm.drop("long", 4000, 10, random.Random(1))
    realm.start()
    stream = listen(realm.port)
    try:
        until(lambda: realm.snapshot().get("state") == "battle" and realm.steps())
        both = (realm.supervisor, realm.trainer())
        scores = [int(Path(f"/proc/{each.pid}/oom_score_adj").read_text()) for each in both]
        assert scores[0] <= 0 and scores[1] == 500
        realm.trainer().send_signal(signal.SIGKILL)
        (crash,) = until(realm.crashes)
        assert (crash["name"], crash["kind"], crash["exit"]) == ("trainer", "killed", "SIGKILL")
        assert crash["phase"] in ("step", "warm-up", "evaluation", "checkpoint")
        assert realm.place("long") == "processing"
    finally:
        stream.close()
        realm.stop()


def test_the_95th_percentile_is_a_value_that_was_measured():
    assert p95([float(value) for value in range(1, 21)]) == 19.0 and p95([3.0]) == 3.0
