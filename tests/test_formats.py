"""Every form of row is told apart and read into one normal form; whatever is wrong with a row is named by its field."""

import pickle
import subprocess
import sys

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UserError
from core.formats import FORMS, MAX_LINE_BYTES, BadRow, Conversation, Preference, Problem, detect, read, strict_json
from core.formats import form as form_named

ASK, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
PLAIN = (ASK, REPLY)
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "sky"}}}
LOOK = {"type": "function", "function": {"name": "look", "parameters": {}}}

GOOD = {  # for every form, rows that are the same conversation
    "messages": [
        {"messages": [ASK, REPLY]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "H"}, "i"]}, REPLY]},
        {"messages": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "label": "topic 7"},
    ],
    "conversations": [
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "tools": "[]"},
        {"conversations": [ASK, REPLY], "system": ""},
    ],
    "alpaca": [
        {"instruction": "Hi", "input": "", "output": "Hello"},
        {"instruction": "Hi", "output": "Hello", "history": [], "system": None, "text": "unused"},
    ],
    "completion": [
        {"prompt": "Hi", "completion": "Hello"},
        {"prompt": "Hi", "response": "Hello", "completion": None},
        {"prompt": [ASK], "completion": [REPLY]},
        {"prompt": [ASK], "response": "Hello"},
    ],
    "question": [{"question": "Hi", "answer": "Hello"}],
}
EXAMPLES = {name: rows[0] for name, rows in GOOD.items()} | {
    "text": {"text": "Once upon a time"},
    "preference": {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    "label": {"prompt": "Hi", "completion": "Hello", "label": False},
    "reward": {"prompt": "Hi", "response": "Hello", "reward": 0.5},
    "correction": GOOD["messages"][0] | {"sparring": "spot"},
    "problem": {"prompt": "1 + 1", "answer": "10", "skill": "BIN"},
}


def read_any(row):
    return read(detect([row]), row)


def with_turns(*turns):
    return {"messages": list(turns)}


@pytest.mark.parametrize(("name", "row"), [(name, row) for name, rows in GOOD.items() for row in rows])
def test_rows_of_every_chat_form_become_the_same_conversation(name, row):
    assert detect([row]).name == name
    assert read_any(row) == Conversation(PLAIN)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_every_form_is_detected_and_read_from_its_example(form):
    assert detect([EXAMPLES[form.name]]) is form_named(form.name) is form
    assert read(form, EXAMPLES[form.name])


def test_plain_text_is_kept_to_the_letter():
    assert read_any({"text": " a\n"}) == Conversation(text=" a\n")


def test_system_text_tools_and_history_come_first():
    row = {"instruction": "Add", "input": "1 2", "output": "3", "system": "Be brief", "history": [["Hi", "Hello"]]}
    said = [f"{turn['role']}: {turn['content']}" for turn in read_any(row).messages]
    assert said == ["system: Be brief", "user: Hi", "assistant: Hello", "user: Add\n1 2", "assistant: 3"]


def test_a_thought_at_the_start_of_an_answer_becomes_reasoning():
    (_, answer) = read_any({"prompt": "Hi", "completion": "<think>\nwell\n</think>\n\nHello"}).messages
    assert answer == {"role": "assistant", "content": "Hello", "reasoning_content": "well"}


@pytest.mark.parametrize("said", ["<think>\n\n</think>\n\nHello", "Hello <think>later</think>", "<think>open"])
def test_empty_late_and_open_thoughts_are_no_reasoning(said):
    (_, answer) = read_any({"prompt": "Hi", "completion": said}).messages
    assert answer == {"role": "assistant", "content": "Hello" if said.startswith("<think>\n") else said}


def test_sharegpt_calls_and_observations_become_tool_turns():
    row = {
        "conversations": [
            {"from": "human", "value": "Up?"},
            {"from": "gpt", "value": "Let me look."},
            {"from": "function_call", "value": '{"name": "look", "arguments": {"at": "sky"}}'},
            {"from": "observation", "value": "blue"},
            {"from": "function_call", "value": '{"name": "look", "arguments": "{\\"at\\": \\"sky\\"}"}'},
            {"from": "tool", "value": ""},
            {"from": "gpt", "value": "Blue."},
        ],
        "tools": '[{"name": "look", "parameters": {}}]',
    }
    conversation = read_any(row)
    assert conversation.tools == (LOOK,)
    assert conversation.messages[1] == {"role": "assistant", "content": "Let me look.", "tool_calls": [CALL]}
    assert conversation.messages[3] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert [turn["role"] for turn in conversation.messages] == ["user", *["assistant", "tool"] * 2, "assistant"]


def test_turns_may_be_kept_out_of_training_by_train_or_weight():
    quiet = [{**REPLY, "train": False}, {**REPLY, "weight": 0}, {**REPLY, "train": True, "weight": 0}]
    messages = read_any(with_turns(ASK, quiet[0], ASK, quiet[1], ASK, quiet[2])).messages
    assert [turn.get("train", True) for turn in messages[1::2]] == [False, False, True]


def test_the_answers_inside_a_prompt_are_context():
    row = {"prompt": [ASK, REPLY, ASK], "completion": [REPLY]}
    assert [turn.get("train", True) for turn in read_any(row).messages[1::2]] == [False, True]


PREFERENCES = [
    {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    {"prompt": [ASK], "chosen": [REPLY], "rejected": [{"role": "assistant", "content": "No"}]},
    {"chosen": [ASK, REPLY], "rejected": [ASK, {"role": "assistant", "content": "No"}]},
    {"prompt": "Hi", "chosen": [ASK, REPLY], "rejected": [ASK, {"role": "assistant", "content": "No"}]},
    {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello"},
     "rejected": {"from": "gpt", "value": "No"}},
]  # fmt: skip


@pytest.mark.parametrize("row", PREFERENCES)
def test_preferences_share_their_prompt(row):
    assert detect([row]).school == "judge"
    preference = read_any(row)
    assert preference == Preference((ASK,), (REPLY,), ({"role": "assistant", "content": "No"},))
    assert preference.sides[0] == Conversation(PLAIN)


def test_a_label_speaks_of_the_last_answer_only():
    verdict = read_any({"messages": [ASK, REPLY, ASK, REPLY], "label": False})
    assert verdict.label is False
    assert [turn.get("train", True) for turn in verdict.conversation.messages[1::2]] == [False, True]


def test_problems_carry_what_their_grader_needs():
    problem = read_any({"prompt": "1 + 1", "answer": 10, "grader": "number", "level": 3})
    assert problem == Problem(({"role": "user", "content": "1 + 1"},), "10", grader="number", level=3)


def test_the_majority_of_the_first_rows_decides_and_ties_go_to_the_earlier_form():
    text, question = {"text": "x"}, {"question": "x", "answer": "y"}
    assert detect([text, text, question, 7]).name == "text"
    assert detect([text, question]).name == "question"
    assert detect([question] * 100 + [text] * 1000).name == "question"
    with pytest.raises(BadRow) as caught:
        read(form_named("text"), question)
    assert caught.value.field == "text" and "question" in caught.value.remedy


def test_columns_are_renamed_before_anything_else():
    row, columns = {"ask": "Hi", "reply": "Hello", "text": "x"}, {"ask": "prompt", "reply": "completion"}
    assert read(detect([row], columns), row, columns) == Conversation(PLAIN)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"instuction": "a", "output": "b"}], "alpaca, which also needs instruction (like 'instuction')"),
        ([{"mesages": []}], "messages (like 'mesages')"),
        ([{"prompt": "a", "answer": "b"}], "problem, which also needs"),
        ([{}], "fields none"),
        ([[], "x"], "no row is a JSON object"),
        ([], "no row is a JSON object"),
    ],
)
def test_rows_of_no_form_are_refused_with_fields_and_nearest_form(rows, said):
    with pytest.raises(UserError) as caught:
        detect(rows)
    assert said in str(caught.value)


