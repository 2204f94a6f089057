"""The resident hero sits its exams: before its first battle and after each, in manifest and ledger, changing nothing else."""

import hashlib
from functools import partial

import orjson
import pytest
from resident import accept_sums, fight, resident

from core import checkpoints
from core.checkpoint_writer import CheckpointWriter
from core.config import Config, IdleGeneration
from core.hero import describe
from core.ledger import Ledger
from core.paths import RealmPaths
from core.progress import mastered, progress
from core.standing import Standing
from core.worker import Worker

pytestmark = pytest.mark.usefixtures("small_hero")

ASLEEP = Config(idle_generation=IdleGeneration(enabled=False))


@pytest.fixture
def wake(realm, ledger):
    """A worker that has woken up, in this realm or another, and the phases that it enters."""

    def awaken(paths: RealmPaths = realm, exam_share: float = ASLEEP.exam_share) -> tuple[Worker, list[str]]:
        phases: list[str] = []
        own = ledger if paths == realm else Ledger(paths.ledger)
        enter = lambda phase, *_, **__: phases.append(phase)  # noqa: E731
        return resident(paths, own, enter=enter, exam_share=exam_share), phases

    return awaken


def practice(paths: RealmPaths, ledger: Ledger, config: Config = ASLEEP) -> int:
    """A quest of REV, long enough to pay for an exam."""
    from core.skills import skill

    rows = list(skill("REV").quest_rows(1, 3, 96))
    return accept_sums(paths, ledger, "practice", rows=rows, skill="REV", config=config)


def told(manifest: checkpoints.Manifest) -> tuple:
    return manifest.standing, manifest.canaries, manifest.baseline, manifest.exams


def test_a_hero_is_asked_before_its_first_battle_and_after_each_and_the_ledger_has_every_row_once(realm, ledger, wake):
    worker, phases = wake()
    practice(realm, ledger), accept_sums(realm, ledger, "sums")
    assert fight(worker)
    tip = checkpoints.read(realm.vault / worker.tip.id)
    assert tip.baseline == {"BIN/1": [0, 32], "REV/1": [0, 32]} and set(tip.canaries) == {"BIN/1", "REV/1"}
    assert {row["kind"] for row in tip.exams} == {"canary"} and tip.standing["looks"] == {}
    assert "evaluation" in phases
    assert fight(worker)
    checkpoints.record(ledger, tip, "saved")
    rows = ledger.all("SELECT * FROM exams ORDER BY id")
    assert {row["step"] for row in rows if row["skill"] == "REV"} >= {0, tip.step}
    assert len({(row["checkpoint"], row["seq"]) for row in rows}) == len(rows)
    assert worker.tip.baseline == tip.baseline


