"""Lines that nobody would write on purpose: the row validator names what is wrong with each, quickly, and never falls over.

FUZZ_INPUTS=200000 python -m pytest tests/test_row_fuzz.py -k falls     tries more of them.
"""

import os
import random
import time

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.formats import FORMS, BadRow, strict_json
from core.paths import BUNDLED_TOKENIZER
from core.quest_file import parse, read_lines, to_row
from core.rendering import Rendered, Renderer

INPUTS = int(os.environ.get("FUZZ_INPUTS", "9000"))
LONGEST_SECONDS = 0.1
FIELDS = sorted({field for form in FORMS for need in form.needs for field in need} | {
    "tools", "system", "history", "input", "role", "content", "from", "value", "tool_calls", "function", "arguments", "name",
    "reasoning_content", "train", "weight", "level", "type"})  # fmt: skip
WORDS = ["user", "assistant", "system", "tool", "human", "gpt", "", " ", "<think>", "</think>", "<|im_end|>", "\ud83d", "\0", "🐉",
         "{", "[", "a" * 300, "\u202e", "\ue000", "\uf8ff"]  # fmt: skip
SCALARS = [None, True, False, 0, -1, 1e308, 10**30, 0.5]
HOSTILE = [
    b"NaN", b"Infinity", b"1e999", b"-1e999",
    b"1" * 5000, b"1." + b"0" * 5000, b"[" * 2000, b'{"a":' * 2000, b"\xef\xbb\xbf", b"\0", b"\xff",
    b'"\\ud800"', b'"\\u0000"', b"\xed\xa0\x80", b'{"text":1,"text":"b"}', b"\r", b"\x0b", b"/*c*/", b"'a'", b"+1", b"01", b"1_0",
]  # fmt: skip


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer.load(BUNDLED_TOKENIZER, 256)


def judged(line: bytes, renderer: Renderer) -> None:
    """What the validator does with a line is done soon; what it was the garbage collector's turn in is done again."""
    assert any(seconds_of(line, renderer) < LONGEST_SECONDS for _ in range(3)), line[:200]


def seconds_of(line: bytes, renderer: Renderer) -> float:
    """What the validator does with a line, in every form; only a BadRow may say no."""
    began = time.process_time()
    values = parse(line)
    results = [values] if isinstance(values, BadRow) else [to_row(form, values, {}) for form in FORMS]
    for row in results:
        if not isinstance(row, BadRow):
            (row,) = renderer.render([row])
            assert isinstance(row, Rendered | BadRow)
        if isinstance(row, BadRow):
            assert row.reason and row.remedy and (row.value is None or len(row.value) <= 80)
            orjson.dumps([row.field, row.reason, row.value, row.remedy])  # as the report is written
    return time.process_time() - began


values = st.recursive(
    st.sampled_from(SCALARS) | st.sampled_from(WORDS) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS), inner, max_size=5),
    max_leaves=12,
)
objects = st.dictionaries(st.sampled_from(FIELDS), values, max_size=6)


@settings(
    max_examples=max(INPUTS // 30, 1),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(row=objects)
def test_an_object_of_known_fields_and_any_values_falls_into_a_row_or_a_reason(renderer, row):
    judged(as_json(row), renderer)


def as_json(row) -> bytes:
    import json

    return json.dumps(row).encode()  # lone surrogates become escapes, as careless exporters write them


def mutated(dice: random.Random) -> bytes:
    """A good row with bytes taken out, put in, doubled, or replaced by something hostile."""
    good = {
        "messages": [{"role": "user", "content": dice.choice(WORDS)}, {"role": "assistant", "content": "Yes."}],
        "n": [1, {"a": 2}],
    }
    line = bytearray(
        orjson.dumps(good) if dice.random() < 0.7 and "\ud83d" not in good["messages"][0]["content"] else as_json(good)
    )
    for _ in range(dice.randint(1, 4)):
        place, end = sorted((dice.randrange(len(line) + 1), dice.randrange(len(line) + 1)))
        match dice.randrange(4):
            case 0:
                line[place : place + dice.randrange(8)] = b""
            case 1:
                line[place:place] = dice.choice(HOSTILE)
            case 2:
                line[place:place] = bytes(dice.randrange(256) for _ in range(dice.randrange(6)))
            case _:
                line[place:place] = line[place:end][:100]
    return bytes(line)


def test_a_row_with_any_bytes_changed_never_falls_over(renderer):
    dice = random.Random(11)
    judged(as_json({"text": "warm"}), renderer)
    for _ in range(INPUTS):
        judged(mutated(dice), renderer)


@pytest.mark.parametrize(
    "line",
    [
        b'{"text": "a", "n": %s}' % hostile
        for hostile in (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"[" * 65 + b"]" * 65)
    ],
)
def test_what_is_no_json_or_too_deep_is_refused(line):
    with pytest.raises(BadRow):
        strict_json(line)


def test_a_number_of_five_thousand_digits_costs_nothing():
    began = time.process_time()
    parse(b'{"text": "a", "n": ' + b"9" * 5_000_000 + b"}")
    assert time.process_time() - began < 1


def test_only_the_beginning_of_a_line_without_end_is_read(tmp_path):
    path = tmp_path / "endless.jsonl"
    with open(path, "wb") as file:
        file.write(b'{"text": "')
        file.truncate(1 << 30)  # a gigabyte, sparse
    read = 0

    class Counter:
        def update(self, data: bytes) -> None:
            nonlocal read
            read += len(data)

    number, line, problem = next(read_lines(path, Counter()))
    assert number == 1 and "longer than 8 MiB" in problem.reason
    assert len(line) == read == (8 << 20) + 1
