"""Row → text → tokens and loss mask, for validator, preview, trainer and Oracle; knows nothing about files or torch.

What is trained is what inference sees. For every trained assistant turn the prompt is the template's rendering of all
turns before it, with the head of an answer; what the template writes after that is the answer, trained up to and with
its last special token (the end of turn). Prompt and answer are encoded apart, as inference does it. A turn without
reasoning is trained as the answer to a prompt with thinking switched off: an empty think block, if the template has
one, belongs to that prompt. A turn with reasoning is trained with it.

Turns share a sequence as long as each prompt goes on exactly, in text and in tokens, from the sequence so far. Where the
template shows earlier turns differently (Qwen3 drops their reasoning), every trained turn gets a sequence of its own.

Special tokens written out in a row's content stay text: their control ids come from the template alone.

A sequence above `max_length` is cut on the right. If that would leave no trained token it is cut on both sides, the first
trained token in its middle. Rows of plain text are never cut: they fill as many sequences as they need.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tokenizers import Tokenizer

from core.chat_template import ChatTemplate, TemplateFailed
from core.errors import UserError
from core.rows import BadRow, Conversation, Message, Preference, Problem, Row, Verdict, is_trained, text

RENDERING_VERSION = 1  # raise it whenever the same row and folder would give other tokens
ENCODE_CHUNK = 512
END_OF_TEXT = "<|endoftext|>"
_EMPTY_THOUGHT = re.compile(r"\s*(?:<think>)?\s*</think>(?:\n\n)?")
_MARKS = range(0xE000, 0xF900)  # private use: the first that a row does not contain encloses its concealed tokens


@dataclass(frozen=True, slots=True)
class Sequence:
    """Tokens of one sequence (int32) and, for each, whether it is learned (bool)."""

    input_ids: np.ndarray
    trained: np.ndarray
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Rendered:
    """The sequences of a row. Of a preference: those of the chosen side, and of the rejected one."""

    sequences: tuple[Sequence, ...]
    rejected: tuple[Sequence, ...] = ()


@dataclass(slots=True)
class _Span:
    """Text that is encoded by itself."""

    text: str
    trained: bool
    ids: list[int] | None = None


@dataclass(slots=True)
class _Script:
    """One sequence to be. `joined`: its spans up to the last answer, run together as inference would have them."""

    spans: list[_Span] = field(default_factory=list)
    joined: list[_Span] = field(default_factory=list)


class Renderer:
    """Renders rows for one tokenizer, template and length. Safe to share between threads."""

    def __init__(self, tokenizer: bytes, template: str, config: dict[str, Any], max_length: int):
        self.max_length = max_length
        self._tokenizer = Tokenizer.from_buffer(tokenizer)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        constants = {key: _content(value) for key, value in config.items() if key.endswith("_token") and _content(value)}
        self._template = ChatTemplate(template, constants)
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self._spell_specials(tokenizer)
        self._probe()
        eos, end_of_text = constants.get("eos_token"), self._tokenizer.token_to_id(END_OF_TEXT)
        self.eos_id = self._tokenizer.token_to_id(eos) if eos else self._end_of_turn
        self.pad_id = self._tokenizer.token_to_id(constants.get("pad_token", "")) or end_of_text or self.eos_id
        self.stop_ids = tuple(sorted({self.eos_id, self._end_of_turn, end_of_text} - {None}))
        self._after_text = self.eos_id if end_of_text is None else end_of_text
        parts = (tokenizer, template, orjson.dumps(constants, option=orjson.OPT_SORT_KEYS), RENDERING_VERSION, max_length)
        digests = (hashlib.sha256(part if isinstance(part, bytes) else str(part).encode()).digest() for part in parts)
        self.fingerprint = hashlib.sha256(b"".join(digests)).hexdigest()

    @classmethod
    def load(cls, directory: Path, max_length: int) -> "Renderer":
        """From a Hugging Face model folder: tokenizer.json, tokenizer_config.json, chat_template.jinja."""
        try:
            tokenizer = (directory / "tokenizer.json").read_bytes()
            config = orjson.loads((directory / "tokenizer_config.json").read_bytes())
            beside = directory / "chat_template.jinja"
            template = beside.read_text(encoding="utf-8") if beside.exists() else _template_in(config)
        except (OSError, ValueError) as problem:
            raise UserError(f"{directory}: cannot read the tokenizer ({problem}); copy it from the base model") from None
        if not template:
            raise UserError(f"{directory}: has no chat template; copy chat_template.jinja from the base model")
        try:
            return cls(tokenizer, template, config, max_length)
        except TemplateFailed as problem:
            raise UserError(f"{directory}: the chat template {problem}; take the base model's own template") from None

    def render(self, rows: Iterable[Row]) -> list[Rendered | BadRow]:
        """Every row as sequences, or why it cannot be; a row that is a `Problem` gives its prompt, with nothing trained."""
        rows = list(rows)
        drafts = [self._draft(row) for row in rows]
        self._encode([span for draft in drafts if not isinstance(draft, BadRow) for side in draft for span in _spans(side)])
        return [self._finish(row, draft) for row, draft in zip(rows, drafts, strict=True)]

    def prompt_ids(self, messages: Iterable[Message], tools=None, thinking: bool = False) -> list[int]:
        """The tokens inference is given to answer `messages`. Raises BadRow if the template refuses them."""
        script = self._prompt(Conversation(tuple(messages), tuple(tools) if tools else None), thinking)
        self._encode(script.spans)
        return [token for span in script.spans for token in span.ids]

    def decode(self, ids, specials: bool = True) -> str:
        """Text of `ids`, with or without the special tokens."""
        return self._tokenizer.decode([int(token) for token in ids], skip_special_tokens=not specials)

    def pieces(self, row: Row) -> list[list[tuple[str, bool]]]:
        """For each sequence its text, in runs that are trained or not: what a preview shows. Raises BadRow."""
        rendered = self.render([row])[0]
        if isinstance(rendered, BadRow):
            raise rendered
        return [self._runs(sequence) for sequence in rendered.sequences + rendered.rejected]

    def _runs(self, sequence: Sequence) -> list[tuple[str, bool]]:
        pairs = groupby(zip(sequence.input_ids, sequence.trained, strict=True), key=lambda pair: bool(pair[1]))
        return [(self.decode(token for token, _ in run), trained) for trained, run in pairs]

    # From a row to spans of text

    def _draft(self, row: Row, share: bool = True) -> list[list[_Script]] | BadRow:
        """For each side of the row, its scripts."""
        try:
            match row:
                case Preference():
                    return [self._scripts(side, share) for side in row.sides]
                case Verdict():
                    return [self._scripts(row.conversation, share)]
                case Problem():
                    return [[self._prompt(Conversation(row.prompt, row.tools), thinking=False)]]
                case Conversation(text=None):
                    return [self._scripts(row, share)]
                case _:
                    spans = self._apart(self._special.split(row.text), True)
                    return [[_Script([*spans, _Span("", True, [self._after_text])])]]
        except BadRow as problem:
            return problem

    def _scripts(self, conversation: Conversation, share: bool) -> list[_Script]:
        messages, tools, mark = self._shown(conversation)
        scripts: list[_Script] = []
        learned = whole = ""  # of the newest script: the text up to its last trained token, and all the template wrote
        for place, turn in enumerate(conversation.messages):
            if not is_trained(turn):
                continue
            prompt, answer = self._turn(messages, tools, place)
            if share and scripts and prompt.startswith(whole):
                script, before = scripts[-1], prompt[len(learned) :]
            else:
                script, before = _Script(), prompt
                scripts.append(script)
            prefilled, end = self._bounds(answer, "reasoning_content" in messages[place])
            learned, whole = prompt + answer[:end], prompt + answer
            for words, trained in ((before, False), (answer[:prefilled], False), (answer[prefilled:end], True)):
                script.spans += self._split(words, trained, mark)
            if script.spans[0].text != prompt:
                script.joined = self._split(prompt + answer[:prefilled], False, mark)
        return scripts

    def _turn(self, messages: list[Message], tools: list | None, place: int) -> tuple[str, str]:
        """What inference is given for the assistant turn at `place`, and what the template writes after it."""
        turn = messages[place]
        thinking = "reasoning_content" in turn
        prompt = self._write(messages[:place], tools, True, thinking)
        full = self._write(messages[: place + 1], tools, False, thinking)
        given = prompt
        if not full.startswith(given) and not thinking:
            given = self._write(messages[:place], tools, True, True)  # history without the think block that is prefilled
        if not full.startswith(given):
            raise BadRow("messages", "cannot be told apart by the chat template into prompt and answer", turn["content"])
        answer = full[len(given) :]
        if turn.get("tool_calls") and turn["tool_calls"][0]["function"]["name"] not in answer:
            raise BadRow("messages", "has tool calls, which the chat template does not show", None, "train another hero")
        return (prompt if prompt.startswith(given) else given), answer

    def _bounds(self, answer: str, thinking: bool) -> tuple[int, int]:
        """Where in an answer the trained text begins and ends."""
        empty = None if thinking else _EMPTY_THOUGHT.match(answer)
        end = len(answer)
        for special in self._special.finditer(answer):
            end = special.end()
        return (empty.end() if empty else 0), end

    def _prompt(self, conversation: Conversation, thinking: bool) -> _Script:
        messages, tools, mark = self._shown(conversation)
        return _Script(self._split(self._write(messages, tools, True, thinking), False, mark))

    def _write(self, messages: list[Message], tools: list | None, generation: bool, thinking: bool) -> str:
        try:
            return self._template.render(messages, tools, generation, thinking)
        except TemplateFailed as problem:
            raise BadRow("messages", f"the chat template refuses them: {problem}") from None

    def _shown(self, conversation: Conversation) -> tuple[list[Message], list | None, str]:
        """Messages and tools as the template gets them, and the mark around concealed special tokens, if there are any."""
        messages, tools, mark = list(conversation.messages), list(conversation.tools or ()), ""
        if any(map(self._special.search, _strings((messages, tools)))):
            written = "".join(_strings((messages, tools)))
            mark = next(chr(code) for code in _MARKS if chr(code) not in written)
            messages, tools = self._conceal(messages, mark), self._conceal(tools, mark)
        return [self._message(message) for message in messages], tools or None, mark

    def _message(self, message: Message) -> Message:
        shown = {key: value for key, value in message.items() if value is not None and key != "train"}
        if isinstance(shown.get("content"), list):
            shown["content"] = text(shown["content"], "content", may_be_empty=True)
        if thought := shown.get("reasoning_content"):
            if self._shows_reasoning:
                shown["thinking"] = thought  # the name under which some templates read it
            else:
                shown["content"] = f"<think>\n{thought}\n</think>\n\n{shown.get('content', '')}"
        return shown

    # Special tokens in content

    def _spell_specials(self, tokenizer: bytes) -> None:
        speller = Tokenizer.from_buffer(tokenizer)
        speller.encode_special_tokens = True
        self._specials = [token.content for token in self._tokenizer.get_added_tokens_decoder().values() if token.special]
        self._specials.sort(key=len, reverse=True)  # so that the pattern prefers a longer token to one it begins with
        self._spelled = {token: speller.encode(token, add_special_tokens=False).ids for token in self._specials}
        self._special = re.compile(f"({'|'.join(map(re.escape, self._specials))})" if self._specials else "((?!))")

    def _conceal(self, value: Any, mark: str) -> Any:
        """`value` with every special token in any text of it replaced by its marked number."""
        match value:
            case str():
                return self._special.sub(lambda found: f"{mark}{self._specials.index(found[0])}{mark}", value)
            case dict():
                return {self._conceal(key, mark): self._conceal(inner, mark) for key, inner in value.items()}
            case list() | tuple():
                return [self._conceal(inner, mark) for inner in value]
        return value

    def _split(self, words: str, trained: bool, mark: str) -> list[_Span]:
        """Rendered text as spans, concealed tokens spelled out."""
        if not mark:
            return [_Span(words, trained)] if words else []
        parts = re.split(f"{mark}(\\d+){mark}", words)
        parts[1::2] = [self._specials[int(number)] for number in parts[1::2]]
        return self._apart(parts, trained)

    def _apart(self, parts: list[str], trained: bool) -> list[_Span]:
        """Spans from text and spelled special tokens in turn."""
        spans = [_Span(part, trained, self._spelled[part] if odd % 2 else None) for odd, part in enumerate(parts)]
        return [span for span in spans if span.text]

    # From spans to tokens

    def _encode(self, spans: list[_Span]) -> None:
        waiting = [span for span in spans if span.ids is None]
        for start in range(0, len(waiting), ENCODE_CHUNK):
            chunk = waiting[start : start + ENCODE_CHUNK]
            texts = [span.text for span in chunk]
            for span, encoding in zip(chunk, self._tokenizer.encode_batch_fast(texts, add_special_tokens=False), strict=True):
                span.ids = encoding.ids

    def _finish(self, row: Row, draft: list[list[_Script]] | BadRow) -> Rendered | BadRow:
        if isinstance(draft, BadRow):
            return draft
        if any(_breaks(script) for side in draft for script in side):
            draft = self._draft(row, share=False)
            self._encode([span for side in draft for span in _spans(side)])
        try:
            return Rendered(*(tuple(each for script in side for each in self._fit(row, script)) for side in draft))
        except BadRow as problem:
            return problem

    def _fit(self, row: Row, script: _Script) -> list[Sequence]:
        """The script as sequences of at most `max_length` tokens."""
        ids = np.array([token for span in script.spans for token in span.ids], dtype=np.int32)
        trained = np.repeat([span.trained for span in script.spans], [len(span.ids) for span in script.spans])
        most = self.max_length
        if isinstance(row, Problem) and len(ids) > most:
            raise BadRow("prompt", f"has {len(ids)} tokens, max_length is {most}", None, "shorten it or raise max_length")
        if not isinstance(row, Problem) and not trained.any():
            raise BadRow("messages", "has no trained token: the chat template writes nothing for its answers")
        if len(ids) <= most:
            return [Sequence(ids, trained)]
        if isinstance(row, Conversation) and row.text is not None:
            return [Sequence(ids[at : at + most], trained[at : at + most]) for at in range(0, len(ids), most)]
        first = int(trained.argmax())
        start = 0 if first < most else first - most // 2
        return [Sequence(ids[start : start + most], trained[start : start + most], truncated=True)]

    def _probe(self) -> None:
        """Learn from a tiny conversation how the template ends a turn and whether it shows reasoning."""
        self._shows_reasoning = True
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]
        try:
            _, answer = self._turn(turns, None, 1)
            thought = {**turns[1], "reasoning_content": "because"}
            self._shows_reasoning = "because" in self._write([turns[0], thought], None, False, True)
        except BadRow as problem:
            raise TemplateFailed(f"fails on a question and an answer: {problem.reason}") from None
        specials = self._special.findall(answer)
        self._end_of_turn = self._tokenizer.token_to_id(specials[-1]) if specials else None


def _spans(side: list[_Script]) -> Iterable[_Span]:
    return (span for script in side for span in script.spans + script.joined)


def _breaks(script: _Script) -> bool:
    """Whether inference would cut the text before the last answer into other tokens than the spans have."""
    if not script.joined:
        return False
    joined = [token for span in script.joined for token in span.ids]
    return joined != [token for span in script.spans for token in span.ids][: len(joined)]


def _strings(value: Any) -> Iterable[str]:
    """Every text in `value`, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)


def _content(value: Any) -> str | None:
    """A special token's text, given as text or as a description of the token."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _template_in(config: dict[str, Any]) -> str | None:
    """The chat template of a tokenizer_config.json, which may be one or a list of named ones."""
    template = config.get("chat_template")
    if isinstance(template, list):
        template = {each.get("name"): each.get("template") for each in template}.get("default")
    return template
