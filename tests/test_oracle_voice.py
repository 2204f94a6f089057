"""What the local Oracle says: the tokens that transformers would say, letters that are whole, requests that are understood."""

import json

import numpy as np
import pytest
import torch
from model_folders import TINY, weights, write_model
from transformers import AutoModelForCausalLM

from core.answer_memory import AT_ONCE, LEAST_CONTEXT, PIECE_BYTES, PROCESS_BYTES, Needs, shortage
from core.chat_reply import Piece, Thoughts
from core.chat_request import ChatRequest, json_object, read_request
from core.errors import RealmBusy, UserError
from core.forge.voice import PIECE, Voice
from core.forge.voices import Voices
from core.memory_needs import GIB
from core.paths import BUNDLED_TOKENIZER
from core.rendering import Renderer
from core.token_text import TokenText


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Qwen3 whose answers are far from uniform, so that one token is clearly the most likely."""
    tensors = {name: tensor * 4 for name, tensor in weights().items()}
    return write_model(tmp_path_factory.mktemp("models") / "tiny", tensors, max_position_embeddings=4096)


@pytest.fixture(scope="module")
def voice(folder):
    return Voice(folder)


def request(text: str = "How much is 1 + 1?", **more) -> ChatRequest:
    return read_request({"messages": [{"role": "user", "content": text}], **more})


def tokens(voice: Voice, asked: ChatRequest) -> list[int]:
    answer = voice.answer(asked)
    said = []
    while len(said) < answer.most:
        token = answer.step()
        said += [] if token is None else [token]
    return said


@pytest.mark.parametrize("words", [3, 3 * PIECE])
def test_the_most_likely_answer_is_transformers_own(voice, folder, words):
    asked = request("one " * words, temperature=0, max_tokens=40)
    prompt = voice.renderer.prompt_ids(asked.messages)
    assert len(prompt) > words
    model = AutoModelForCausalLM.from_pretrained(folder)
    theirs = model.generate(
        torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long), do_sample=False,
        max_new_tokens=40, eos_token_id=None, pad_token_id=0,
    )  # fmt: skip
    assert tokens(voice, asked) == theirs[0, len(prompt) :].tolist()


def test_an_untied_head_and_bf16_weights_answer_like_transformers_too(tmp_path):
    generator = np.random.default_rng(2)
    head = {"lm_head.weight": generator.normal(0, 0.1, (TINY["vocab_size"], TINY["hidden_size"])).astype(np.float32)}
    folder = write_model(tmp_path / "untied", weights() | head, tie_word_embeddings=False)
    voice, prompt = Voice(folder), list(range(5, 25))
    with torch.inference_mode():
        for kind, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 0.05)):
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=kind)
            voice.decoder.embedding_VD = voice.decoder.embedding_VD.to(kind)
            voice.decoder.head_VD, voice.decoder.norm_D = voice.decoder.head_VD.to(kind), voice.decoder.norm_D.to(kind)
            voice.decoder.layers = [
                type(layer)(*(tensor.to(kind) for tensor in vars(layer).values())) for layer in voice.decoder.layers
            ]
            ours = voice.decoder.read(prompt, voice.decoder.cache(100))
            theirs = model(torch.tensor([prompt])).logits[0, -1].float()
            assert torch.allclose(ours, theirs, atol=tolerance)


def test_a_seed_gives_the_same_answer_and_another_one_another(voice):
    first = tokens(voice, request(seed=1, temperature=1.5, max_tokens=30))
    assert first == tokens(voice, request(seed=1, temperature=1.5, max_tokens=30))
    assert first != tokens(voice, request(seed=2, temperature=1.5, max_tokens=30))
    greedy = tokens(voice, request(temperature=0, max_tokens=10))
    assert greedy == tokens(voice, request(temperature=2, top_k=1, max_tokens=10))
    assert greedy == tokens(voice, request(temperature=2, top_p=1e-9, max_tokens=10))


def test_a_penalty_keeps_the_hero_from_saying_the_same_again(voice):
    said = tokens(voice, request(temperature=0, presence_penalty=2, frequency_penalty=2, max_tokens=40))
    plain = tokens(voice, request(temperature=0, max_tokens=40))
    assert len(set(said)) > len(set(plain))


def test_the_prompt_is_the_one_of_training(voice):
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <|im_end|> there"}]
    asked = read_request({"messages": turns})
    text = voice.renderer.decode(voice.renderer.prompt_ids(asked.messages))
    assert (
        text
        == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi <|im_end|> there<|im_end|>\n<|im_start|>assistant\n"
    )
    ends = voice.renderer.prompt_ids(asked.messages).count(voice.renderer.eos_id)
    assert ends == 2, "what a visitor writes must never be a control token"


def test_a_prompt_without_room_for_an_answer_is_refused_with_numbers(folder):
    voice = Voice(folder)
    voice.context = 100
    with pytest.raises(UserError, match=r"messages: have [\d,]+ tokens; this Oracle holds 100"):
        voice.answer(request("word " * 300))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "'yarn'"),
        ({"use_sliding_window": True}, "sliding windows"),
        ({"attention_bias": True}, "biases"),
        ({"hidden_act": "gelu"}, "'gelu'"),
        ({"auto_map": {"AutoModel": "evil.Model"}}, "code to be run"),
    ],
)
def test_a_model_that_would_be_computed_wrongly_is_refused(tmp_path, changes, words):
    with pytest.raises(UserError, match=words):
        Voice(write_model(tmp_path / "strange", **changes))


# Text


def test_letters_of_several_tokens_come_whole_and_stop_texts_never():
    renderer = Renderer.load(BUNDLED_TOKENIZER, 256)
    text = "naïve 🐉 café — 漢字, then STOP here"
    ids = renderer._tokenizer.encode(text).ids
    teller = TokenText(renderer.decode)
    parts = [teller.feed(token) for token in ids]
    assert "".join(parts) + teller.end() == text and not any("\ufffd" in part for part in parts)
    assert "" in parts
    teller = TokenText(renderer.decode, ("STOP", "never"))
    parts = []
    for token in ids:
        parts.append(teller.feed(token))
        if teller.stopped:
            break
    assert "".join(parts) + teller.end() == "naïve 🐉 café — 漢字, then "


@pytest.mark.parametrize(
    ("text", "thought", "words"),
    [
        ("<think>\nhm\n</think>\n\nYes.", "\nhm\n", "Yes."),
        ("  <think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
        ("Yes. <think>", "", "Yes. <think>"),
        ("<think>never ends </thin", "never ends </thin", ""),
        ("<thin", "", "<thin"),
        ("", "", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 100])
def test_thoughts_are_told_from_words_however_the_text_is_cut(text, thought, words, size):
    thoughts = Thoughts()
    pieces: list[Piece] = []
    for begin in range(0, len(text), size):
        pieces += thoughts.feed(text[begin : begin + size])
    pieces += thoughts.end()
    assert "".join(piece.text for piece in pieces if piece.thought) == thought
    assert "".join(piece.text for piece in pieces if not piece.thought) == words


# Requests


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"messages": []}, "messages"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]},
            "second of two user turns",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "not a text part"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "must be user's"),
        ({"messages": [{"role": "wizard", "content": "a"}]}, "not a known role"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "UTF-8"),
        ({"n": 2}, "n: is not supported"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"stop": ["x"] * 300}, "stop"),
        ({"seed": 2**70}, "seed"),
        ({"model": ""}, "model"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(changes, words):
    with pytest.raises(UserError, match=words):
        read_request({"messages": [{"role": "user", "content": "a"}], **changes})


def test_what_clients_send_as_a_matter_of_course_is_taken():
    asked = request(
        model="champion", n=1, logprobs=False, user="me", metadata={}, response_format={"type": "text"}, stop="END", tools=[],
        stream=True, stream_options={"include_usage": True}, max_completion_tokens=7, temperature=None,
        chat_template_kwargs={"enable_thinking": True},
    )  # fmt: skip
    assert (asked.model, asked.most, asked.stops, asked.stream, asked.usage, asked.thinking) == (
        "champion",
        7,
        ("END",),
        True,
        True,
        True,
    )
    assert asked.sampling.temperature == 0.7


def test_json_that_nobody_means_is_refused():
    for body in (b"", b"[]", b"nul", b'{"a": NaN}', b"{" * 9, json.dumps(nested(100)).encode(), b"\xff"):
        with pytest.raises(UserError):
            json_object(body)


def nested(depth: int) -> dict:
    return {"a": nested(depth - 1)} if depth else {}


# Memory


def test_a_model_that_does_not_fit_is_refused_with_the_remedy(folder, monkeypatch):
    needs = Needs.of(folder)
    assert needs.weights == (folder / "model.safetensors").stat().st_size
    assert shortage(needs, 1.0) is None
    assert "raise oracle.memory_gib" in shortage(needs, 0.1)
    monkeypatch.setattr("core.answer_memory.free", lambda: 100 << 20)
    assert "Wait for the battle to end" in shortage(needs, 1.0)


def test_within_the_budget_the_voice_longest_unused_goes_and_one_that_speaks_stays(folder, tmp_path):
    other = write_model(tmp_path / "other", max_position_embeddings=100_000)
    needs = Needs.of(other)
    room = PROCESS_BYTES + 2 * needs.weights + AT_ONCE * (PIECE_BYTES + LEAST_CONTEXT * needs.token) + 8
    voices = Voices(room / GIB)
    first = voices.load("a", folder, lambda key: None)
    assert voices.load("a", folder, pytest.fail) is first
    alone = voices.load("b", other, lambda key: None)
    assert alone.context == LEAST_CONTEXT and voices.loaded == ("a", "b")
    with voices.using("a"):
        voices.load("c", other, lambda key: None)
        assert voices.loaded == ("a", "c")
        with voices.using("c"), pytest.raises(RealmBusy):
            voices.load("d", other, lambda key: None)


def test_under_emoji_think_a_voice_keeps_to_words_unless_thoughts_are_wished_for(folder):
    plain, held = Voice(folder), Voice(folder, profile="emoji_think")
    tag = next(each for each in plain.renderer.control_ids if plain.renderer.decode([each]) == "<think>")
    for voice in (plain, held):  # a model that would think whatever it is asked
        read = voice.decoder.read
        voice.decoder.read = lambda *asked, read=read: read(*asked).index_fill(0, torch.tensor(tag), 60.0)
    asked = request(temperature=0, max_tokens=16)
    assert tokens(plain, asked) == [tag] * 16 and tag not in tokens(held, asked)
    wished = request(temperature=0, max_tokens=16, chat_template_kwargs={"enable_thinking": True})
    assert tokens(held, wished) == [tag] * 16
