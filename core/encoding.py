"""From texts to token ids, each word encoded once and long texts in pieces; it knows nothing about rows or templates.

A tokenizer takes some microseconds for a word, a dictionary a tenth of one, and texts are made of the same words. So a
text is cut before every space that follows a visible character, and the ids of what lies between are remembered. Where
the tokenizer is a byte-level BPE with one of the `PATTERNS` no token crosses such a place: in each of them every way to
match a visible character ends before a space, none looks behind, and none that looks ahead ends in such a character;
NFC joins nothing across a space. Every other tokenizer is given whole texts.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import chain

import orjson
from tokenizers import Tokenizer

ENCODE_TEXTS, ENCODE_CHARACTERS = 512, 1 << 16  # at once
PIECE = 1 << 15  # characters; longer texts are encoded in pieces
CUT_WITHIN, CUT_TRIES = 4096, 64
REMEMBERED = 1 << 19  # characters of words; the memory for their ids is some fifty times that
WORD = re.compile(r"(?s:.)[^ ]*(?:(?<!\S) [^ ]*)*")
PATTERNS = frozenset((
    # Qwen2, Qwen2.5, Qwen3
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    # Qwen3.5
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+",
    # the realm's own
    r"'(?:[sdmt]|ll|re|ve)(?!\p{L})| ?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|[\r\n]+|[^\S\r\n]+(?!\S)|\s",
))  # fmt: skip


class Encoder:
    """Encodes with `tokenizer`, whose file is `source`. Threads may share it."""

    def __init__(self, tokenizer: Tokenizer, source: bytes):
        self._tokenizer = tokenizer
        self._has_words = cuts_at_spaces(source)
        self._words: dict[str, list[int]] = {}
        self._remembered = 0

    def encode(self, texts: list[str]) -> list[list[int]]:
        """The ids of each text."""
        if not self._has_words:
            known = self._encoded(set(texts))
            return [known[text] for text in texts]
        if self._remembered > REMEMBERED:  # a new dictionary: another thread may be reading the old one
            self._words, self._remembered = {}, 0
        words, words_of = self._words, [WORD.findall(text) for text in texts]
        unknown = set().union(*words_of).difference(words)
        words.update(self._encoded(unknown))
        self._remembered += sum(map(len, unknown))
        return [list(chain.from_iterable(map(words.__getitem__, each))) for each in words_of]

    def is_seam(self, left: str, right: str) -> bool:
        """Whether a cut between them changes no token."""
        whole, before, after = (self._tokenizer.encode(each, add_special_tokens=False).ids
                                for each in (left + right, left, right))  # fmt: skip
        return whole == before + after

    def _encoded(self, texts: Iterable[str]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {text: [] for text in texts}
        for batch in _batches((text, piece) for text in found for piece in self._pieces_of(text)):
            encodings = self._tokenizer.encode_batch_fast([piece for _, piece in batch], add_special_tokens=False)
            for (text, _), encoding in zip(batch, encodings, strict=True):
                found[text] += encoding.ids
        return found

    def _pieces_of(self, text: str) -> Iterator[str]:
        """A long text cut where that changes no token, since a tokenizer needs up to 100 bytes of memory for each of a text."""
        start = 0
        while len(text) - start > PIECE:
            end = self._cut(text, start + PIECE)
            yield text[start:end]
            start = end
        yield text[start:]

    def _cut(self, text: str, at: int) -> int:
        """The nearest place before `at` for a cut: at a word's beginning, else anywhere, else, in one endless word, `at`."""
        places = [
            place for place in range(at, at - CUT_WITHIN, -1) if text[place].isspace() and not text[place - 1].isspace()
        ]
        for place in (*places[:CUT_TRIES], *range(at, at - CUT_TRIES, -1)):
            if self.is_seam(text[place - 32 : place], text[place : place + 32]):
                return place
        return at


def cuts_at_spaces(source: bytes) -> bool:
    """Whether no token of this tokenizer.json reaches across a space that follows a visible character."""
    parts = orjson.loads(source)
    splitter = parts.get("pre_tokenizer") or {}
    match splitter.get("pretokenizers"):
        case [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
            {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
        ]:
            known = pattern in PATTERNS
        case _:
            known = False
    model, normalizer = parts["model"], parts.get("normalizer") or {"type": "NFC"}
    added = parts.get("added_tokens") or ()
    return (
        known
        and normalizer == {"type": "NFC"}
        and model.get("type") == "BPE"
        and not model.get("dropout")
        and not any(token["lstrip"] or token["rstrip"] or " " in token["content"] for token in added)
    )


def _batches(pieces: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Pairs (text, piece of it) in lists of bounded size, which bounds the memory for their encodings."""
    batch, characters = [], 0
    for text, piece in pieces:
        if batch and (len(batch) == ENCODE_TEXTS or characters + len(piece) > ENCODE_CHARACTERS):
            yield batch
            batch, characters = [], 0
        batch.append((text, piece))
        characters += len(piece)
    if batch:
        yield batch
