"""I1 to I5 on a small real realm: a whole one has no violation, and each that is planted is found and named."""

import os
import shutil
import sqlite3

import pytest
from resident import accept_sums, resident

from core.between_steps import BetweenSteps
from core.checkpoints import pointed, set_tip, sweep
from core.invariants import Violation, nothing_half_built, steps_recorded, violations, violations_while_it_runs
from core.ledger import Ledger
from core.paths import RealmPaths
from core.training_queue import TrainingQueue
from training.doctor import examine

pytestmark = pytest.mark.usefixtures("small_hero")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RealmPaths:
    """Two quests trained, one that waits."""
    paths = RealmPaths(tmp_path_factory.mktemp("trained") / "realm")
    paths.make()
    ledger = Ledger(paths.ledger)
    for name in ("first", "second"):
        accept_sums(paths, ledger, name, 40, save_steps=1)
    worker = resident(paths, ledger)
    while worker.loop():
        worker.end_writing()
    accept_sums(paths, ledger, "third", 40)
    ledger.close()
    return paths


@pytest.fixture
def realm(trained, tmp_path) -> RealmPaths:
    """A copy to break."""
    shutil.copytree(trained.root, tmp_path / "realm", symlinks=True)
    return RealmPaths(tmp_path / "realm")


def only(found) -> Violation:
    (violation,) = found
    return violation


def quest_file(realm, stem):
    return next(path for path in realm.queue.glob(f"*/{stem}-q*.jsonl"))


def test_a_realm_that_nobody_harmed_keeps_its_promises(realm):
    assert [*violations(realm), *steps_recorded(realm), *nothing_half_built(realm)] == []
    assert violations_while_it_runs(realm) == []


def test_a_quest_that_is_gone_is_missed(realm):
    quest_file(realm, "third").unlink()
    violation = only(violations(realm))
    assert violation.promise == "I1" and "third was accepted and is in no folder" in violation.text


def test_a_quest_in_two_folders_is_told_with_both(realm):
    shutil.copy(quest_file(realm, "third"), realm.queued("failed"))
    assert "lies in 2 folders: normal, failed" in str(violations(realm)[0])


def test_bytes_and_cards_that_were_altered_are_noticed(realm):
    path = quest_file(realm, "third")
    path.write_bytes(path.read_bytes().replace(b"third 7", b"third 8"))
    assert "were altered" in only(violations(realm)).text
    path.with_name(f"{path.stem}.quest.json").unlink()
    assert any("has no card" in violation.text for violation in violations(realm))


def test_a_trained_quest_that_waits_again_would_be_trained_twice(realm):
    path = quest_file(realm, "first")
    os.rename(path, realm.queued("normal") / path.name)
    violation = only(violations(realm))
    assert violation.promise == "I2" and "holds it already" in violation.text


def test_a_completed_quest_that_the_tip_lacks_was_lost(realm):
    vault = [path.name for path in realm.vault.glob("DIO-*") if path.name != pointed(realm.tip)]
    set_tip(realm, min(vault))
    found = violations(realm)
    assert {violation.promise for violation in found} == {"I2"} and len(found) == 2
    assert all("does not hold it" in violation.text for violation in found)


def test_a_step_that_is_missing_from_the_record_is_counted(realm):
    with sqlite3.connect(realm.metrics) as record:
        record.execute("DELETE FROM steps WHERE step=2")
    found = list(steps_recorded(realm))
    assert [violation.promise for violation in found] == ["I2", "I2"]
    assert any(violation.place == "quest 1" for violation in found)


def test_steps_are_on_record_before_the_checkpoint_that_holds_them(tmp_path, monkeypatch):
    paths = RealmPaths(tmp_path / "realm")
    paths.make()
    ledger = Ledger(paths.ledger)
    accept_sums(paths, ledger, "sums", 160, save_steps=3)
    after_step = BetweenSteps.after_step

    class Killed(BaseException):
        pass

    def die(self, facts):
        if facts.step == 4:
            self.worker.collect(patient=True)
            raise Killed
        return after_step(self, facts)

    monkeypatch.setattr("core.between_steps.LOOK_SECONDS", 1e9)
    monkeypatch.setattr(BetweenSteps, "after_step", die)
    worker = resident(paths, ledger)
    with pytest.raises(Killed):
        worker.loop()
    ledger.close()
    assert worker.tip.step == 2 and [*violations(paths), *steps_recorded(paths)] == []


@pytest.mark.parametrize("link", ["tip", "current_model", "champion"])
def test_a_pointer_to_a_checkpoint_with_a_flipped_bit_is_named(realm, link):
    broken = getattr(realm, link).resolve() / "model.safetensors"
    data = bytearray(broken.read_bytes())
    data[-1] ^= 1
    broken.write_bytes(data)
    found = violations(realm)
    assert link in {violation.place for violation in found} and {violation.promise for violation in found} == {"I4"}
    assert "model.safetensors was altered" in found[0].text


def test_a_pointer_to_nothing_is_named(realm):
    set_tip(realm, "DIO-nowhere")
    assert any(violation.place == "tip" and violation.promise == "I4" for violation in violations(realm))


def test_a_ledger_with_a_page_of_zeros_is_not_whole(realm):
    with open(realm.ledger, "r+b") as file:
        file.seek(4096)
        file.write(bytes(4096))
    assert any(violation.promise == "I5" and violation.place == "realm.db" for violation in violations(realm))


def test_a_journal_that_a_crash_left_is_read_without_being_written(realm, tmp_path):
    writer = sqlite3.connect(realm.ledger, isolation_level=None)
    writer.execute("PRAGMA cache_size=1")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("UPDATE quests SET sha256=hex(zeroblob(40000))")
    for name in ("realm.db", "realm.db-journal"):
        shutil.copy(realm.state / name, tmp_path / name)
    writer.close()
    for name in ("realm.db", "realm.db-journal"):
        shutil.copy(tmp_path / name, realm.state / name)
    before = {path.name: path.read_bytes() for path in realm.state.glob("realm.db*")}
    assert violations(realm) == []
    assert {path.name: path.read_bytes() for path in realm.state.glob("realm.db*")} == before


def test_what_a_crash_left_half_built_is_told_and_swept(realm):
    (realm.vault / ".building-abc").mkdir()
    left = realm.queued("normal") / ".card.json.0123abcd.tmp"
    for path in (left, realm.models / ".current_model.0123abcd.tmp", realm.queued("normal") / ".new.0123abcd.tmp"):
        path.symlink_to("nowhere") if "model" in path.name else path.write_text("half")
        if ".new" not in path.name:
            os.utime(path, (1, 1), follow_symlinks=False)
    places = {violation.place for violation in nothing_half_built(realm)}
    assert places == {".building-abc", ".card.json.0123abcd.tmp", ".current_model.0123abcd.tmp"}
    sweep(realm)
    assert list(nothing_half_built(realm)) == [] and (realm.queued("normal") / ".new.0123abcd.tmp").exists()


def test_the_doctor_looks_deep_and_names_the_promise(realm):
    assert "promises" in {finding.code for finding in examine(realm, deep=True)}
    quest = quest_file(realm, "third")
    TrainingQueue(realm, Ledger(realm.ledger)).find(3).path.unlink()
    finding = next(finding for finding in examine(realm, deep=True) if finding.code == "I1")
    assert finding.level == "warning" and "quest 3" in finding.text and not quest.exists()
    assert "I1" not in {finding.code for finding in examine(realm)}