def test_a_label_false_row_is_never_imitated():
    assert detect([{**with_turns(ASK, REPLY), "label": False}]).school == "judge"
    for name, rows in GOOD.items():
        with pytest.raises(BadRow) as caught:
            read(form_named(name), {**rows[0], "label": False})
        assert caught.value.field == "label"


def calling(arguments):
    return {**REPLY, "tool_calls": [{"name": "look", "arguments": arguments}]}


BAD_ROWS = [
    ({"messages": None}, "messages"),
    ({"messages": []}, "messages"),
    ({"messages": "Hi"}, "messages"),
    ({"messages": [ASK, REPLY] * 257}, "messages"),
    (with_turns(ASK, "Hello"), "messages[1]"),
    (with_turns(ASK, {"role": "assistent", "content": "x"}), "messages[1].role"),
    (with_turns(ASK, {"content": "x"}), "messages[1].from"),
    (with_turns({"role": 1, "content": "x"}, REPLY), "messages[0].role"),
    (with_turns(REPLY), "messages[0]"),
    (with_turns({"role": "system", "content": "x"}, REPLY), "messages[1]"),
    (with_turns(ASK, ASK, REPLY), "messages[1]"),
    (with_turns(ASK, REPLY, REPLY), "messages[2]"),
    (with_turns(ASK, {"role": "system", "content": "x"}, REPLY), "messages[1]"),
    (with_turns(ASK, {"role": "tool", "content": "x"}, REPLY), "messages[1]"),
    (with_turns(ASK, REPLY, {"role": "tool", "content": "x"}, ASK), "messages[3]"),
    (with_turns(ASK), "messages"),
    (with_turns(ASK, REPLY, ASK), "messages"),
    (with_turns(ASK, {**REPLY, "train": False}), "messages"),
    (with_turns(ASK, {**REPLY, "train": "no"}), "messages[1].train"),
    (with_turns(ASK, {**REPLY, "weight": 2}), "messages[1].weight"),
    (with_turns({"role": "user", "content": " \n"}, REPLY), "messages[0].content"),
    (with_turns({"role": "user"}, REPLY), "messages[0].content"),
    (with_turns({"role": "user", "content": 7}, REPLY), "messages[0].content"),
    (with_turns({"role": "user", "content": [{"type": "image_url"}]}, REPLY), "messages[0].content[0]"),
    (with_turns({"role": "user", "content": [{"type": "text"}]}, REPLY), "messages[0].content[0].text"),
    (with_turns(ASK, {"role": "assistant", "content": ""}), "messages[1].content"),
    (with_turns(ASK, {"role": "assistant", "content": None}), "messages[1].content"),
    (with_turns(ASK, {"role": "assistant", "content": "<think>x</think>"}), "messages[1].content"),
    (with_turns(ASK, {**REPLY, "reasoning_content": 5}), "messages[1].reasoning_content"),
    (with_turns(ASK, {"role": "assistant", "content": "\ud800"}), "messages[1].content"),
    (with_turns(ASK, {**REPLY, "tool_calls": "look"}), "messages[1].tool_calls"),
    (with_turns(ASK, {**REPLY, "tool_calls": [{}]}), "messages[1].tool_calls[0]"),
    (with_turns(ASK, calling("{")), "messages[1].tool_calls[0].arguments"),
    (with_turns(ASK, calling([])), "messages[1].tool_calls[0].arguments"),
    (with_turns(ASK, calling({"\udfff": 1})), "messages[1].tool_calls[0]"),
    ({**with_turns(ASK, REPLY), "tools": "{"}, "tools"),
    ({**with_turns(ASK, REPLY), "tools": 5}, "tools"),
    ({**with_turns(ASK, REPLY), "tools": [{}]}, "tools[0]"),
    ({**with_turns(ASK, REPLY), "tools": "[" * 65 + "]" * 65}, "tools"),
    ({**with_turns(ASK, REPLY), "system": ["x", 1]}, "system[1]"),
    ({"conversations": [{"from": "human", "value": "x"}, {"from": "bot", "value": "y"}]}, "conversations[1].from"),
    ({"conversations": [{"from": "human", "value": "x"}, {"from": "gpt"}]}, "conversations[1].value"),
    ({"conversations": [{"from": "human", "value": "x"}, {"from": "function_call", "value": "look"}]},
     "conversations[1].value"),
    ({"instruction": "", "output": "x"}, "instruction"),
    ({"instruction": "x", "output": ""}, "output"),
    ({"instruction": "x", "output": "y", "input": 3}, "input"),
    ({"instruction": "x", "output": "y", "history": "z"}, "history"),
    ({"instruction": "x", "output": "y", "history": [["z"]]}, "history[0]"),
    ({"instruction": "x", "output": "y", "history": [["z", ""]]}, "history[0][1]"),
    ({"prompt": {"a": 1}, "completion": "x"}, "prompt"),
    ({"prompt": [ASK, REPLY], "completion": "x"}, "completion"),
    ({"prompt": "x", "response": [ASK]}, "response[0]"),
    ({"question": "x", "answer": 7}, "answer"),
    ({"text": ""}, "text"),
    ({"text": ["a", 1]}, "text[1]"),
    ({"prompt": "x", "chosen": "y", "rejected": "y"}, "rejected"),
    ({"chosen": "x", "rejected": "y"}, "prompt"),
    ({"chosen": [ASK, REPLY], "rejected": [{"role": "user", "content": "?"}, REPLY]}, "rejected"),
    ({"prompt": "x", "chosen": "y", "rejected": None}, "rejected"),
    ({"prompt": "x", "chosen": [ASK], "rejected": "y"}, "chosen"),
    ({"prompt": "x", "response": "y", "reward": "high"}, "reward"),
    ({"prompt": "x", "response": "y", "reward": float("nan")}, "reward"),
    ({"prompt": "x", "response": "y", "reward": True}, "reward"),
    ({"prompt": "x", "response": "y", "reward": 1e39}, "reward"),
    ({"prompt": [ASK, REPLY], "answer": "x", "skill": "BIN"}, "prompt"),
    ({"prompt": "x", "answer": "", "skill": "BIN"}, "answer"),
    ({"prompt": "x", "answer": "y", "skill": 4}, "skill"),
    ({"prompt": "x", "answer": "y", "skill": "BIN", "level": "1"}, "level"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "field"), BAD_ROWS)
