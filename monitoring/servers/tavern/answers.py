"""An answer as it arrives: chunks of a chat completion gathered into words and thoughts, on their way to a visitor or not.

It knows no model. Servers tell thoughts in three ways: `reasoning_content`, `reasoning`, or `<think>…</think>` in front of
the words, of which some templates have written the opening already.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import Message, Send

from core.chat_reply import CLOSE, DONE, OPEN, event, pieces_of

LONGEST_LINE = 1 << 20
_PASSED_ON = (b"content-type", b"x-accel-buffering")


def split(said: str) -> tuple[str, str]:
    """Thoughts and words of raw text; what is not closed yet is thought. answers.js says the same in the browser."""
    before, closed, after = said.partition(CLOSE)
    if closed:
        return before.strip().removeprefix(OPEN).strip(), after.lstrip()
    opened = before.lstrip().startswith(OPEN)
    return (before.lstrip().removeprefix(OPEN).strip(), "") if opened else ("", said)


@dataclass
class Answer:
    """What one model has said so far. `model`: whose weights spoke, as far as that is known; `ended`: why it stopped."""

    model: str | None = None
    ended: str | None = None
    said: str = ""
    reasoned: str = ""

    def take(self, chunk: dict[str, Any]) -> dict[str, Any] | None:
        """Add a chunk; the news in it without a trace of who speaks, or None where it brings none."""
        choices = chunk.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
        delta, told = choice.get("delta"), {"content": "", "reasoning_content": ""}
        for piece in pieces_of(delta) if isinstance(delta, dict) else ():
            told["reasoning_content" if piece.thought else "content"] += piece.text
        self.said, self.reasoned = self.said + told["content"], self.reasoned + told["reasoning_content"]
        finish = choice.get("finish_reason")
        self.ended = finish if isinstance(finish, str) else self.ended
        if not any(told.values()) and not finish:
            return None
        return {"choices": [{"index": 0, "delta": told, "finish_reason": finish}]}

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


class Listener:
    """An ASGI `send` between the Oracle and a visitor: it gathers a streamed answer, and passes on what says not who speaks.

    Without a `send` it only gathers. `answer` is whole once `ended` says so; `problem` is what went wrong.
    """

    def __init__(self, send: Send | None = None):
        self.answer, self.problem = Answer(), None
        self._send, self._good, self._rest, self._refusal = send, False, b"", b""

    @property
    def whole(self) -> bool:
        return self.answer.ended is not None and self.problem is None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = dict(message["headers"])
            self._good = message["status"] == 200
            self.answer.model = (headers.get(b"x-oracle-checkpoint") or headers.get(b"x-oracle-model", b"")).decode()
            kept = [(name, value) for name, value in message["headers"] if name in _PASSED_ON]
            await self._pass_on({**message, "headers": kept})
            return
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._good:
            body = b"".join(map(event, self._news(body))) + (b"" if more else DONE)
        else:
            self._refusal += body
            self.problem = None if more else _reason(self._refusal)
        if body or not more:
            await self._pass_on({"type": "http.response.body", "body": body, "more_body": more})

    async def _pass_on(self, message: Message) -> None:
        if self._send:
            await self._send(message)

    def _news(self, body: bytes) -> Iterator[dict[str, Any]]:
        *lines, self._rest = (self._rest + body).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines, self._rest = [b"data: "], b""
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]" and (news := self._understood(data)):
                yield news

    def _understood(self, data: bytes) -> dict[str, Any] | None:
        chunk = _object(data)
        if chunk is not None and "error" not in chunk:
            return self.answer.take(chunk)
        self.problem = _reason(data)
        return {"error": {"text": self.problem, "message": self.problem}}


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, dict) else None


def _reason(body: bytes) -> str:
    error = (_object(body) or {}).get("error")
    told = error if isinstance(error, dict) else {}
    return str(told.get("text") or told.get("message") or "The answer broke off.")[:500]
