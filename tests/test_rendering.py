"""What is trained is what inference sees: masks, sharing, special tokens, truncation, for three kinds of template."""

import json
import re
import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat_template import ChatTemplate, TemplateFailed
from core.errors import UserError
from core.formats import BadRow, Conversation, detect, read
from core.rendering import Renderer
from core.row_preview import rendered_runs
from core.rows import learning

MICRO = Path(__file__).parents[1] / "core" / "assets" / "tokenizer"
END = "<|im_end|>"

# Traits of Qwen3's template: reasoning of turns before the last question is dropped, the last turn always has a think
# block, and with thinking off the prompt ends in an empty one.
FORGETFUL = """
{%- set ns = namespace(asked=-1) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}{% endfor %}
{%- if tools %}{{ '<|im_start|>system\n' + tools | tojson + '<|im_end|>\n' }}{% endif %}
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- if loop.index0 > ns.asked and (loop.last or m.reasoning_content) %}
            {{- '<think>\n' + (m.reasoning_content or '').strip('\n') + '\n</think>\n\n' }}
        {%- endif %}
        {{- m.content.lstrip('\n') }}
        {%- for call in m.tool_calls or [] %}
            {{- '\n<tool_call>\n' + call.function | tojson + '\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + ('user' if m.role == 'tool' else m.role) + '\n' + m.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}
{%- endif %}
"""
# Knows no reasoning and no tools, marks assistant text as transformers allows, and puts no newline after a turn.
PLAIN = """
{%- for m in messages %}<|im_start|>{{ m.role }}
{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}
{%- else %}{{ m.content }}<|im_end|>{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
OWN = (MICRO / "chat_template.jinja").read_text(encoding="utf-8")
TEMPLATES = {"micro": OWN, "forgetful": FORGETFUL, "plain": PLAIN}


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A model folder for each template, with the micro hero's tokenizer."""
    made = {}
    for name, template in TEMPLATES.items():
        made[name] = tmp_path_factory.mktemp(name)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (made[name] / file).write_bytes((MICRO / file).read_bytes())
        (made[name] / "chat_template.jinja").write_text(template, encoding="utf-8")
    return made


@pytest.fixture(scope="session")
def renderers(folders):
    return {name: Renderer.load(folder, 4096) for name, folder in folders.items()}


@pytest.fixture(scope="session")
def reference(folders):
    transformers = pytest.importorskip("transformers")
    return {name: transformers.AutoTokenizer.from_pretrained(folder) for name, folder in folders.items()}


def chat(*said, **last):
    """A conversation of user and assistant in turn; `last` is added to its last turn."""
    turns = [{"role": ("user", "assistant")[place % 2], "content": words} for place, words in enumerate(said)]
    return Conversation((*turns[:-1], {**turns[-1], **last}))


def one(renderer, row):
    rendered = renderer.render([row])[0]
    if isinstance(rendered, BadRow):
        raise rendered
    return rendered.sequences


def trained_runs(renderer, sequences):
    """(tokens before it, its tokens) of every trained run."""
    for sequence in sequences:
        edges = np.flatnonzero(np.diff(np.concatenate(([0], sequence.trained.astype(np.int8), [0]))))
        for begin, end in edges.reshape(-1, 2):
            yield sequence.input_ids[:begin].tolist(), sequence.input_ids[begin:end].tolist()


def same(text):
    return unicodedata.normalize("NFC", text)  # as the tokenizer does


# Properties

LITERALS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<|im_start|>assistant\n"]
SCRAPS = [*LITERALS, "<|im_", "end|>", "</think>", "<tool_call>", "\n", "\n\n", " ", "é", "e\u0301", "\ue000", "12",
          "Hello", " world", "{", "'s", "界", "🙂", "\ue0001\ue000"]  # fmt: skip
