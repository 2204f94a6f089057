"""Answers in OpenAI's form, whole or as the chunks of a stream: written here, and read back. It knows no model, no HTTP.

Servers put the thoughts of a model into `reasoning_content` (vLLM before, SGLang, llama.cpp) or `reasoning` (vLLM), or leave
them in the text as `<think>…</think>`; readers of this module need not care.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from core.token_text import may_begin

DONE = b"data: [DONE]\n\n"
OPEN, CLOSE = "<think>", "</think>"


@dataclass(frozen=True)
class Piece:
    """A part of an answer: words, or thoughts ahead of them."""

    text: str
    thought: bool = False


@dataclass(frozen=True)
class Call:
    """That a tool be called. `arguments` is JSON, `index` its place among the calls of the answer."""

    index: int
    id: str
    name: str
    arguments: str

    def facts(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.arguments}}


Part = Piece | Call  # of an answer


def delta(part: Part) -> dict[str, Any]:
    if isinstance(part, Call):
        return {"tool_calls": [{"index": part.index, **part.facts()}]}
    return {"reasoning_content" if part.thought else "content": part.text}


def chunk(reply: dict[str, Any], delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One message of a stream; `reply` are the facts that all chunks share: id, created, model."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event(reply | {"object": "chat.completion.chunk", "choices": [choice]})


def event(value: Any) -> bytes:
    return b"data: " + orjson.dumps(value) + b"\n\n"


def error_event(code: str, text: str) -> bytes:
    """How a stream that has begun tells that it cannot go on; OpenAI's client raises it."""
    return event({"error": {"message": text, "type": code, "code": code, "text": text}})


def completion(reply: dict[str, Any], parts: Iterable[Part], finish: str, usage: dict[str, int]) -> dict[str, Any]:
    """A whole answer."""
    parts = list(parts)
    pieces, calls = ([part for part in parts if isinstance(part, kind)] for kind in (Piece, Call))
    said = "".join(piece.text for piece in pieces if not piece.thought)
    message: dict[str, Any] = {"role": "assistant", "content": None if calls and not said else said}
    if calls:
        message["tool_calls"] = [call.facts() for call in calls]
    if thoughts := "".join(piece.text for piece in pieces if piece.thought):
        message["reasoning_content"] = thoughts
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return reply | {"object": "chat.completion", "choices": [choice], "usage": usage}


class Thoughts:
    """Tells thoughts from words in a text that arrives in parts: `<think>…</think>` at its beginning.

    `thinking`: whether the prompt has opened the thought already.
    """

    def __init__(self, thinking: bool = False):
        self._state = "thought" if thinking else "begin"
        self._held = ""

    def feed(self, text: str) -> list[Piece]:
        """What of the text so far is certain."""
        self._held += text
        pieces: list[Piece] = []
        if self._state == "begin":
            opening = self._held.lstrip()
            if opening.startswith(OPEN):
                self._state, self._held = "thought", opening.removeprefix(OPEN)
            elif not OPEN.startswith(opening):
                self._state = "words"
        if self._state == "thought":
            thought, closed, rest = self._held.partition(CLOSE)
            keep = 0 if closed else may_begin(thought, CLOSE)
            self._held = rest if closed else thought[len(thought) - keep :]
            _add(pieces, thought[: len(thought) - keep], True)
            self._state = "gap" if closed else "thought"
        if self._state == "gap":
            self._held = self._held.lstrip("\n")
            self._state = "words" if self._held else "gap"
        if self._state == "words":
            _add(pieces, self._held, False)
            self._held = ""
        return pieces

    def end(self) -> list[Piece]:
        """What was held back."""
        held, self._held = self._held, ""
        return [Piece(held, self._state == "thought")] if held else []


def _add(pieces: list[Piece], text: str, thought: bool) -> None:
    if text:
        pieces.append(Piece(text, thought))


# Reading


def pieces_of(part: dict[str, Any]) -> Iterator[Piece]:
    """The thoughts and words in a `delta` or a `message`, whatever the server calls them."""
    for name in ("reasoning_content", "reasoning"):
        if isinstance(part.get(name), str) and part[name]:
            yield Piece(part[name], True)
            break
    if isinstance(part.get("content"), str) and part["content"]:
        yield Piece(part["content"])
