"""Sequence-level distillation: a teacher on a server is asked once, and what it said is trained, whatever happens meanwhile."""

import contextlib
import json
import os
import threading
import time

import pytest
from oracle_hall import answering
from oracle_realm import another
from resident import Killed, accept_sums, dying_at, fight, resident
from teacher_box import completion, teacher

from core import ask_ahead, checkpoints
from core.between_steps import BetweenSteps
from core.config import Config, IdleGeneration
from core.durable import read_json
from core.errors import UserError
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.prepare import Prepared
from core.quest import ANSWERS, Sidecar, freeze
from core.quest_acts import QuestActs
from core.rendering import Renderer
from core.school_config import Schools, WhisperSettings
from core.teacher_answers import last_line
from core.teacher_server import ask
from core.training_daemon import TrainingDaemon
from core.training_queue import TrainingQueue
from core.validator import validate_file
from training.status_text import line

pytestmark = pytest.mark.usefixtures("small_hero")


def _whisper(url: str | None, model: str | None = "sage", **settings) -> dict:
    return {"school": "whisper", "schools": Schools(whisper=WhisperSettings(url=url, model=model, **settings))}


def _config(url: str | None = None) -> Config:
    schools = Schools(whisper=WhisperSettings(url=url, model="sage")) if url else Schools()
    return Config(idle_generation=IdleGeneration(enabled=False), exam_share=0.0, schools=schools)


@contextlib.contextmanager
def asking(paths: RealmPaths, ledger: Ledger, config: Config | None = None):
    """A daemon that is turned until something is so."""
    daemon = TrainingDaemon(paths, config or _config(), ledger, time.monotonic, lambda: None)

    def until(is_so) -> None:
        end = time.monotonic() + 60
        while not is_so():
            assert time.monotonic() < end, "it never came to be"
            daemon.loop(time.monotonic())
            time.sleep(0.01)

    try:
        yield until
    finally:
        daemon.close()


def _state(ledger: Ledger, quest: int) -> str:
    return ledger.one("SELECT state FROM quests WHERE id=?", (quest,))["state"]


def _answers(paths: RealmPaths, ledger: Ledger, quest: int):
    return TrainingQueue(paths, ledger).find(quest).companion(ANSWERS)


def _learned(paths: RealmPaths) -> set[str]:
    """What is trained of the rows that are prepared."""
    (folder,) = paths.prepared.iterdir()
    prepared, words = Prepared(folder), Renderer.load(BUNDLED_TOKENIZER, 256)
    rows = (prepared.sequence(number) for number in range(len(prepared)))
    return {words.decode(tokens[trained], specials=False).strip() for tokens, trained in rows}


def test_what_a_teacher_answers_is_trained_in_place_of_the_files_own_answers(realm, ledger):
    realm.whisper_key.write_text("secret\n")
    with teacher() as sage, asking(realm, ledger, _config(sage.url + "/v1")) as until:
        hero = resident(realm, ledger)
        quest = accept_sums(realm, ledger, "sums", 24, **_whisper(sage.url, max_new_tokens=32))
        assert not fight(hero) and _state(ledger, quest) == "queued"
        until(lambda: last_line(_answers(realm, ledger, quest)))
        until(lambda: ledger.one("SELECT 1 FROM events WHERE code='teacher_answered'"))
        assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)
    assert sorted(sage.questions) == sorted(f"sums {n} plus 1?" for n in range(24))
    assert {(body["model"], body["temperature"], body["max_tokens"], body["stream"]) for body in sage.asked} == {
        ("sage", 0, 32, False)
    }
    assert all([turn["role"] for turn in body["messages"]] == ["user"] for body in sage.asked)
    assert set(sage.keys) == {"Bearer secret"}
    assert _learned(realm) == {
        f"The sage says sums {n} plus 1?"[: len("The sage says ") + 9].strip() for n in range(24)
    }
    battle = ledger.one("SELECT school FROM battles")
    job = ledger.one("SELECT kind, service, state FROM jobs WHERE quest=? ORDER BY id", (quest,))
    assert battle["school"] == "whisper" and tuple(job.values()) == ("asking", "daemon", "done")
    report = TrainingQueue(realm, ledger).find(quest).report["asking"]
    assert (report["model"], report["url"], report["rows"], report["left_out"]) == ("sage", sage.url, 24, {})
    logged = json.dumps(ledger.all("SELECT * FROM events")) + json.dumps(report)
    assert "secret" not in logged and not realm.asking.exists()


