"""What a model says, made of its tokens: words and thoughts as soon as they are certain, up to its end. It knows no model."""

from collections.abc import Callable, Collection, Sequence

from core.chat_reply import Piece, Thoughts
from core.token_text import TokenText


class AnswerText:
    """`feed` each token; `finish` becomes `stop` when the answer has ended by itself, and is `length` until then."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stop_tokens: Collection[int], stop_texts: Sequence[str]):
        self._text, self._thoughts = TokenText(decode, stop_texts), Thoughts()
        self._stops = stop_tokens
        self.finish = "length"

    def feed(self, token: int) -> list[Piece]:
        if token in self._stops:
            self.finish = "stop"
            return []
        pieces = self._thoughts.feed(self._text.feed(token))
        self.finish = "stop" if self._text.stopped else self.finish
        return pieces

    def end(self) -> list[Piece]:
        """What was held back, when no token comes any more."""
        return [*self._thoughts.feed(self._text.end()), *self._thoughts.end()]