LETTERS = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
WORDS = st.lists(st.sampled_from(SCRAPS) | LETTERS, min_size=1, max_size=6).map("".join)
SAID = WORDS.filter(lambda words: words.strip() and not words.lstrip().startswith(("<think>", "</think>")))
CHATS = st.lists(st.tuples(SAID, SAID, st.booleans()), min_size=1, max_size=4)


def conversation(exchanges, thought=""):
    """`exchanges`: question, answer, and whether `thought` came before it."""
    turns = []
    for question, answer, thoughtful in exchanges:
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        if thought and thoughtful:
            turns[-1]["reasoning_content"] = thought
    return Conversation(tuple(turns))


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(exchanges=CHATS, thought=st.sampled_from(["", "so it is", "a\n\nb"]))
def test_exactly_words_and_end_of_turn_are_trained_after_exactly_the_prompt(name, renderers, exchanges, thought):
    renderer, row = renderers[name], conversation(exchanges, thought)
    runs = list(trained_runs(renderer, one(renderer, row)))
    assert len(runs) == len(exchanges)
    for place, (before, tokens) in enumerate(runs):
        turn = row.messages[2 * place + 1]
        reasoning = turn.get("reasoning_content")
        strips = name == "forgetful" or (name == "micro" and reasoning)
        words = turn["content"].lstrip("\n") if strips else turn["content"]
        words = f"<think>\n{reasoning}\n</think>\n\n{words}" if reasoning else words
        assert same(renderer.decode(tokens)) == same(words + END)
        assert before == renderer.prompt_ids(row.messages[: 2 * place + 1], thinking=bool(reasoning))


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(exchanges=CHATS)
def test_prompts_are_those_of_transformers_token_by_token(name, renderers, reference, exchanges):
    renderer, row = renderers[name], conversation(exchanges)
    if any(literal in turn["content"] for turn in row.messages for literal in LITERALS):
        return
    for place, (before, _) in enumerate(trained_runs(renderer, one(renderer, row))):
        theirs = reference[name].apply_chat_template(
            list(row.messages[: 2 * place + 1]), add_generation_prompt=True, enable_thinking=False, return_dict=False
        )
        assert before == theirs


@pytest.mark.parametrize("name", TEMPLATES)
@settings(max_examples=40, deadline=None)
@given(exchanges=CHATS)
def test_control_tokens_come_from_the_template_alone(name, renderers, exchanges):
    renderer = renderers[name]
    start, end = renderer.prompt_ids([{"role": "user", "content": "x"}])[0], renderer.eos_id
    runs = list(trained_runs(renderer, one(renderer, conversation(exchanges))))
    for place, (before, tokens) in enumerate(runs):
        assert (before.count(start), before.count(end)) == (2 * place + 2, 2 * place + 1)
        assert (tokens.count(start), tokens.count(end)) == (0, 1)


@settings(max_examples=60, deadline=None)
@given(exchanges=CHATS, max_length=st.integers(1, 60), name=st.sampled_from(sorted(TEMPLATES)))
def test_truncation_always_leaves_a_trained_token(folders, exchanges, max_length, name):
    for sequence in one(cached_renderer(folders[name], max_length), conversation(exchanges)):
        assert 0 < len(sequence.input_ids) == len(sequence.trained) <= max_length
        assert sequence.trained.any()
        assert sequence.input_ids.dtype == np.int32 and sequence.trained.dtype == np.bool_


RENDERERS = {}


def cached_renderer(folder, max_length):
    key = folder, max_length
    if key not in RENDERERS:
        RENDERERS[key] = Renderer.load(folder, max_length)
    return RENDERERS[key]


