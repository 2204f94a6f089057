"""Words encoded once give the tokens of whole texts, for every tokenizer that is said to have words."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from core import encoding
from core.encoding import PATTERNS, Encoder, cuts_at_spaces
from core.paths import BUNDLED_TOKENIZER

OWN = (BUNDLED_TOKENIZER / "tokenizer.json").read_bytes()
SPACES = [" ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x1c", "\x85", "\u180e", "\u200b", " \n "]
SCRAPS = [
    "word",
    "it's",
    "'",
    "'ll",
    "12",
    ",",
    ".",
    "<|im_end|>",
    "<think>",
    "é",
    "e\u0301",
    "\u0301",
    "界",
    "🙂",
    "\x00",
]
TEXTS = st.lists(st.sampled_from([*SPACES, *SCRAPS]) | st.text(st.characters(exclude_categories=["Cs"]), max_size=4),
                 max_size=12).map("".join)  # fmt: skip


def with_pattern(pattern):
    parts = orjson.loads(OWN)
    parts["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    return orjson.dumps(parts)


TOKENIZERS = {pattern: (Tokenizer.from_buffer(source), source) for pattern, source in
              ((pattern, with_pattern(pattern)) for pattern in sorted(PATTERNS))}  # fmt: skip


@pytest.mark.parametrize("pattern", TOKENIZERS, ids=range(len(TOKENIZERS)))
@settings(max_examples=150, deadline=None)
@given(texts=st.lists(TEXTS, max_size=3))
def test_words_encoded_once_give_the_tokens_of_whole_texts(pattern, texts):
    tokenizer, source = TOKENIZERS[pattern]
    assert cuts_at_spaces(source)
    whole = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    assert Encoder(tokenizer, source).encode(texts) == whole


def test_what_is_remembered_is_bounded_and_forgetting_changes_nothing(monkeypatch):
    monkeypatch.setattr(encoding, "REMEMBERED", 200)
    encoder, tokenizer = Encoder(Tokenizer.from_buffer(OWN), OWN), Tokenizer.from_buffer(OWN)
    for number in range(60):
        text = " ".join(f"w{number}x{place} and" for place in range(5))
        assert encoder.encode([text, text]) == [tokenizer.encode(text, add_special_tokens=False).ids] * 2
        assert sum(map(len, encoder._words)) <= 200 + len(text)


def changed(**parts):
    return orjson.dumps({**orjson.loads(OWN), **parts})


def test_a_tokenizer_whose_tokens_may_hold_spaces_is_given_whole_texts():
    token = {**orjson.loads(OWN)["added_tokens"][0], "id": 5000, "content": "New York"}
    greedy = {**token, "content": "<gap>", "lstrip": True}
    strangers = (with_pattern(r".+"), changed(normalizer={"type": "NFKC"}), changed(pre_tokenizer=None),
                 changed(added_tokens=[token]), changed(added_tokens=[greedy]))  # fmt: skip
    for source in strangers:
        tokenizer = Tokenizer.from_buffer(source)
        text = "New York is <gap> not a word, New York is two"
        assert not cuts_at_spaces(source)
        assert Encoder(tokenizer, source).encode([text]) == [tokenizer.encode(text, add_special_tokens=False).ids]
