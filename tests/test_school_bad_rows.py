"""What no school can use of a file: named by line, field and remedy, set aside to the letter, and the rest is trained."""

import json

import pytest

from core.config import Config
from core.paths import BUNDLED_TOKENIZER
from core.quest import Sidecar, freeze
from core.rendering import Renderer
from core.school_config import Schools
from core.validator import validate_file

ASK, SAY = {"role": "user", "content": "Say red."}, {"role": "assistant", "content": "red."}
QUESTION = {"question": "1 plus 1?", "answer": "2."}
PAIR = {"prompt": "Say red.", "chosen": "red.", "rejected": "Red!"}
LABELLED = {"prompt": "Say red.", "completion": "red.", "label": True}
PROBLEM = {"prompt": "Reverse: abc", "answer": "cba", "skill": "REV"}
REWARDED = {"prompt": "Say red.", "response": "red.", "reward": 1}
TAUGHT, ASKED = {"whisper": {"teacher": "sage"}}, {"whisper": {"url": "http://127.0.0.1:9", "model": "sage"}}
CHATS = [({"question": "1?"}, "answer"), (QUESTION | {"answer": " "}, "answer"), ({"answer": "2."}, "question")]
CASES = {
    "scribe": ("scribe", {}, QUESTION, CHATS),
    "oracle": ("oracle", {}, QUESTION, CHATS),
    "mirror": ("mirror", {}, {"messages": [ASK, SAY]}, [
        ({"messages": [ASK]}, "messages"),
        ({"messages": [ASK, SAY | {"train": False}]}, "messages"),
        ({"messages": [ASK, SAY | {"content": ""}]}, "messages[1].content"),
        ({"question": "1?", "answer": "2."}, "messages"),
    ]),
    "mirror, problems": ("mirror", {}, PROBLEM, [(PROBLEM | {"answer": None}, "answer"), (PROBLEM | {"skill": "LATIN"}, "skill")]),
    "judge, pairs": ("judge", {}, PAIR, [
        (PAIR | {"rejected": "red."}, "rejected"),
        ({"prompt": "Say red.", "chosen": "red."}, "rejected"),
        ({"chosen": "red.", "rejected": "Red!"}, "prompt"),
        (PAIR | {"chosen": ""}, "chosen"),
    ]),
    "judge, labels": ("judge", {}, LABELLED, [
        (LABELLED | {"label": "yes"}, "label"),
        (LABELLED | {"label": None}, "label"),
        (LABELLED | {"completion": ""}, "completion"),
    ]),
    "champion, problems": ("champion", {}, PROBLEM, [
        ({"prompt": "Reverse: abc", "skill": "REV"}, "answer"),
        (PROBLEM | {"answer": ""}, "answer"),
        ({"prompt": "Reverse: abc", "answer": "cba"}, "skill"),
        (PROBLEM | {"prompt": [ASK, SAY]}, "prompt"),
    ]),
    "champion, rewards": ("champion", {}, REWARDED, [
        ({"prompt": "Say red.", "response": "red."}, "reward"),
        (REWARDED | {"reward": "much"}, "reward"),
        (REWARDED | {"response": " "}, "response"),
    ]),
    "whisper": ("whisper", TAUGHT, QUESTION, CHATS),
    "whisper, a server": ("whisper", ASKED, {"prompt": "Say red."}, [
        ({"words": "Say red."}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": [ASK, SAY]}, "prompt"),
    ]),
}  # fmt: skip


@pytest.fixture(scope="module")
def renderer():
    return Renderer.load(BUNDLED_TOKENIZER, 256)


@pytest.mark.parametrize("case", CASES)
def test_a_row_that_its_school_cannot_use_is_named_and_nothing_is_lost(case, renderer, tmp_path):
    name, schools, good, wrong = CASES[case]
    lines = [json.dumps(row).encode() for row in [*[good] * 20, *(row for row, _ in wrong)]]
    path, aside = tmp_path / "quest.jsonl", tmp_path / "quest.bad.jsonl"
    path.write_bytes(b"\n".join(lines) + b"\n")
    own, sidecar = Schools.model_validate(schools), Sidecar(school=name)  # the config's: no sidecar may name a server
    settings = freeze(Config(max_bad_rows=0.5, schools=own), sidecar)
    report = validate_file(path, settings, renderer, aside)
    assert (report["verdict"], report["school"], report["rows"], report["bad_rows"]) == (
        "accepted",
        name,
        20,
        len(wrong),
    )
    found = [(error["line"], error["field"]) for error in report["errors"]]
    assert found == [(21 + place, field) for place, (_, field) in enumerate(wrong)]
    assert all(error["reason"] and error["remedy"] for error in report["errors"])
    assert aside.read_bytes() == b"\n".join(lines[20:]) + b"\n"
    strict = validate_file(path, freeze(Config(schools=own), sidecar), renderer, aside)
    assert strict["verdict"] == "rejected" and "The first: line 21" in strict["reason"]
    assert path.read_bytes() == b"\n".join(lines) + b"\n"
