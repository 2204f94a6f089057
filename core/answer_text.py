"""What a model says, made of its tokens: words, thoughts and calls as soon as they are certain, up to its end.

It knows no model.
"""

from collections.abc import Callable, Collection, Sequence

from core.chat_reply import Call, Part, Piece, Thoughts
from core.token_text import TokenText
from core.tool_calls import ToolCalls


class AnswerText:
    """`feed` each token until it `ended` by itself. Calls are looked for where `tools` may be called, and only one if so wanted."""

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        stop_tokens: Collection[int],
        stop_texts: Sequence[str],
        tools: bool = False,
        one_call: bool = False,
    ):
        self._text, self._thoughts = TokenText(decode, stop_texts), Thoughts()
        self._calls, self._one_call = ToolCalls() if tools else None, one_call
        self._stops = stop_tokens
        self.ended = False

    @property
    def finish(self) -> str:
        """Why there is no more, in OpenAI's words."""
        if not self.ended:
            return "length"
        return "tool_calls" if self._calls and self._calls.count else "stop"

    def feed(self, token: int) -> list[Part]:
        if token in self._stops:
            self.ended = True
            return []
        parts = self._told(self._thoughts.feed(self._text.feed(token)))
        self.ended = self._text.stopped or (self._one_call and any(isinstance(part, Call) for part in parts))
        return parts

    def end(self) -> list[Part]:
        """What was held back, when no token comes any more."""
        parts = self._told([*self._thoughts.feed(self._text.end()), *self._thoughts.end()])
        return parts + [_part(each) for each in (self._calls.end() if self._calls else ())]

    def _told(self, pieces: list[Piece]) -> list[Part]:
        """The same with calls taken out of the words."""
        if self._calls is None:
            return list(pieces)
        return [
            told
            for piece in pieces
            for told in ([piece] if piece.thought else map(_part, self._calls.feed(piece.text)))
        ]


def _part(told: str | Call) -> Part:
    return Piece(told) if isinstance(told, str) else told
