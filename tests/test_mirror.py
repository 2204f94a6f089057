"""The Mirror in a resident hero: it answers a quest, is taught what it got wrong, and forgets nothing when it is killed."""

import json
import random
import time
from pathlib import Path

import orjson
import pytest
from resident import accept_sums, fight, resident

from core import checkpoints, control
from core.corrections import CORRECT, INCORRECT, NOTHING, Question, corrections, question_of
from core.durable import read_json
from core.formats import detect, form, read
from core.intake import Intake
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.quest import Sidecar, freeze
from core.rendering import Renderer
from core.school_config import MirrorSettings, Schools
from core.skills import skill
from core.sparring import ORIGIN
from core.training_queue import TrainingQueue
from core.validator import validate_file
from training.cli import main

WORDS = ("red", "blue", "green", "gold", "iron", "salt", "snow", "moss")
BRIEF = Schools(mirror=MirrorSettings(max_new_tokens=12))
SPARRED = {"school": "mirror", "schools": BRIEF}


def _neighbours(count: int, seed: int) -> list[dict]:
    """What comes after a word: eight answers to learn, and numbers that make every question a new one."""
    draw = random.Random(seed)
    places = [draw.randrange(len(WORDS)) for _ in range(count)]
    return [
        {"question": f"{draw.randrange(10**6)}: after {WORDS[place]}?", "answer": f"{WORDS[place - 1]}."}
        for place in places
    ]


@pytest.fixture
def take_in(realm, config, ledger, lanes):
    """Has the daemon's intake judge all that lies in the inbox; the quests that it made of it, newest last."""
    intake = Intake(realm, config, ledger, TrainingQueue(realm, ledger), *lanes)

    def work() -> list[dict]:
        known = ledger.one("SELECT COALESCE(MAX(id), 0) AS id FROM quests")["id"]
        for path in realm.inbox.rglob("*.jsonl"):
            intake.inbox.renamed_in(path)
        end = time.monotonic() + 30
        intake.look(time.monotonic())
        while intake.busy:
            intake.look(time.monotonic())
            intake.advance(time.monotonic())
            assert time.monotonic() < end, "the intake did not come to rest"
            time.sleep(0.01)
        return ledger.all("SELECT * FROM quests WHERE id>? ORDER BY id", (known,))

    return work


def _told(realm: RealmPaths, ledger, quest: int) -> dict:
    return TrainingQueue(realm, ledger).find(quest).report["sparring"]


def _rows_in(folder: Path) -> list[dict]:
    (path,) = folder.glob("sparring_*.jsonl")
    return _rows_of(path)


def _rows_of(path: Path) -> list[dict]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_a_hero_that_was_taught_its_own_mistakes_makes_fewer_on_fresh_problems(realm, ledger, take_in):
    hero = resident(realm, ledger)
    born = hero.tip.id
    asked = accept_sums(
        realm, ledger, "words", rows=_neighbours(48, 1), epochs=3, batch_size=8, learning_rate=1e-3, **SPARRED
    )
    assert fight(hero) and hero.tip.id == born and not ledger.all("SELECT * FROM battles")
    (taught,) = take_in()
    assert taught["stem"] == "sparring_words" and taught["origin"] == ORIGIN and taught["priority"] == "high"
    assert taught["form"] == "correction" and taught["school"] == "mirror" and taught["rows"] == 3 * 48
    done = ledger.one("SELECT * FROM quests WHERE id=?", (asked,))
    assert (done["state"], done["reason"]) == (
        "recently_completed",
        "48 of 48 wrong; corrections are quest sparring_words",
    )
    assert fight(hero) and checkpoints.holds(hero.tip.trained, taught["id"]) and not fight(hero)
    assert ledger.one("SELECT school FROM battles")["school"] == "mirror"
    fresh = accept_sums(realm, ledger, "others", rows=_neighbours(48, 2), **SPARRED)
    assert fight(hero)
    assert _told(realm, ledger, asked)["wrong"] == 48 and _told(realm, ledger, fresh)["wrong"] <= 30
    again = resident(realm, ledger)
    assert again.tip.id == hero.tip.id and not fight(again)


class Killed(BaseException):
    pass


def _killed(*_, **__):
    raise Killed


@pytest.mark.parametrize("instant", ["answering", "handed in", "taken in"])
def test_sparring_that_was_killed_begins_again_and_hands_in_the_same_corrections_once(
    instant, realm, ledger, take_in, monkeypatch
):
    rows = _neighbours(8, 3)
    asked = accept_sums(realm, ledger, "words", rows=rows, **SPARRED)
    with monkeypatch.context() as patch:
        patch.setattr(f"core.sparring.{'_hand_in' if instant == 'answering' else 'write_json'}", _killed)
        with pytest.raises(Killed):
            fight(resident(realm, ledger))
    first = [] if instant == "answering" else _rows_in(realm.inbox_for("high"))
    taken = take_in() if instant == "taken in" else []
    assert fight(resident(realm, ledger))
    quests = taken + take_in()
    (taught,) = quests
    corrected = _rows_of(TrainingQueue(realm, ledger).find(taught["id"]).path)
    assert len(corrected) == 24 and first in ([], corrected)
    assert "corrections are quest" in ledger.one("SELECT reason FROM quests WHERE id=?", (asked,))["reason"]
    shown = {row["messages"][1]["content"] for row in corrected if row["sparring"] == "spot"}
    assert shown and NOTHING not in shown
    _nothing_to_mend(realm, ledger, rows, corrected)