def test_a_bad_row_is_named_by_its_field(row, field):
    form = next(form for form in FORMS if form.matches(row.keys()))
    with pytest.raises(BadRow) as caught:
        read(form, row)
    assert caught.value.field == field
    assert len(caught.value.value or "") <= 80
    str(caught.value).encode()


@pytest.mark.parametrize("row", [None, 7, "x", ["x"]])
def test_a_row_that_is_no_object_is_a_bad_row(row):
    with pytest.raises(BadRow):
        read(FORMS[0], row)


def test_an_unknown_role_is_answered_with_the_nearest_one():
    with pytest.raises(BadRow, match="did you mean 'assistant'"):
        read_any(with_turns(ASK, {"role": "assistent", "content": "x"}))


BAD_LINES = [
    (b"", "empty"),
    (b"{", "column 2"),
    (b'{"a": 1,}', "column 8"),
    (b'{"a": NaN}', "NaN and Infinity"),
    (b'{"a": -Infinity}', "NaN and Infinity"),
    (b'{"a": 1e999}', "infinity"),
    (b'{"a": "\\ud800"}', "surrogate"),
    (b'{"a": "\xff"}', "byte 8"),
    (b'{"a": "\xed\xa0\x80"}', "byte 8"),
    (b'{"a": 1} {"b": 2}', "column 10"),
    (b'["a"]', "not a JSON object"),
    (b"7", "not a JSON object"),
    (b'{"a":' * 64 + b"[]" + b"}" * 64, "nested"),
    (b'{"a":' * 5000 + b"1" + b"}" * 5000, "depth"),
    (b'{"a": "' + b"x" * MAX_LINE_BYTES + b'"}', "8 MiB"),
]