def test_the_hero_is_taught_others_while_a_slow_teacher_answers_and_status_says_how_far_it_is(realm, ledger):
    gate = threading.Event()

    def slowly(body) -> str:
        if "7 plus" in body["messages"][-1]["content"]:
            gate.wait(30)
        return "well"

    with teacher(slowly) as sage, asking(realm, ledger) as until:
        hero = resident(realm, ledger)
        asked = accept_sums(realm, ledger, "asked", 16, priority="high", **_whisper(sage.url, at_once=2))
        until(lambda: read_json(realm.asking, {}).get("share", 0) > 0.5)
        shown = read_json(realm.asking)
        other = accept_sums(realm, ledger, "other", 16, priority="low")
        assert fight(hero) and _state(ledger, other) == "recently_completed" and _state(ledger, asked) == "queued"
        gate.set()
        until(lambda: last_line(_answers(realm, ledger, asked)))
        assert fight(hero) and checkpoints.holds(hero.tip.trained, asked)  # which may be before the daemon hears of it
        until(lambda: "asking" in TrainingQueue(realm, ledger).find(asked).report)
    assert (shown["quest"], shown["kind"], shown["share"]) == ("asked", "asking", 15 / 16)
    queue = {"high": 1, "normal": 0, "low": 0, "recently_completed": 0}
    status = {"battle": None, "preparing": shown, "paused": False, "queue": queue, "services": []}
    assert line(status).startswith("asking a teacher about asked, 94%")


def _weights_after(paths: RealmPaths, die_at: int | None, monkeypatch) -> str:
    """The sum of the weights that a quest ends with, whose asking and whose battle may be cut off."""
    paths.make()
    ledger = Ledger(paths.ledger)
    hero, gate = resident(paths, ledger), threading.Event()
    stuck = "plus" if die_at is None else "9 plus"  # of whose questions one is never answered in the first life

    def say(body) -> str:
        if stuck in body["messages"][-1]["content"]:
            gate.wait(30)
        return f"As {body['messages'][-1]['content']}"

    with teacher(say) as sage:
        quest = accept_sums(
            paths, ledger, "sums", 48, save_steps=1, learning_rate=1e-3, **_whisper(sage.url, at_once=1)
        )
        if die_at is None:
            gate.set()
        else:
            with asking(paths, ledger) as until:
                until(lambda: len(sage.asked) == 10)
            path = _answers(paths, ledger, quest)
            kept = path.read_bytes()
            assert kept.count(b"\n") == 9
            path.write_bytes(kept + b'{"line": 10, "con')  # a power cut's half line
            gate.set()
        with asking(paths, ledger) as until:
            until(lambda: last_line(_answers(paths, ledger, quest)))
        assert len(sage.asked) == 48 + (die_at is not None)  # the one that was on its way
        if die_at is not None:
            with monkeypatch.context() as patch:
                patch.setattr(BetweenSteps, "after_step", dying_at(die_at))
                with pytest.raises(Killed):
                    fight(hero)
            hero = resident(paths, ledger)
            assert 0 < hero.tip.step < die_at
        assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)
        assert len(sage.asked) == 48 + (die_at is not None)
    ledger.close()
    return hero.tip.files["model.safetensors"]


def test_asking_and_battle_that_were_killed_ask_nothing_twice_and_end_with_the_same_weights(tmp_path, monkeypatch):
    whole = _weights_after(RealmPaths(tmp_path / "whole"), None, monkeypatch)
    assert _weights_after(RealmPaths(tmp_path / "killed"), 3, monkeypatch) == whole


