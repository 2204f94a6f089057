"""Calls of tools: asked for by OpenAI's own client, written by a hero that learned them by heart, told in OpenAI's form."""

import json
from itertools import groupby

import pytest
import torch
from model_folders import TINY
from oracle_hall import answering
from oracle_realm import another
from transformers import Qwen3Config, Qwen3ForCausalLM

from core.answer_text import AnswerText
from core.chat_reply import Call, Piece
from core.paths import BUNDLED_TOKENIZER
from core.rendering import Renderer
from core.rows import Conversation, read_turns
from core.tool_calls import ToolCalls

openai = pytest.importorskip("openai")

WEATHER = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}

WIDER = {"hidden_size": 64, "intermediate_size": 128}


def called(*cities: str) -> list[dict]:
    return [{"type": "function", "function": {"name": "weather", "arguments": {"city": city}}} for city in cities]


def said(role: str, content: str, **more) -> dict:
    return {"role": role, "content": content, **more}


OSLO, TWO, RAIN = said("user", "How is Oslo?"), said("user", "Rome and Paris?"), said("tool", '{"sky": "rain"}')
ROWS = [
    (
        [OSLO, said("assistant", "Let me look.", tool_calls=called("Oslo")), RAIN, said("assistant", "It rains.")],
        (WEATHER,),
    ),
    ([TWO, said("assistant", "", tool_calls=called("Rome", "Paris"))], (WEATHER,)),
    ([OSLO, said("assistant", "I cannot know.")], None),
]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """OpenAI's client before the Tavern of a realm whose tiny hero has learned ROWS by heart."""
    with answering(tmp_path_factory.mktemp("realm")) as (paths, server, ready):
        another(paths, 0, learned_by_heart(), **WIDER)
        ready()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
            yield client


def learned_by_heart() -> dict:
    """Weights of a tiny hero that knows ROWS, and nothing else."""
    renderer = Renderer.load(BUNDLED_TOKENIZER, 512)
    rows = [Conversation(tuple(read_turns(turns, "messages")), tools) for turns, tools in ROWS]
    sequences = [sequence for rendered in renderer.render(rows) for sequence in rendered.sequences]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = Qwen3ForCausalLM(Qwen3Config(**TINY | WIDER))
    optimizer, loss = torch.optim.AdamW(model.parameters(), lr=5e-3), None
    while loss is None or loss.item() > 0.05:
        optimizer.zero_grad()
        loss = torch.zeros(())
        for sequence in sequences:
            ids = torch.tensor(sequence.input_ids, dtype=torch.long)[None]
            loss = loss + model(ids, labels=ids.masked_fill(~torch.tensor(sequence.trained), -100)).loss
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}


def ask(client, *turns, tools=(WEATHER,), **more):
    given = {"tools": list(tools)} if tools else {}
    return client.chat.completions.create(model="hero", messages=list(turns), temperature=0, **given, **more)


def wanted(calls) -> list[tuple[str, dict]]:
    assert len({call.id for call in calls}) == len(calls) and {call.type for call in calls} == {"function"}
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


def test_a_call_its_result_and_the_answer_go_to_and_fro(client):
    [first] = ask(client, OSLO).choices
    assert first.finish_reason == "tool_calls" and first.message.content == "Let me look."
    assert wanted(first.message.tool_calls) == [("weather", {"city": "Oslo"})]
    result = {**RAIN, "tool_call_id": first.message.tool_calls[0].id}
    [second] = ask(client, OSLO, first.message.model_dump(exclude_none=True), result).choices
    assert (second.finish_reason, second.message.content, second.message.tool_calls) == ("stop", "It rains.", None)


def test_two_calls_stream_and_one_is_enough_for_whom_wants_one(client):
    with ask(client, TWO, stream=True) as chunks:
        deltas = [chunk.choices[0] for chunk in chunks]
    calls = [call for choice in deltas for call in choice.delta.tool_calls or ()]
    assert [call.index for call in calls] == [0, 1]
    assert wanted(calls) == [("weather", {"city": "Rome"}), ("weather", {"city": "Paris"})]
    assert deltas[-1].finish_reason == "tool_calls" and not any(choice.delta.content for choice in deltas)
    [alone] = ask(client, TWO, parallel_tool_calls=False).choices
    assert wanted(alone.message.tool_calls) == [("weather", {"city": "Rome"})] and alone.message.content is None


def test_openais_own_collector_of_streams_understands_them(client):
    with client.chat.completions.stream(model="hero", messages=[OSLO], tools=[WEATHER], temperature=0) as stream:
        [choice] = stream.get_final_completion().choices
    assert choice.message.content == "Let me look."
    assert wanted(choice.message.tool_calls) == [("weather", {"city": "Oslo"})]


def test_without_tools_nothing_is_a_call(client):
    for more in ({"tools": ()}, {"tool_choice": "none"}):
        [choice] = ask(client, OSLO, **more).choices
        assert (choice.finish_reason, choice.message.content) == ("stop", "I cannot know.")
        assert choice.message.tool_calls is None
    with pytest.raises(openai.BadRequestError, match="tool_choice"):
        ask(client, OSLO, tool_choice="required")


CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"Look: \n{CALL}\n{CALL}\n", ["Look:", "weather", "weather"]),
        (f"{CALL} and on\n", ["weather", "and on\n"]),
        (CALL.removesuffix("</tool_call>"), ["weather"]),  # the hero ended before the mark
        ("<tool_call>never ends", ["<tool_call>never ends"]),
        ("<tool_call>{}</tool_call>", ["<tool_call>{}</tool_call>"]),
        (f"<tool_call>[1]</tool_call>{CALL}", ["<tool_call>[1]</tool_call>", "weather"]),
        ('<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}</tool_call>', ["weather"]),
        ("a <b> <tool_cal", ["a <b> <tool_cal"]),
        (" spaces \n", [" spaces \n"]),
        ("", []),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_calls_are_told_from_words_however_the_text_is_cut(text, told, size):
    calls, found = ToolCalls(), []
    for begin in range(0, len(text), size):
        found += calls.feed(text[begin : begin + size])
    found += calls.end()
    for each in found:
        assert isinstance(each, str) or json.loads(each.arguments) == {"city": "Oslo"}
    runs = [(kind, list(each)) for kind, each in groupby(found, type)]
    assert [
        text for kind, each in runs for text in (["".join(each)] if kind is str else [c.name for c in each])
    ] == told
    assert calls.count == sum(isinstance(each, Call) for each in found)


def test_a_call_within_a_thought_is_none():
    text = f"<think>{CALL}</think>\n\n{CALL}"
    tokens = Renderer.load(BUNDLED_TOKENIZER, 256)
    teller = AnswerText(tokens.decode, tokens.stop_ids, (), tools=True)
    parts = [part for token in tokens._tokenizer.encode(text).ids for part in teller.feed(token)] + teller.end()
    assert "".join(part.text for part in parts if isinstance(part, Piece) and part.thought) == CALL
    assert [part.name for part in parts if isinstance(part, Call)] == ["weather"]
    assert teller.finish == "length"
