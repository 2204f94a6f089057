"""The bundled tokenizer and its chat template, through the library and as a user's AutoTokenizer sees them."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from core.paths import BUNDLED_TOKENIZER

RAW = Tokenizer.from_file(str(BUNDLED_TOKENIZER / "tokenizer.json"))
CIRCLED = "⓪①②③④⑤⑥⑦⑧⑨"
any_text = st.text(st.characters(exclude_categories=["Cs"]))

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"name": "weather", "arguments": {"city": "Köln"}}
LONG = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Is it raining?"},
    {"role": "assistant", "content": "", "reasoning_content": "Look it up.", "tool_calls": [{"function": CALL}]},
    {"role": "tool", "content": "rain"},
    {"role": "tool", "content": "13 degrees"},
    {"role": "assistant", "content": "It is.", "reasoning_content": "Two results."},
    {"role": "user", "content": [{"type": "text", "text": "Thank "}, {"type": "text", "text": "you."}]},
    {"role": "assistant", "content": "Gladly."},
]


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BUNDLED_TOKENIZER)


@pytest.fixture(scope="module")
def render(tokenizer):
    def render(messages, **settings):
        return tokenizer.apply_chat_template(messages, tokenize=False, **settings)

    return render


def test_there_are_4096_entries_numbered_without_a_gap():
    assert sorted(RAW.get_vocab().values()) == list(range(4096))
    assert (BUNDLED_TOKENIZER / "tokenizer.json").stat().st_size < 400_000


@given(any_text)
def test_any_text_comes_back_as_its_nfc_form(text):
    assert RAW.decode(RAW.encode(text).ids, skip_special_tokens=False) == unicodedata.normalize("NFC", text)


@given(st.text(st.sampled_from("0123456789" + CIRCLED), min_size=1))
def test_digits_and_circled_digits_are_one_token_each(number):
    assert len(RAW.encode(number).ids) == len(number)


@pytest.mark.parametrize("symbol", "★☆▲△●○■□◆◇♠♣♥♦🤔💭🧠🛑⛔🏁")
def test_symbols_of_keys_and_of_thinking_are_one_token_each(symbol):
    assert len(RAW.encode(symbol).ids) == 1


def test_words_take_their_leading_space_and_lines_and_contractions_stand_apart():
    def pieces(text):
        return [text[start:end] for _, (start, end) in RAW.pre_tokenizer.pre_tokenize_str(text)]

    assert pieces("She's got  12 apples.\n\nHow?") == [
        *("She", "'s", " got", " ", " ", "1", "2", " apples", ".", "\n\n", "How", "?")
    ]


def test_turn_marks_are_special_and_tags_are_plain_text(tokenizer):
    for mark in ("<|endoftext|>", "<|im_start|>", "<|im_end|>"):
        ids = RAW.encode(mark).ids
        assert len(ids) == 1 and tokenizer.decode(ids, skip_special_tokens=True) == ""
    for word in ("think", "tool_call", "tool_response"):
        for tag in (f"<{word}>", f"</{word}>"):
            ids = RAW.encode(tag).ids
            assert len(ids) == 1 and tokenizer.decode(ids, skip_special_tokens=True) == tag


def test_auto_tokenizer_loads_it_with_its_settings(tokenizer):
    assert tokenizer.is_fast and len(tokenizer) == 4096
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.bos_token is None
    assert tokenizer.model_max_length == 32768


@given(text=any_text)
def test_auto_tokenizer_agrees_with_the_raw_encoding(tokenizer, text):
    text = f"<|im_start|>user\n{text} it 's <think> , . !"
    ids = RAW.encode(text).ids
    assert tokenizer(text)["input_ids"] == ids
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_a_plain_conversation_is_chatml_without_a_default_system_turn(render):
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    turns = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHo<|im_end|>\n"
    assert render(messages) == turns
    assert render(messages[:1], add_generation_prompt=True) + "Ho<|im_end|>\n" == turns
    assert render(LONG[:1]) == "<|im_start|>system\nBe kind.<|im_end|>\n"


@pytest.mark.parametrize("tools", [None, [WEATHER]])
def test_a_conversation_begins_with_the_rendering_of_its_beginning(render, tools):
    whole = render(LONG, tools=tools)
    for end in range(1, len(LONG)):
        if LONG[end]["role"] == "tool" == LONG[end - 1]["role"]:
            continue  # tool results in a row share a turn, so the cut would fall inside it
        assert whole.startswith(render(LONG[:end], tools=tools))
        if LONG[end]["role"] == "assistant":
            assert whole.startswith(render(LONG[:end], tools=tools, add_generation_prompt=True))


def test_reasoning_is_shown_in_every_turn_that_has_it_and_nowhere_else(render):
    whole = render(LONG)
    assert "<|im_start|>assistant\n<think>\nLook it up.\n</think>\n\n<tool_call>" in whole
    assert "<|im_start|>assistant\n<think>\nTwo results.\n</think>\n\nIt is.<|im_end|>" in whole
    assert "<|im_start|>assistant\nGladly.<|im_end|>" in whole
    assert whole.count("<think>") == 2


def test_enable_thinking_changes_nothing(render):
    unasked = render(LONG, add_generation_prompt=True)
    assert all(render(LONG, add_generation_prompt=True, enable_thinking=wish) == unasked for wish in (True, False))


def test_tools_are_listed_in_the_system_turn(render):
    for messages in (LONG, LONG[1:]):
        system, rest = render(messages, tools=[WEATHER, WEATHER]).split("<|im_end|>\n", 1)
        assert system.startswith("<|im_start|>system\n") and rest.startswith("<|im_start|>user\nIs it")
        listed = system.split("<tools>\n")[1].split("\n</tools>")[0].split("\n")
        assert [json.loads(line) for line in listed] == [WEATHER, WEATHER]
        assert ("Be kind.\n\n" in system) == (messages is LONG)


@pytest.mark.parametrize("arguments", [CALL["arguments"], json.dumps(CALL["arguments"], ensure_ascii=False)])
@pytest.mark.parametrize("wrap", [lambda call: call, lambda call: {"type": "function", "function": call}])
def test_a_call_is_rendered_alike_however_it_is_written(render, arguments, wrap):
    call = wrap({"name": "weather", "arguments": arguments})
    block = '<tool_call>\n{"name": "weather", "arguments": {"city": "Köln"}}\n</tool_call>'
    said = render([*LONG[1:2], {"role": "assistant", "content": "Wait.", "tool_calls": [call, call]}])
    assert said.endswith(f"<|im_start|>assistant\nWait.\n{block}\n{block}<|im_end|>\n")
    silent = render([*LONG[1:2], {"role": "assistant", "content": None, "tool_calls": [call]}])
    assert silent.endswith(f"<|im_start|>assistant\n{block}<|im_end|>\n")


def test_tool_results_in_a_row_share_one_user_turn(render):
    first, second = (f"<tool_response>\n{text}\n</tool_response>" for text in ("rain", "13 degrees"))
    assert f"<|im_end|>\n<|im_start|>user\n{first}\n{second}<|im_end|>\n<|im_start|>assistant\n" in render(LONG)


def test_parts_that_are_not_text_are_refused(render):
    with pytest.raises(Exception, match="part of type image"):
        render([{"role": "user", "content": [{"type": "image", "url": "cat.png"}]}])


def test_the_template_does_not_depend_on_how_blocks_are_trimmed():
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    source = (BUNDLED_TOKENIZER / "chat_template.jinja").read_text(encoding="utf-8")
    trimmed, plain = (
        ImmutableSandboxedEnvironment(trim_blocks=trim, lstrip_blocks=trim)
        .from_string(source)
        .render(messages=LONG, tools=[WEATHER], add_generation_prompt=True)
        for trim in (True, False)
    )
    assert trimmed == plain
