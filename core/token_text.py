"""Text from tokens that arrive one by one: no half letters, and nothing past a stop text. It knows no tokenizer by name."""

from collections.abc import Callable, Sequence

_HALF = "\ufffd"  # what a decoder writes where the bytes of a letter are not all there
_MOST_HALVES = 8  # tokens of one letter at most; beyond them the model has written nonsense


class TokenText:
    """`feed(token)` returns the letters that are certain now; `stopped` once a stop text has come, which is not returned."""

    def __init__(self, decode: Callable[[Sequence[int]], str], stops: Sequence[str] = ()):
        self._decode, self._stops = decode, tuple(stops)
        self._tokens: list[int] = []
        self._told = 0  # tokens whose letters were taken
        self._before = 0  # where the context begins in which the next ones are decoded
        self._held = ""
        self.stopped = False

    def feed(self, token: int) -> str:
        self._tokens.append(token)
        known = self._decode(self._tokens[self._before : self._told])
        text = self._decode(self._tokens[self._before :])
        if text.endswith(_HALF) and len(self._tokens) - self._told < _MOST_HALVES:
            return ""
        self._before, self._told = self._told, len(self._tokens)
        return self._cut(text[len(known) :])

    def end(self) -> str:
        """What was held back, when no token comes any more."""
        text = self._decode(self._tokens[self._before :])[len(self._decode(self._tokens[self._before : self._told])) :]
        rest = self._cut(text) + self._held
        self._held = ""
        return "" if self.stopped else rest

    def _cut(self, text: str) -> str:
        """`text` up to a stop; what may be the beginning of one is held back."""
        self._held += text
        places = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            text, self._held = self._held[: min(places)], ""
            return text
        keep = max((may_begin(self._held, stop) for stop in self._stops), default=0)
        text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return text


def may_begin(text: str, mark: str) -> int:
    """How many letters at the end of `text` may be the beginning of `mark`."""
    return next((count for count in range(min(len(mark) - 1, len(text)), 0, -1) if mark.startswith(text[-count:])), 0)
