"""A short form of the fault campaign: the stand-in trainer killed, every rename and fsync of a commit, a power cut."""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from core import checkpoints
from core.errors import UserError
from core.invariants import Violation
from core.paths import RealmPaths
from training.bench import faults, faults_calls, faults_corrupt, faults_ground, faults_power, power_cut, stand_in
from training.bench.faults_ground import Driver, Outcome
from training.bench.faults_page import write_faults


@pytest.fixture(scope="module")
def queued(tmp_path_factory) -> RealmPaths:
    """A newborn dwarf and three quests that wait for it."""
    root = tmp_path_factory.mktemp("ground")
    return faults_ground.accepted(RealmPaths(root / "queued"), random.Random(1), 3)


@pytest.fixture(scope="module")
def whole(queued) -> RealmPaths:
    paths = faults_ground.copy(queued, queued.root.with_name("whole"))
    faults_ground.finish("train", paths)
    return paths


def test_a_trainer_killed_again_and_again_comes_to_the_same_tensors(queued, whole, tmp_path):
    paths, rng, kills = faults_ground.copy(queued, tmp_path / "killed"), random.Random(3), 0
    while True:
        life = stand_in.begin("train", paths)
        while not life.awake and life.lives():
            time.sleep(0.005)
        time.sleep(rng.uniform(0.0, 0.15))
        if kills == 4 or not life.lives():
            break
        assert life.kill() == -9
        kills += 1
        assert faults_ground.checked(paths) == []
    assert life.end() == 0 and kills >= 1
    assert faults_ground.checked(paths) == [] and faults_ground.compared(paths, faults_ground.outcome_of(whole)) == []


def test_weights_that_trained_a_quest_twice_are_told_apart(queued, whole, tmp_path):
    paths = faults_ground.copy(whole, tmp_path / "twice")
    faults_ground.fill(paths, random.Random(5), 1)
    for stage in ("serve", "train"):
        faults_ground.finish(stage, paths)
    violation = faults_ground.compared(paths, faults_ground.outcome_of(whole))[0]
    assert violation.promise == "I3" and "model.safetensors" in violation.text


@pytest.mark.skipif(bool(faults_calls.missing()), reason=faults_calls.missing() or "strace is there")
def test_a_commit_killed_at_its_renames_and_fsyncs_loses_nothing(queued, tmp_path):
    start = faults_ground.copy(queued, tmp_path / "queued")
    for path in sorted(start.queued("normal").glob("*-q00000[23]*")):
        path.rename(start.queued("failed") / path.name)
    course = faults_calls.course_of("commit", "commit", start, ("train",), tmp_path)
    calls = faults_calls.counted(course, tmp_path / "counted", ("rename", "renameat2", "fsync"))
    assert calls["renameat2"] >= 2 and calls["fsync"] >= 20
    every = [faults_calls.Point("commit", call, index + 1) for call in calls for index in range(calls[call])]
    points = [point for point in every if point.call != "fsync" or point.index % 16 == 1]  # `bench faults` tries all

    def attempt(number: int) -> list[Violation]:
        return faults_calls.disturbed(course, points[number], "signal=KILL", tmp_path / f"lane-{number}")

    with ThreadPoolExecutor(2) as lanes:
        assert list(lanes.map(attempt, range(len(points)))) == [[]] * len(points)


@pytest.mark.parametrize("harm", faults_corrupt.HARM)
def test_a_harmed_checkpoint_gives_way_to_the_one_before(whole, tmp_path, harm):
    expected = faults_ground.outcome_of(whole)
    name = {"deleted": "optimizer.safetensors", "cut short": "trainer_state.json", "zeroed": checkpoints.MANIFEST}
    paths = faults_ground.copy(whole, tmp_path / "broken")
    chosen = name.get(harm, "model.safetensors")
    assert faults_corrupt.attempt(paths, chosen, harm, 1, random.Random(1), expected) == []


NO_POWER = "only root may mount an image" if os.geteuid() else ""


@pytest.mark.skipif(bool(NO_POWER), reason=NO_POWER or "root may")
@pytest.mark.parametrize("flag", power_cut.FLAGS)
def test_when_the_power_fails_what_was_saved_is_there(queued, whole, tmp_path, flag):
    if reason := power_cut.missing(tmp_path):
        pytest.skip(reason)
    with power_cut.PoweredDisk(tmp_path / "cut") as disk:
        paths = faults_ground.copy(queued, disk.place / "realm")
        os.sync()
        life, losses = stand_in.begin("train", paths), []
        while life.step < 8 and life.lives():
            time.sleep(0.002)
        rng = random.Random(flag)
        rng.choice = lambda _: flag
        assert faults_power.struck(disk, paths, life, rng, losses) == []
        faults_ground.finish("train", paths)
        assert faults_ground.compared(paths, faults_ground.outcome_of(whole)) == []


# The campaign itself


def test_the_campaign_counts_names_and_shares_its_time(monkeypatch, tmp_path):
    given = {}

    def breaks(realm, rng, until):
        given["until"], outcome = until, Outcome()
        outcome.add("turn 0", [])
        outcome.add("turn 1", [Violation("I1", "quest 3", "is gone")])
        return outcome

    drivers = {"breaks": Driver("breaks", "nothing is lost", breaks, 1.0), "none": Driver("none", "?", _skips, 3.0)}
    monkeypatch.setattr(faults, "DRIVERS", drivers)
    told, began = [], time.monotonic()
    result = faults.run_faults(faults.FaultOptions(7, 1.0, ("breaks", "none")), told.append)
    assert given["until"] - began == pytest.approx(15, abs=2)
    first, second = result["promises"]
    assert (first["tried"], first["held"], result["violations"]) == (2, 1, 1) and second["skipped"] == "no root here"
    assert "seed 7, breaks, turn 1: I1 quest 3: is gone" in faults.faults_text(result)
    write_faults(result, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "|nothing is lost|breaks|2|1|1||7|" in page and "|none|" not in page
    result["promises"] = [{**first, "name": "bends", "tried": 5}]
    write_faults(result, tmp_path)
    assert "|breaks|2|1|1||7|" in (page := (tmp_path / "benchmarks.md").read_text()) and "|bends|5|" in page
    assert page.count("## Faults") == 1


def _skips(realm, rng, until) -> Outcome:
    return Outcome(skipped="no root here")


def test_an_unknown_kind_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match="did you mean 'kill'"):
        faults.chosen("kil", False)
    assert set(faults.chosen(None, True)) < set(faults.chosen(None, False))