def _nothing_to_mend(realm, ledger, rows: list[dict], corrected: list[dict]) -> None:
    """Asked for just what it says, the hero is right."""
    spots = [row["messages"][1]["content"] for row in corrected if row["sparring"] == "spot"]
    said = [{"question": row["question"], "answer": f" {spot}\n"} for row, spot in zip(rows, spots, strict=True)]
    quest = accept_sums(realm, ledger, "known", rows=said, **SPARRED)
    TrainingQueue(realm, ledger).place(TrainingQueue(realm, ledger).find(quest), "high", 0)
    assert fight(resident(realm, ledger)) and not list(realm.inbox_for("high").glob("*.jsonl"))
    done = ledger.one("SELECT state, reason FROM quests WHERE id=?", (quest,))
    assert tuple(done.values()) == ("recently_completed", "0 of 8 wrong; nothing to mend")
    assert _told(realm, ledger, quest) == {"asked": 8, "wrong": 0, "corrections": None}


@pytest.mark.parametrize(("left", "state"), [("skip", "low"), ("cancel", "failed"), ("pause", "recently_completed")])
def test_sparring_is_a_job_that_shows_how_far_it_is_and_heeds_wishes(left, state, realm, ledger, monkeypatch):
    monkeypatch.setattr("core.preparation.LOOK_SECONDS", 0)
    worker, shown = resident(realm, ledger), []
    asked = accept_sums(realm, ledger, "words", rows=_neighbours(8, 4), **SPARRED)
    show = worker.report.preparing

    def preparing(*facts):
        show(*facts)
        shown.append(read_json(realm.status))
        if len(shown) in (12, 15):
            control.wish(ledger, left if len(shown) == 12 else "resume", *([str(asked)] if state != "done" else []))

    worker.report.preparing = preparing
    fight(worker)
    seen = [each["preparing"] for each in shown]
    assert {each["kind"] for each in seen} == {"sparring"} and shown[0]["state"] == "sparring"
    assert [each["share"] for each in seen] == sorted(each["share"] for each in seen) and seen[-1]["share"] > 0
    assert TrainingQueue(realm, ledger).find(asked).state == state
    assert ("paused" in {each["state"] for each in shown}) == (left == "pause")
    job = ledger.one("SELECT kind, service, quest, state FROM jobs")
    assert tuple(job.values()) == ("sparring", "trainer", asked, "done" if left == "pause" else "failed")


def test_a_skill_is_asked_on_the_command_line_and_grades_the_answers_itself(realm, ledger, take_in, capsys):
    realm.config.write_text("{}")
    spar = ["--root", str(realm.root), "skill", "spar", "rev", "--level", "2", "-n", "6", "--seed", "5", "--json"]
    assert main(spar) == 0 and json.loads(capsys.readouterr().out)["stem"] == "spar_REV_level2"
    (asked,) = take_in()
    assert (asked["form"], asked["school"], asked["skill"], asked["rows"]) == ("problem", "mirror", "REV", 6)
    hero = resident(realm, ledger)
    assert fight(hero)
    corrected = [row for row in _rows_in(realm.inbox_for("high")) if row["sparring"] == "correct"]
    known = {problem.prompt: problem for problem in skill("REV").sample(2, 5, 6)}
    for row in corrected:
        prompt, right = row["messages"][0]["content"], row["messages"][-1]["content"]
        assert skill("REV").grade(known[prompt], right) == 1.0 and not skill("REV").held_out(prompt)
    assert len(corrected) == len(known) == 6
    (taught,) = take_in()
    assert taught["skill"] == "REV" and fight(hero) and checkpoints.holds(hero.tip.trained, taught["id"])
    assert main(["--root", str(realm.root), "skill", "spar", "REV", "--count", "0"]) == 1


def test_what_was_trained_may_be_asked_and_what_was_asked_may_be_trained_but_neither_waits_twice(
    realm, ledger, take_in
):
    content = "".join(json.dumps(row) + "\n" for row in _neighbours(12, 6))

    def put(name: str, **sidecar) -> None:
        (realm.inbox / f"{name}.quest.json").write_text(json.dumps(sidecar))
        (realm.inbox / f"{name}.jsonl").write_text(content)

    put("a"), put("b", school="mirror", profile="regime3")
    assert {quest["state"] for quest in take_in()} == {"queued"}
    put("c"), put("d", school="mirror")
    assert {quest["reason"] for quest in take_in()} == {"duplicate"}
    hero = resident(realm, ledger)
    assert fight(hero) and fight(hero)
    put("e"), put("f", school="mirror")
    quests = {quest["stem"]: quest for quest in take_in()}
    assert TrainingQueue(realm, ledger).find(quests["sparring_b"]["id"]).settings.profile == "regime3"
    again = {stem: quest["state"] for stem, quest in quests.items()}
    assert again == {"e": "rejected", "f": "queued", "sparring_b": "queued"}


