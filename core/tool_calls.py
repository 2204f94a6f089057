"""Tool calls in a text that arrives in parts: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, as Qwen3's template writes them.

It knows no model and no HTTP. A call is told when it is whole; what is between the marks and is none stays text.
"""

import re
import secrets

import orjson

from core.chat_reply import Call
from core.rows import BadRow, read_calls
from core.token_text import may_begin

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_SPACE_AT_END = re.compile(r"\s*\Z")


class ToolCalls:
    """`feed` the words of an answer. `count`: how many calls were found. Space around a call belongs to nobody."""

    def __init__(self):
        self.count = 0
        self._held, self._inside, self._after_call = "", False, False

    def feed(self, text: str) -> list[str | Call]:
        """The words and calls that are certain now."""
        self._held += text
        found: list[str | Call] = []
        while True:
            words, mark, rest = self._held.partition(CLOSE if self._inside else OPEN)
            if not mark:
                break
            if self._inside:
                found += self._call(words) or self._words(f"{OPEN}{words}{CLOSE}")
            else:
                found += self._words(words.rstrip())
            self._held, self._inside = rest, not self._inside
        if not self._inside:
            certain = len(self._held) - may_begin(self._held, OPEN)
            certain = _SPACE_AT_END.search(self._held, 0, certain).start()
            found += self._words(self._held[:certain])
            self._held = self._held[certain:]
        return found

    def end(self) -> list[str | Call]:
        """What was held back. A call that was not closed counts, if it is whole."""
        held, self._held = self._held, ""
        if self._inside:
            return self._call(held) or self._words(OPEN + held)
        return self._words(held)

    def _words(self, text: str) -> list[str]:
        if self._after_call:
            text = text.lstrip()
        self._after_call = self._after_call and not text
        return [text] if text else []

    def _call(self, text: str) -> list[Call]:
        """The call that stands between two marks, none where it is not one."""
        try:
            value = orjson.loads(text)
            [call] = read_calls(value if isinstance(value, dict) else None, "tool_call")
        except (orjson.JSONDecodeError, BadRow):
            return []
        name, arguments = call["function"]["name"], orjson.dumps(call["function"]["arguments"]).decode()
        self.count, self._after_call = self.count + 1, True
        return [Call(self.count - 1, f"call_{secrets.token_hex(12)}", name, arguments)]
