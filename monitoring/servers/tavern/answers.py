"""An answer as it arrives: chunks of a chat completion gathered into words and thoughts. It knows no model and no HTTP.

Servers tell thoughts in three ways: `reasoning_content`, `reasoning`, or `<think>…</think>` in front of the words, of
which some templates have written the opening already.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

_OPEN, _CLOSE = "<think>", "</think>"
_THOUGHTS = ("reasoning_content", "reasoning")


def split(said: str) -> tuple[str, str]:
    """Thoughts and words of raw text; what is not closed yet is thought. oracle.js says the same in the browser."""
    before, closed, after = said.partition(_CLOSE)
    opened = before.lstrip().startswith(_OPEN)
    if closed:
        return before.strip().removeprefix(_OPEN).strip(), after.lstrip()
    return (before.lstrip().removeprefix(_OPEN).strip(), "") if opened else ("", said)


@dataclass
class Answer:
    """What one model has said so far. `model`: the name it gave itself; `ended`: why it stopped, or None."""

    model: str | None = None
    ended: str | None = None
    said: str = ""
    reasoned: str = ""

    def take(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """Add a chunk; the news in it without a trace of who speaks, or None where it brings none."""
        model, choices = chunk.get("model"), chunk.get("choices")
        self.model = model if isinstance(model, str) and model else self.model
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        spoken = choice.get("delta") or choice.get("message") or {}
        said = _text(spoken.get("content"))
        reasoned = next((text for key in _THOUGHTS if (text := _text(spoken.get(key)))), "")
        self.said, self.reasoned = self.said + said, self.reasoned + reasoned
        self.ended = _text(choice.get("finish_reason")) or self.ended
        delta = {key: text for key, text in (("content", said), ("reasoning_content", reasoned)) if text}
        if not delta and not choice.get("finish_reason"):
            return None
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": choice.get("finish_reason")}]}

    @property
    def thought(self) -> str:
        return "\n\n".join(filter(None, (self.reasoned.strip(), split(self.said)[0])))

    @property
    def words(self) -> str:
        return split(self.said)[1].strip()

    def message(self) -> dict[str, str]:
        """As an assistant's turn."""
        thought = {"reasoning_content": self.thought} if self.thought else {}
        return {"role": "assistant", "content": self.words} | thought


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


class EventReader:
    """Server-sent events of a chat completion, cut anywhere: `feed` bytes, get the JSON objects that became whole."""

    LONGEST = 1 << 20

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        assert len(self._rest) <= self.LONGEST, "an event without an end"
        for line in lines:
            body = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and body != b"[DONE]":
                chunk = orjson.loads(body)
                if isinstance(chunk, dict):
                    yield chunk
