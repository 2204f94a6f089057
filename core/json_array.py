"""Reads the elements of a JSON array one by one, so that a file of any size needs little memory. Knows no rows."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from core.errors import UserError

_CHUNK = 1 << 20
_LARGEST = 64 << 20  # characters of one element; also how far is read before a mistake is told from an unfinished value
_SPACE = " \t\r\n"
_DECODER = json.JSONDecoder()


def elements(file: BinaryIO, name: str) -> Iterator[Any]:
    """The elements of the array that is all of `file`. Raises UserError naming `name`, line and remedy."""
    text = _Text(file, name)
    if text.next_sign() != "[":
        raise text.problem("is not a JSON array of rows")
    text.skip()
    if text.next_sign() != "]":
        yield text.value()
        while text.next_sign() == ",":
            text.skip()
            yield text.value()
    if text.next_sign() != "]":
        raise text.problem("the array has no comma or ] here")
    text.skip()
    if text.next_sign():
        raise text.problem("something follows the array")


class _Text:
    """A window on the file's text that grows while a value does not end in it."""

    def __init__(self, file: BinaryIO, name: str):
        self._file, self._name = file, name
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._window, self._place, self._lines, self._ended = "", 0, 1, False

    def next_sign(self) -> str:
        """The next character that is no space, or an empty string at the end."""
        while True:
            while self._place < len(self._window) and self._window[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._window) or not self._grow():
                return self._window[self._place : self._place + 1]

    def skip(self) -> None:
        self._place += 1

    def value(self) -> Any:
        """The value that begins here; a number at the window's edge may go on behind it."""
        self.next_sign()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._window, self._place)
            except json.JSONDecodeError as problem:
                if len(self._window) - self._place > _LARGEST or not self._grow():
                    self._place = problem.pos
                    raise self.problem(f"is not JSON: {problem.msg}") from None
            except RecursionError:
                raise self.problem("is nested too deeply") from None
            else:
                if end < len(self._window) or not self._grow():
                    self._place = end
                    return value

    def _grow(self) -> bool:
        """Read on, as much again as a value has needed so far; what lies before the place is dropped."""
        if self._ended:
            return False
        self._lines += self._window.count("\n", 0, self._place)
        self._window = self._window[self._place :]
        self._place = 0
        data = self._file.read(max(_CHUNK, len(self._window)))
        self._ended = not data
        try:
            self._window += self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError:
            raise self.problem("is not UTF-8; save the file as UTF-8") from None
        return True

    def problem(self, what: str) -> UserError:
        before = self._window[: self._place]
        return UserError(f"{self._name}:{self._lines + before.count(chr(10))}: {what}")