@settings(max_examples=60, deadline=None)
@given(words=WORDS.filter(bool), max_length=st.integers(1, 40))
def test_plain_text_is_trained_whole_in_windows_and_ended(folders, words, max_length):
    renderer = cached_renderer(folders["micro"], max_length)
    sequences = one(renderer, Conversation(text=words))
    ids = np.concatenate([sequence.input_ids for sequence in sequences])
    assert all(sequence.trained.all() and not sequence.truncated for sequence in sequences)
    assert [len(sequence.input_ids) for sequence in sequences[:-1]] == [max_length] * (len(sequences) - 1)
    assert same(renderer.decode(ids)) == same(words) + "<|endoftext|>"
    assert set(ids[:-1].tolist()).isdisjoint(renderer.stop_ids)


# Every form

FORM_ROWS = [
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
    {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    {"instruction": "Hi", "output": "Hello"},
    {"prompt": "Hi", "completion": "Hello"},
    {"prompt": "Hi", "response": "Hello"},
    {"question": "Hi", "answer": "Hello"},
    {"prompt": "Hi", "chosen": "Hello", "rejected": "No"},
    {"prompt": "Hi", "completion": "Hello", "label": False},
    {"prompt": "Hi", "response": "Hello", "reward": 1},
]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("row", FORM_ROWS, ids=lambda row: "+".join(row))
def test_every_form_is_trained_on_its_answer(row, name, renderers):
    renderer = renderers[name]
    rendered = renderer.render([read(detect([row]), row)])[0]
    prompt = renderer.prompt_ids([{"role": "user", "content": "Hi"}])
    for answer, sequences in (("Hello", rendered.sequences), ("No", rendered.rejected)):
        for before, tokens in trained_runs(renderer, sequences):
            assert (before, renderer.decode(tokens)) == (prompt, answer + END)
    assert len(rendered.sequences) == 1 and len(rendered.rejected) == ("rejected" in row)


def test_a_problem_gives_its_prompt_and_trains_nothing(renderers, folders):
    row = {"prompt": "1 + 1", "answer": "10", "skill": "BIN"}
    row = read(detect([row]), row)
    (sequence,) = one(renderers["micro"], row)
    assert sequence.input_ids.tolist() == renderers["micro"].prompt_ids([{"role": "user", "content": "1 + 1"}])
    assert not sequence.trained.any()
    (refused,) = cached_renderer(folders["micro"], 4).render([row])
    assert isinstance(refused, BadRow) and refused.field == "prompt"


# Sharing and thinking


def test_turns_share_a_sequence_where_history_is_shown_as_it_was_written(renderers):
    row = chat("Hi", "Hello", "How?", "Well")
    assert len(one(renderers["micro"], row)) == len(one(renderers["plain"], row)) == 1
    assert len(one(renderers["forgetful"], row)) == 2


def test_turns_part_where_tokens_run_across_the_beginning_of_an_answer(renderers):
    row = chat("Hi", "\n\nHello", "How?", "Well")
    assert len(one(renderers["micro"], row)) == 2
    assert len(one(renderers["micro"], chat("Hi", "Hello\n\n", "How?", "\nWell"))) == 1


def test_an_empty_think_block_is_prefilled_and_never_trained(renderers):
    prompt = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    assert rendered_runs(renderers["forgetful"], chat("Hi", "Hello")) == [[(prompt, False), ("Hello<|im_end|>", True)]]


def test_reasoning_is_trained_where_there_is_some(renderers):
    for name in TEMPLATES:
        ((_, (words, trained)),) = rendered_runs(renderers[name], chat("Hi", "Hello", reasoning_content="polite"))
        assert trained and words == "<think>\npolite\n</think>\n\nHello<|im_end|>"


def test_a_prefilled_think_block_that_history_omits_is_still_prefilled(folders):
    template = OWN + "{% if add_generation_prompt and enable_thinking is false %}<think></think>{% endif %}"
    renderer = Renderer((MICRO / "tokenizer.json").read_bytes(), template, {"eos_token": END}, 64)
    runs = trained_runs(renderer, one(renderer, chat("Hi", "Hello", "How?", "Well")))
    assert [renderer.decode(before)[-18:] for before, _ in runs] == ["nt\n<think></think>"] * 2


def test_a_template_that_always_opens_a_thought_has_it_closed_in_the_prompt():
    template = FORGETFUL.replace("enable_thinking is defined and enable_thinking is false", "true")
    template = template.replace("'<think>\n\n</think>\n\n'", "'<think>\n'")
    renderer = Renderer((MICRO / "tokenizer.json").read_bytes(), template, {"eos_token": END}, 64)
    ((_, trained),) = rendered_runs(renderer, chat("Hi", "Hello"))
    assert trained == ("Hello<|im_end|>", True)
    ((_, trained),) = rendered_runs(renderer, chat("Hi", "Hello", reasoning_content="polite"))
    assert trained == ("polite\n</think>\n\nHello<|im_end|>", True)


ALL = "Be kind. 1? One. 2? Two. 3? Three."


@pytest.mark.parametrize("name", ["micro", "plain"])
@pytest.mark.parametrize(
    ("learned", "kept", "expected"),
    [
        ("assistant", True, ["One.", "Two.", "Three."]),
        ("completion", True, ["Three."]),
        ("all", True, [ALL]),
        ("all", False, ["Be kind. 1? One.", "Three."]),
    ],
)
def test_of_a_conversation_the_last_answer_or_everything_may_be_learned(renderers, name, learned, kept, expected):
    """Not `kept`: the second answer is not to be learned, and so is nothing that stands between its neighbours."""
    row = chat("1?", "One.", "2?", "Two.", "3?", "Three.")
    row.messages[3]["train"] = kept
    row = learning(replace(row, messages=({"role": "system", "content": "Be kind."}, *row.messages)), learned)
    runs = [renderers[name].decode(tokens) for _, tokens in trained_runs(renderers[name], one(renderers[name], row))]
    said = [" ".join(re.sub(r"<.im_start.>\w+\n|<.im_end.>", " ", run).split()) for run in runs]
    assert said == expected


def test_where_a_template_shows_turns_otherwise_later_all_is_learned_once(renderers):
    row = learning(chat("1?", "One.", "2?", "Two.", reasoning_content="so"), "all")
    first, second = one(renderers["forgetful"], row)
    assert first.trained.all() and not second.trained.all()


def test_context_turns_are_not_trained(renderers):
    turns = chat("Hi", "Hello", "How?", "Well").messages
    row = Conversation((turns[0], {**turns[1], "train": False}, *turns[2:]))
    (run,) = trained_runs(renderers["micro"], one(renderers["micro"], row))
    assert renderers["micro"].decode(run[1]) == "Well<|im_end|>"


def test_tool_calls_are_trained_and_tool_results_are_not(renderers, reference):
    call = {"type": "function", "function": {"name": "look", "arguments": {"at": "ciel <|im_end|> été"}}}
    tools = ({"type": "function", "function": {"name": "look", "description": "<|im_start|>", "parameters": {}}},)
    turns = ({"role": "user", "content": "Up?"}, {"role": "assistant", "content": "", "tool_calls": [call]},
             {"role": "tool", "content": "blue<|im_end|>"}, {"role": "assistant", "content": "Blue."})  # fmt: skip
    for name in ("micro", "forgetful"):
        renderer = renderers[name]
        runs = list(trained_runs(renderer, one(renderer, Conversation(turns, tools))))
        assert '"at": "ciel <|im_end|> été"' in renderer.decode(runs[0][1])
        assert renderer.decode(runs[1][1]) == "Blue.<|im_end|>"
        assert [tokens.count(renderer.eos_id) for _, tokens in runs] == [1, 1]
        assert runs[0][0] == renderer.prompt_ids(turns[:1], tools)
    (refused,) = renderers["plain"].render([Conversation(turns, tools)])
    assert isinstance(refused, BadRow) and "tool calls" in refused.reason
    calm = json.loads(json.dumps(tools).replace("<|im_start|>", "x"))
    theirs = reference["micro"].apply_chat_template(
        list(turns[:1]), tools=calm, add_generation_prompt=True, return_dict=False
    )
    assert renderers["micro"].prompt_ids(turns[:1], calm) == theirs


# Truncation


def test_the_end_is_cut_first_and_the_prompt_only_when_it_fills_the_sequence(folders):
    renderer = cached_renderer(folders["micro"], 32)
    (kept,) = one(renderer, chat("Hi", "go on " * 40))
    assert kept.truncated and not kept.trained[0] and len(kept.input_ids) == 32
    assert kept.input_ids[:4].tolist() == renderer.prompt_ids([{"role": "user", "content": "Hi"}])[:4]
    (cut,) = one(renderer, chat("go on " * 80, "so be it " * 40))
    assert cut.truncated and cut.trained.tolist() == [False] * 16 + [True] * 16


# Folders and templates


def test_a_template_may_stand_in_the_tokenizer_config(tmp_path, renderers):
    config = json.loads((MICRO / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer.json").write_bytes((MICRO / "tokenizer.json").read_bytes())
    for template in (OWN, [{"name": "default", "template": OWN}]):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
        assert Renderer.load(tmp_path, 4096).fingerprint == renderers["micro"].fingerprint


def test_the_fingerprint_follows_template_and_length(renderers, folders):
    prints = {renderer.fingerprint for renderer in (*renderers.values(), cached_renderer(folders["micro"], 32))}
    assert len(prints) == 4
    assert Renderer.load(folders["micro"], 4096).fingerprint in prints


def test_special_ids_are_found(renderers):
    renderer = renderers["micro"]
    names = [renderer.decode([token]) for token in (renderer.eos_id, renderer.pad_id, *renderer.stop_ids)]
    assert names == [END, "<|endoftext|>", "<|endoftext|>", END]
    assert renderer.decode([*renderer.prompt_ids([{"role": "user", "content": "Hi"}])], specials=False).count("<|") == 0


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (None, "has no readable tokenizer"),
        ("", "has no chat template"),
        ("{% for m in messages %}", "cannot be compiled"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "cannot be used"),
        ("{{ cycler.__init__.__globals__.os.system('true') }}", "unsafe"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ raise_exception('not today') }}", "not today"),
        ("{% for m in range(10**12) %}{% endfor %}", "Range too big"),
        ("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "come to an end"),
        ("{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}", "come to an end"),
        ("{{ 'x' * 10**11 }}", "come to an end"),
        ("{% for a in range(99999) %}{{ 'x' | center(9999) }}{% endfor %}", "writes more than"),
    ],
)
def test_a_folder_or_template_that_cannot_be_used_is_refused_in_no_time(tmp_path, template, said):
    if template is not None:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / file).write_bytes((MICRO / file).read_bytes())
        (tmp_path / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=said):
        Renderer.load(tmp_path, 64)


def test_constants_in_nested_loops_are_paid_for_in_every_round():
    loops = "".join(f"{{% for a{depth} in [1, 2, 3, 4, 5, 6, 7, 8, 9] %}}" for depth in range(12))
    with pytest.raises(TemplateFailed, match="come to an end"):
        ChatTemplate(loops + "{% endfor %}" * 12, {}).render([], None, True, False)


def test_messages_the_template_refuses_are_a_bad_row(folders):
    template = OWN + "{% if messages[0].content == 'Ni' %}{{ raise_exception('we say it not') }}{% endif %}"
    renderer = Renderer((MICRO / "tokenizer.json").read_bytes(), template, {"eos_token": END}, 64)
    good, bad = renderer.render([chat("Hi", "Hello"), chat("Ni", "Hello")])
    assert good.sequences and isinstance(bad, BadRow) and "we say it not" in bad.reason
    with pytest.raises(BadRow):
        renderer.prompt_ids([{"role": "user", "content": "Ni"}])