@pytest.mark.parametrize(("line", "said"), BAD_LINES, ids=lambda value: str(value)[:24])
def test_a_line_that_is_not_strict_json_is_refused_where_it_goes_wrong(line, said):
    with pytest.raises(BadRow, match=said) as caught:
        strict_json(line)
    assert caught.value.field == "line"


def test_lines_at_the_limits_are_accepted_and_of_duplicate_keys_the_last_wins():
    assert strict_json(b'{"a":' * 64 + b"1" + b"}" * 64)
    assert strict_json(orjson.dumps({"a": "[" * 1000}))
    assert strict_json(b'{"a": 1, "a": 2}\r\n') == {"a": 2}


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: f'{{"a": {text}}}'.encode(errors="replace")))
def test_any_bytes_are_an_object_or_a_bad_row(line):
    try:
        assert isinstance(strict_json(line), dict)
    except BadRow as problem:
        str(problem).encode()


FIELDS = sorted({field for form in FORMS for need in form.needs for field in need} | {"system", "tools", "history"})
KEYS = st.sampled_from(["role", "content", "from", "value", "tool_calls", "name", "arguments", "type"])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([ASK, REPLY])
ANYTHING = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6), st.sampled_from(FORMS))
def test_any_object_is_a_row_or_a_bad_row(row, form):
    try:
        assert read(form, row) is not None
    except BadRow as problem:
        assert problem.field and problem.reason
        str(problem).encode()


def test_bad_rows_cross_process_borders():
    problem = BadRow("text", "is empty", "", "drop it")
    assert str(pickle.loads(pickle.dumps(problem))) == str(problem)


def test_reading_rows_imports_neither_torch_nor_transformers():
    code = "import sys, core.formats, core.rendering; print({'torch', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
