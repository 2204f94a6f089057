"""Row → text → tokens and loss mask, for validator, preview, trainer and Oracle; knows nothing about files or torch.

What is trained is what inference sees. For every trained assistant turn the prompt is the template's rendering of all
turns before it, with the head of an answer; what the template writes after that is the answer, trained up to and with
its last special token (the end of turn). Prompt and answer are encoded apart, as inference does it. A turn without
reasoning is trained as the answer to a prompt with thinking switched off: an empty think block, if the template has
one, belongs to that prompt. A turn with reasoning is trained with it.

Turns share a sequence as long as each prompt goes on exactly, in text and in tokens, from the sequence so far. Where
the template shows earlier turns differently (Qwen3 drops their reasoning), a trained turn begins its own sequence.

Special tokens written out in a row's content stay text: their control ids come from the template alone.

A sequence above `max_length` is cut on the right. If that would leave no trained token it is cut on both sides, with
the first trained token in its middle. Plain text is never cut: it fills as many sequences as it needs.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tokenizers import Tokenizer

from core.chat_template import ChatTemplate, TemplateFailed, constants_of, template_source
from core.encoding import Encoder
from core.errors import UserError
from core.rows import BadRow, Conversation, Message, Preference, Problem, Row, Verdict
from core.spans import Script, Span, SpanWriter

RENDERING_VERSION = 1  # raise it whenever the same row and folder would give other tokens
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True, slots=True)
class Sequence:
    """Tokens of one sequence (int32) and, for each, whether it is learned (bool). `cut`: tokens lost on the left and right."""

    input_ids: np.ndarray
    trained: np.ndarray
    cut: tuple[int, int] = (0, 0)

    @property
    def truncated(self) -> bool:
        return self.cut != (0, 0)


@dataclass(frozen=True, slots=True)
class Rendered:
    """The sequences of a row. Of a preference: that of the chosen side, and that of the rejected one."""

    sequences: tuple[Sequence, ...]
    rejected: tuple[Sequence, ...] = ()

    @property
    def every(self) -> tuple[Sequence, ...]:
        return self.sequences + self.rejected


class Renderer:
    """Renders rows for one tokenizer, template and length. Threads may share it."""

    def __init__(self, tokenizer: bytes, template: str, config: dict[str, Any], max_length: int):
        self.max_length = max_length
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        speller = Tokenizer.from_buffer(tokenizer)
        speller.encode_special_tokens = True
        added = self._tokenizer.get_added_tokens_decoder()
        self.control_ids = frozenset(added)  # what marks turns, thoughts and calls
        specials = [token.content for token in added.values() if token.special]
        self._spelled = {token: speller.encode(token, add_special_tokens=False).ids for token in specials}
        constants = constants_of(config)
        self._encoder = Encoder(self._tokenizer, tokenizer)
        is_seam = lru_cache(maxsize=1 << 14)(self._encoder.is_seam)
        self._writer = SpanWriter(ChatTemplate(template, constants), specials, is_seam)
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.highest_id: int = max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=0)
        self._name_tokens(constants)
        parts = [tokenizer, template.encode(), orjson.dumps([sorted(constants.items()), RENDERING_VERSION, max_length])]
        self.fingerprint = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()

    @classmethod
    def load(cls, directory: Path, max_length: int) -> "Renderer":
        """From a Hugging Face model folder: tokenizer.json, tokenizer_config.json, chat_template.jinja."""
        try:
            tokenizer = (directory / "tokenizer.json").read_bytes()
            config = orjson.loads((directory / "tokenizer_config.json").read_bytes())
            template = template_source(directory, config)
        except (OSError, ValueError) as problem:
            raise UserError(f"{directory}: has no readable tokenizer ({problem}); copy the base model's") from None
        if not template:
            raise UserError(f"{directory}: has no chat template; copy chat_template.jinja from the base model")
        try:
            return cls(tokenizer, template, config, max_length)
        except (TemplateFailed, ValueError) as problem:
            raise UserError(f"{directory}: cannot be used: {problem}; take the base model's own files") from None

    def render(self, rows: Iterable[Row]) -> list[Rendered | BadRow]:
        """Every row as sequences, or why it cannot be. A `Problem` gives its prompt, of which nothing is trained."""
        drafts = [(row, self._draft(row)) for row in rows]
        spans = [span for _, draft in drafts if not isinstance(draft, BadRow)
                 for side in draft for script in side for span in script]  # fmt: skip
        self._encode(spans)
        lengths = [len(span.ids) for span in spans]
        ids = np.fromiter(chain.from_iterable(span.ids for span in spans), np.int32, sum(lengths))
        trained = np.repeat(np.array([span.trained for span in spans], np.bool_), lengths)
        rendered, begin = [], 0
        for row, draft in drafts:
            if not isinstance(draft, BadRow):
                end = begin + sum(len(span.ids) for side in draft for script in side for span in script)
                draft = self._finish(row, draft, Sequence(ids[begin:end], trained[begin:end]))
                begin = end
            rendered.append(draft)
        return rendered

    def prompt_ids(self, messages: Iterable[Message], tools=None, thinking: bool = False) -> list[int]:
        """The tokens inference is given to answer `messages`. Raises BadRow if the template refuses them."""
        script = self._writer.prompt(Conversation(tuple(messages), tuple(tools) if tools else None), thinking)
        self._encode(script)
        return [int(token) for span in script for token in span.ids]

    def decode(self, ids: Iterable[int], specials: bool = True) -> str:
        """Text of `ids`, with or without the special tokens."""
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=not specials)

    def _name_tokens(self, constants: dict[str, str]) -> None:
        """Find the ids that end a text or a turn, and the one that fills."""
        find = self._tokenizer.token_to_id
        end_of_text, end_of_turn = find(END_OF_TEXT), find(self._writer.end_of_turn or "")
        named = find(constants.get("eos_token", ""))
        self.eos_id = next((each for each in (named, end_of_turn, end_of_text) if each is not None), None)
        if self.eos_id is None:
            raise TemplateFailed("no token ends a turn: the tokenizer names no eos_token and the template writes none")
        filler = find(constants.get("pad_token", ""))
        self.pad_id: int = self.eos_id if filler is None else filler
        self.stop_ids = tuple(sorted({self.eos_id, end_of_turn, end_of_text} - {None}))
        self._after_text = self.eos_id if end_of_text is None else end_of_text

    def _draft(self, row: Row) -> list[list[Script]] | BadRow:
        """For each side of the row, its scripts."""
        try:
            match row:
                case Preference():
                    return [self._writer.scripts(side) for side in row.sides]
                case Verdict():
                    return [self._writer.scripts(row.conversation)]
                case Problem():
                    return [[self._writer.prompt(Conversation(row.prompt, row.tools), thinking=False)]]
            scripts = self._writer.scripts(row)
        except BadRow as problem:
            return problem
        if row.text is not None:
            scripts[-1].append(Span(END_OF_TEXT, True, ids=(self._after_text,)))
        return [scripts]

    def _encode(self, spans: list[Span]) -> None:
        """Give every span its ids."""
        plain = [span for span in spans if span.ids is None and not span.spelled]
        for span, ids in zip(plain, self._encoder.encode([span.text for span in plain]), strict=True):
            span.ids = ids
        for span in spans:
            if span.spelled:
                span.ids = self._spelled[span.text]

    def _finish(self, row: Row, draft: list[list[Script]], whole: Sequence) -> Rendered | BadRow:
        """`whole`: the tokens of all scripts of the row, one after the other."""
        begin, finished = 0, []
        try:
            for side in draft:
                sequences = []
                for script in side:
                    end = begin + sum(len(span.ids) for span in script)
                    sequences += self._fit(row, whole.input_ids[begin:end], whole.trained[begin:end])
                    begin = end
                finished.append(tuple(sequences))
        except BadRow as problem:
            return problem
        if isinstance(row, Preference) and any(len(sequences) > 1 for sequences in finished):
            why = "has turns that the chat template shows differently later, so it is more than one sequence"
            return BadRow("chosen", why, None, "let the two answers part at their last turn")
        return Rendered(*finished)

    def _fit(self, row: Row, ids: np.ndarray, trained: np.ndarray) -> list[Sequence]:
        """A script's tokens as sequences of at most `max_length`."""
        most = self.max_length
        if isinstance(row, Problem):
            if len(ids) > most:
                raise BadRow("prompt", f"has {len(ids)} tokens; max_length is {most}", None, "shorten it")
        elif isinstance(row, Conversation) and row.text is not None:
            return [Sequence(ids[at : at + most], trained[at : at + most]) for at in range(0, len(ids), most)]
        elif not trained.any():
            raise BadRow("messages", "has no trained token: the chat template writes nothing for its answers")
        if len(ids) <= most:
            return [Sequence(ids, trained)]
        first = int(trained.argmax())
        start = 0 if first < most else first - most // 2
        end = min(len(ids), start + most)
        return [Sequence(ids[start:end], trained[start:end], (start, len(ids) - end))]