def _card(folder, url: str, rows: list[dict] | None = None, max_bad_rows: float = 0.01, **settings):
    """A quest's file and card, as `ask` wants them."""
    path = folder / "quest.jsonl"
    rows = rows or [{"question": f"{n}?", "answer": "?"} for n in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    named = Schools(whisper=WhisperSettings(url=url))
    config = Config(max_bad_rows=max_bad_rows, schools=named)
    frozen = freeze(config, Sidecar(**_whisper(url, at_once=1, **settings)))
    report = validate_file(path, frozen, Renderer.load(BUNDLED_TOKENIZER, 256))
    assert report["verdict"] == "accepted", report["reason"]
    (folder / "answers").touch()
    return path, {key: report[key] for key in ("sha256", "form", "rows")} | {"settings": frozen.model_dump()}


TROUBLES = {
    "a key is wanted": (lambda _: (401, {"error": "no"}), r"asks for its key: put it into state/whisper.key"),
    "it leads elsewhere": (
        lambda _: (307, {}),
        r"wants to lead elsewhere, which is not followed; mend schools.whisper.url",
    ),
    "no JSON": (lambda _: (200, b"<html>"), r"is no JSON object; is http://127.0.0.1:\d+ the right address\?"),
    "nonsense": (lambda _: (200, {"choices": [7]}), r'answered what is no chat completion: {"choices":\[7\]}'),
    "too long a prompt": (
        lambda _: (400, {"error": {"message": "2 tokens too many"}}),
        r"answered 400: 2 tokens too many",
    ),
    "too many bytes": (lambda _: (200, completion("x" * (1 << 21))), r"has more than 1,048,576 bytes"),
    "an empty text": (lambda _: (200, completion(" \n")), r"The first: to line 4: it is empty; drop the row"),
    "no text": (lambda _: (200, completion(None)), r"to line 4: it is empty"),
    "no end": (
        lambda _: (200, completion("so", "length")),
        r"to line 4: it was not at its end .*max_new_tokens higher",
    ),
    "a call": (lambda _: (200, completion(None, tool_calls=[{}])), r"to line 4: it calls a tool"),
    "half a thought": (lambda _: (200, completion("<think>a</think>")), r"to line 4: answer.*is empty"),
    "always busy": (lambda _: (503, {"error": "loading"}), r"answered 503: loading"),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_teacher_that_cannot_be_learned_from_is_named_with_line_and_remedy_and_no_answer_is_lost(trouble, tmp_path):
    wrong, words = TROUBLES[trouble]
    with teacher(lambda body: wrong(body) if body["messages"][-1]["content"] == "3?" else "well") as sage:
        path, card = _card(tmp_path, sage.url)
        with pytest.raises(UserError, match=words) as told:
            ask(path, card, tmp_path / "answers", pauses=(0.0,))
        where = f"schools.whisper.url = {sage.url}: "
        assert str(told.value).startswith(where) and "line 4" in str(told.value)
        assert "3 of 8 answers are kept, `quest retry` asks for the others" in str(told.value)
        sage.say = lambda body: "well"
        assert ask(path, card, tmp_path / "answers")["rows"] == 8
        assert [sage.questions.count(f"{n}?") for n in range(8)] == [
            1,
            1,
            1,
            3 if trouble == "always busy" else 2,
            1,
            1,
            1,
            1,
        ]


def test_a_teacher_that_is_down_or_has_no_such_model_is_named(tmp_path):
    with teacher() as sage:
        sage.models = ["sagan", "other"]
        path, card = _card(tmp_path, sage.url)
        with pytest.raises(
            UserError,
            match=r"schools.whisper.model = 'sage': .* no such model; did you mean 'sagan'\?; it lists sagan, other",
        ):
            ask(path, card, tmp_path / "answers")
    with pytest.raises(
        UserError, match=r"The teacher at http://127.0.0.1:\d+ cannot be reached \(asked for its list of models\)"
    ):
        ask(path, card, tmp_path / "answers", pauses=(0.0,))
    path, card = _card(tmp_path, "http://169.254.169.254")
    with pytest.raises(UserError, match=r"leads to 169.254.169.254, which is refused: it is link-local"):
        ask(path, card, tmp_path / "answers", pauses=(0.0,))
    assert (tmp_path / "answers").read_bytes() == b""


def test_a_teacher_that_is_busy_for_a_while_is_asked_again(tmp_path):
    tries = []

    def say(body):
        tries.append(body)
        return (429, {}) if len(tries) % 3 else "well"

    with teacher(say) as sage:
        path, card = _card(tmp_path, sage.url)
        assert ask(path, card, tmp_path / "answers", pauses=(0.0, 0.0))["rows"] == 8 and len(tries) == 24


def test_a_few_rows_whose_answer_cannot_be_trained_are_left_out_as_bad_rows_are(realm, ledger):
    with teacher(lambda body: " " if "5 plus" in body["messages"][-1]["content"] else "well") as sage:
        hero = resident(realm, ledger)
        quest = accept_sums(realm, ledger, "sums", 8, max_bad_rows=0.2, **_whisper(sage.url))
        with asking(realm, ledger) as until:
            until(lambda: ledger.one("SELECT 1 FROM events WHERE code='teacher_answered'"))
    report = TrainingQueue(realm, ledger).find(quest).report["asking"]
    assert (report["rows"], report["left_out"]) == (7, {"6": "it is empty; drop the row, or ask another teacher"})
    assert fight(hero) and ledger.one("SELECT tokens FROM battles")
    (folder,) = realm.prepared.iterdir()
    assert [Prepared(folder).line(row) for row in range(7)] == [1, 2, 3, 4, 5, 7, 8]


def test_a_quest_whose_teacher_fails_three_times_goes_to_failed_and_a_retry_asks_for_the_rest(
    realm, ledger, monkeypatch
):
    monkeypatch.setattr(ask_ahead, "AGAIN_SECONDS", 0.0)
    refuses = [True]

    def say(body):
        return (403, {}) if refuses[0] and "5 plus" in body["messages"][-1]["content"] else "well"

    with teacher(say) as sage, asking(realm, ledger) as until:
        hero = resident(realm, ledger)
        quest = accept_sums(realm, ledger, "sums", 8, **_whisper(sage.url, at_once=1))
        until(lambda: _state(ledger, quest) == "failed")
        report = TrainingQueue(realm, ledger).find(quest).report
        assert "asks for its key" in report["reason"] and "line 6" in report["reason"] and len(report["attempts"]) == 3
        told = ledger.all("SELECT service, level FROM events WHERE code='quest_failed' ORDER BY id")
        assert [tuple(each.values()) for each in told] == [("daemon", "warning")] * 2 + [("daemon", "alert")]
        refuses[0] = False
        QuestActs(realm, ledger, "test").retry(quest)
        until(lambda: last_line(_answers(realm, ledger, quest)))
    assert [sage.questions.count(f"sums {n} plus 1?") for n in range(8)] == [1, 1, 1, 1, 1, 4, 1, 1]
    assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)


def test_a_quest_that_is_cancelled_while_it_is_asked_about_keeps_its_answers_and_is_asked_about_no_more(realm, ledger):
    gate = threading.Event()
    with teacher(
        lambda body: gate.wait(30) and "well" if "3 plus" in body["messages"][-1]["content"] else "well"
    ) as sage:
        with asking(realm, ledger) as until:
            quest = accept_sums(realm, ledger, "sums", 8, **_whisper(sage.url, at_once=1))
            until(lambda: len(sage.asked) == 4)
            QuestActs(realm, ledger, "test").cancel(quest)
            until(lambda: not os.path.exists(realm.asking))
            gate.set()
        assert len(sage.asked) == 4 and _state(ledger, quest) == "failed"
    assert _answers(realm, ledger, quest).read_bytes().count(b"\n") == 3


def test_a_quest_whose_file_is_taken_away_while_it_is_asked_about_stops_nothing(realm, ledger):
    gate = threading.Event()
    with teacher(lambda body: gate.wait(30) and "well") as sage, asking(realm, ledger) as until:
        quest = accept_sums(realm, ledger, "gone", 4, **_whisper(sage.url, at_once=1))
        until(lambda: sage.asked and realm.asking.exists())
        for path in list(realm.queued("normal").iterdir()):
            path.unlink()
        until(lambda: not realm.asking.exists())
        gate.set()
        other = accept_sums(realm, ledger, "other", 4, **_whisper(sage.url))
        until(lambda: last_line(_answers(realm, ledger, other)))
    assert ledger.one("SELECT state FROM jobs WHERE quest=?", (quest,))["state"] == "failed"


def test_answers_that_were_lost_on_the_way_are_asked_for_again(realm, ledger):
    with teacher() as sage, asking(realm, ledger) as until:
        hero = resident(realm, ledger)
        quest = accept_sums(realm, ledger, "sums", 8, **_whisper(sage.url))
        until(lambda: last_line(_answers(realm, ledger, quest)))
        claimed = TrainingQueue(realm, ledger).claim()
        claimed.companion(ANSWERS).unlink()
        fight(hero)
        assert _state(ledger, quest) == "queued"
        until(lambda: last_line(_answers(realm, ledger, quest)))
    assert fight(hero) and checkpoints.holds(hero.tip.trained, quest) and len(sage.asked) == 16


def test_only_the_server_that_config_json_names_is_shown_the_key(realm, ledger):
    realm.whisper_key.write_text("secret")
    with teacher() as sage, asking(realm, ledger, _config("http://127.0.0.1:9")) as until:
        quest = accept_sums(realm, ledger, "sums", 4, **_whisper(sage.url))
        until(lambda: last_line(_answers(realm, ledger, quest)))
    assert set(sage.keys) == {None}


def test_prompts_alone_and_whole_conversations_are_asked_up_to_their_last_answer(tmp_path):
    with teacher() as sage:
        path, card = _card(tmp_path, sage.url, [{"prompt": "Why?", "system": "Be brief."}, {"prompt": "And so?"}])
        assert card["form"] == "prompt" and ask(path, card, tmp_path / "answers")["rows"] == 2
        assert [[turn["content"] for turn in body["messages"]] for body in sage.asked] == [
            ["Be brief.", "Why?"],
            ["And so?"],
        ]
        sage.asked.clear()
        call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
        turns = [
            {"role": "user", "content": "1?"},
            {"role": "assistant", "content": "One.", "reasoning_content": "hm"},
            {"role": "user", "content": "2?"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": "2", "tool_call_id": "c1"},
            {"role": "assistant", "content": "Two."},
        ]
        (tmp_path / "answers").unlink()
        tools = [{"name": "add", "parameters": {}}]
        path, card = _card(tmp_path, sage.url, [{"messages": turns, "tools": tools}], temperature=0.5)
        ask(path, card, tmp_path / "answers")
    (body,) = sage.asked
    called = {**call, "function": {"name": "add", "arguments": '{"a":1}'}}
    assert body["messages"] == [
        turns[0], {"role": "assistant", "content": "One."}, turns[2], {**turns[3], "tool_calls": [called]}, turns[4]
    ]  # fmt: skip
    assert body["tools"] == [{"type": "function", "function": tools[0]}] and (body["temperature"], body["seed"]) == (
        0.5,
        7,
    )


@pytest.mark.parametrize(
    ("settings", "row", "words"),
    [
        ({"url": "http://box", "teacher": "sage", "model": "x"}, {}, "are two teachers; set one of them to null"),
        ({}, {}, "needs a teacher: set schools.whisper.teacher"),
        ({"url": "http://box"}, {}, "schools.whisper.model is not set"),
        ({"url": "http://box", "model": "x", "on_policy": 0.5}, {}, "on_policy needs a teacher beside the hero"),
        ({"url": "http://box", "model": "x"}, {"text": "All."}, "rows with plain text ask nothing"),
        ({"teacher": "sage", "temperature": 0}, {}, "distributions are divided by it"),
        ({"teacher": "sage"}, {"prompt": "1?"}, "rows of no known form"),
    ],
)
def test_settings_that_make_no_teacher_are_refused_at_the_gate(settings, row, words, tmp_path):
    path = tmp_path / "quest.jsonl"
    path.write_text(json.dumps(row or {"question": "1?", "answer": "2."}) + "\n")
    frozen = freeze(Config(schools=Schools(whisper=WhisperSettings(**settings))), Sidecar(school="whisper"))
    report = validate_file(path, frozen, Renderer.load(BUNDLED_TOKENIZER, 256))
    assert report["verdict"] == "rejected" and words in report["reason"]


def test_who_drops_a_file_does_not_say_which_server_is_asked():
    config = Config(schools=Schools(whisper=WhisperSettings(url="http://box/v1", model="sage")))
    with pytest.raises(UserError, match="only the server that config"):
        freeze(config, Sidecar(**_whisper("http://127.0.0.1:8765")))
    assert freeze(config, Sidecar(**_whisper("http://box/v1", max_new_tokens=8))).schools.whisper.max_new_tokens == 8
    assert freeze(config, Sidecar(**_whisper(None))).schools.whisper.url is None


def test_a_realms_own_oracle_may_be_the_teacher(tmp_path):
    with answering(tmp_path / "oracle") as (paths, server, ready):
        another(paths, 0)
        ready()
        settings = {"model": "hero", "max_new_tokens": 3}
        path, card = _card(tmp_path, server.url, [{"prompt": "1?"}, {"prompt": "2?"}], max_bad_rows=1.0, **settings)
        told = ask(path, card, tmp_path / "answers")
    assert told["rows"] == 0 and len(told["left_out"]) == 2  # this one never ends what it says
    assert set(told["left_out"].values()) == {
        "it was not at its end after max_new_tokens; set schools.whisper.max_new_tokens higher"
    }