def test_who_is_killed_after_its_exams_comes_to_the_same_ones(realm, ledger, wake, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    twin = RealmPaths(tmp_path / "twin")
    twin.make()
    for paths in (realm, twin):
        practice(paths, Ledger(paths.ledger))
    straight, _ = wake()
    assert fight(straight)

    def die(*_):
        raise Killed

    start = CheckpointWriter.start
    monkeypatch.setattr(CheckpointWriter, "start", die)
    killed, _ = wake(paths=twin)
    with pytest.raises(Killed):
        killed.loop()
    monkeypatch.setattr(CheckpointWriter, "start", start)
    again, _ = wake(paths=twin)
    assert fight(again)
    assert told(again.tip) == told(straight.tip) and again.tip.files == straight.tip.files
    count = "SELECT COUNT(*) AS n FROM exams"
    assert again.ledger.one(count) == straight.ledger.one(count)


def test_exams_touch_neither_weights_nor_moments_nor_random_streams(realm, ledger, wake, tmp_path):
    other = RealmPaths(tmp_path / "other")
    other.make()
    practice(realm, ledger), practice(other, Ledger(other.ledger))
    asked, _ = wake()
    spared, _ = wake(other, exam_share=0.0)
    assert fight(asked) and fight(spared)
    assert asked.tip.files == spared.tip.files
    assert asked.tip.exams and told(spared.tip) == ({}, {}, {}, [])


def test_a_manifest_from_before_there_were_exams_is_read(realm):
    manifest = checkpoints.Manifest("DIO", "first", 40)
    saved = checkpoints.commit(realm, manifest, lambda folder: None)
    file = realm.vault / saved.id / "manifest.json"
    newer = {"checksum", "standing", "canaries", "baseline", "exams", "weight_size", "verdict"}
    told = orjson.loads(file.read_bytes())
    assert newer <= set(told)
    old = {key: value for key, value in told.items() if key not in newer}
    checksum = hashlib.sha256(orjson.dumps(old, option=orjson.OPT_SORT_KEYS)).hexdigest()
    file.write_bytes(orjson.dumps(old | {"checksum": checksum}))
    assert checkpoints.read(realm.vault / saved.id) == saved


def test_after_a_rollback_the_hero_is_described_where_it_stands(realm):
    ids = []
    for hero, step, levels in (("DIO", 10, (1,)), ("DIO", 90, (1, 2)), ("Other", 500, ())):
        facts = checkpoints.Manifest(hero, "first", step, standing=Standing({"REV": levels}).as_json())
        ids.append(checkpoints.commit(realm, facts, lambda folder: (folder / "model").write_text("") and None).id)
    for stands, at, step, levels in ((0, 0, 10, [1]), (1, 1, 90, [1, 2]), (2, 1, 90, [1, 2])):
        checkpoints.set_tip(realm, ids[stands])
        about = describe(realm, Config())
        assert (about["checkpoint"], about["global_step"], about["mastered"]) == (ids[at], step, {"REV": levels})
    assert mastered(realm, "Other") == {}


def test_a_level_that_is_won_or_lost_is_told_once(realm, ledger):
    exam = {"kind": "exam", "skill": "REV", "level": 2, "right": 250, "asked": 256, "look": 1, "outcome": "mastered"}
    probe = exam | {"kind": "probe", "level": 1, "right": 10, "asked": 96, "look": None, "outcome": "lost"}
    manifest = checkpoints.Manifest("DIO", "first", 40, quest=3, id="DIO-first-40", exams=[exam, probe])
    record = partial(checkpoints.record, ledger, manifest, "saved")
    record(), record()
    texts = [
        row["text"]
        for row in ledger.all("SELECT text FROM events WHERE code IN ('level_up', 'level_lost') ORDER BY id")
    ]
    assert len(texts) == 2 and "REV level 2 is mastered: 250 of 256 fresh problems right (95.0 to 98.9 %)" in texts[0]
    assert "REV level 1 is lost" in texts[1]
    assert ledger.one("SELECT COUNT(*) AS n FROM exams WHERE hero='DIO' AND quest=3")["n"] == 2


def test_what_was_asked_of_weights_that_were_taken_back_is_neither_told_nor_shown_as_the_heros(realm, ledger):
    def stand_on(name: str, parent: str | None, step: int, right: int, branch: str | None = None) -> dict | None:
        """The frontier's score when the tip is a checkpoint of which its problems were asked."""
        asked = {
            "kind": "canary",
            "skill": "REV",
            "level": 1,
            "right": right,
            "asked": 32,
            "look": None,
            "outcome": None,
        }
        lost = asked | {"kind": "probe", "level": 2, "outcome": "lost"}
        exams = [asked, lost] if branch else [asked]
        found = checkpoints.Manifest("DIO", "first", step, parent=parent, exams=exams, branch=branch)
        made[name] = checkpoints.commit(realm, found, lambda folder: (folder / "model").write_text(name) and None)
        checkpoints.record(ledger, made[name], "saved")
        return shown(name if branch is None else "first")

    def shown(name: str) -> int:
        checkpoints.set_tip(realm, made[name].id)
        return next(each for each in progress(realm, Config(), ledger) if each["name"] == "REV")["score"]["right"]

    made: dict[str, checkpoints.Manifest] = {}
    assert stand_on("first", None, 10, 11) == 11
    assert stand_on("cursed", made["first"].id, 20, 2, "cursed") == 11
    assert not ledger.events_of("level_lost")
    assert stand_on("second", made["first"].id, 90, 29) == 29
    assert shown("first") == 11, "after a rollback"
    assert stand_on("third", made["first"].id, 50, 17) == 17, "fewer steps than what was taken back"