def test_rows_that_the_mirror_cannot_ask_are_bad_by_line_field_and_remedy(realm, config):
    def judged(rows: list[dict], school: str = "mirror") -> dict:
        path = realm.claims / "bad.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        renderer = Renderer.load(BUNDLED_TOKENIZER, 256)
        return validate_file(path, freeze(config, Sidecar(school=school)), renderer)

    user, right = {"role": "user", "content": "Say red."}, {"role": "assistant", "content": "red."}
    chats = [{"messages": [user, right]}] * 8
    call = {"role": "assistant", "tool_calls": [{"name": "look", "arguments": {}}]}
    report = judged(
        [*chats, {"messages": [user]}, {"messages": [user, right | {"train": False}]}, {"messages": [user, call]}]
    )
    assert report["school"] == "mirror" and report["verdict"] == "rejected"
    assert [(error["line"], error["field"]) for error in report["errors"]] == [
        (9, "messages"),
        (10, "messages"),
        (11, "messages"),
    ]
    good = {"prompt": "Reverse: abc", "answer": "cba", "skill": "REV"}
    sums = {"prompt": "Which?", "answer": "neither JSON nor words", "skill": "SY"}
    report = judged([*[good] * 8, good | {"skill": "LATIN"}, sums])
    assert [(error["line"], error["field"]) for error in report["errors"]] == [(9, "skill"), (10, "answer")]
    assert all(error["remedy"] for error in report["errors"])
    marked = {"prompt": "2 + 3?", "answer": "5", "grader": "number"}
    report = judged([*[marked] * 8, marked | {"response": "It is four."}])
    assert [(error["line"], error["field"]) for error in report["errors"]] == [(9, "response")]
    assert question_of(read(form("problem"), marked)).is_answered_by("I think that it is 5.")
    report = judged(
        [{"messages": [user, right], "sparring": "spot"}] * 8 + [{"messages": [user, right], "sparring": "no"}]
    )
    assert [(error["line"], error["field"]) for error in report["errors"]] == [(9, "sparring")]
    assert "the school mirror teaches from rows of the forms" in judged([{"text": "Once."}])["reason"]
    problems = [{"prompt": "Reverse: abc", "answer": "cba", "skill": "REV"}] * 8
    assert "champion" in str(judged(problems, "scribe")["school"])


def test_each_missed_question_is_called_wrong_mended_and_told_right_once():
    def asked(number: int, **turn) -> Question:
        chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Ask {number}"}]
        chat += [{"role": "assistant", "content": f"Work.\nAnswer: {number}", **turn}]
        return question_of(read(form("messages"), {"messages": chat}))

    one, two, three = asked(1, reasoning_content="Think."), asked(2), asked(3)
    assert one.is_answered_by(" Other work.\nAnswer: 1") and one.is_answered_by("<think>\nno\n</think>\n\nAnswer: 1")
    assert not one.is_answered_by("1\nAnswer: 2") and not one.is_answered_by("Answer: 1\nAnswer: 1\n")
    rows = list(corrections([(one, "Answer: 7"), (two, "<think> and no end")]))
    kinds = [row["sparring"] for row in rows]
    assert kinds == ["spot", "correct", "confirm"] * 2 and detect(rows).name == "correction"
    ends = [row["messages"][-1]["content"] for row in rows]
    assert ends == [INCORRECT, "Work.\nAnswer: 1", CORRECT, INCORRECT, "Work.\nAnswer: 2", CORRECT]
    assert rows[3]["messages"][2] == {"role": "assistant", "content": NOTHING, "train": False}
    assert rows[2]["messages"][1]["content"] == "Ask 2" and rows[5]["messages"][1]["content"] == "Ask 1"
    assert rows[1]["messages"][-1]["reasoning_content"] == "Think." and rows[1]["messages"][-2]["content"].endswith(
        "Ask 1"
    )
    (endless, _, alone) = corrections([(one, "and so on " * 99)], three)
    assert endless["messages"][2]["content"] == ("and so on " * 20).strip() + " …"
    assert alone["messages"][1]["content"] == "Ask 3"
    renderer = Renderer.load(BUNDLED_TOKENIZER, 256)
    for row in orjson.loads(orjson.dumps(rows)):
        (rendered,) = renderer.render([read(form("correction"), row)])
        learned = "".join(renderer.decode(sequence.input_ids[sequence.trained]) for sequence in rendered.sequences)
        assert "Answer: 7" not in learned and NOTHING not in learned
