"""A Tavern called from the command line or from another machine: chat, and the files of a checkpoint. It follows no redirect.

Errors are told in the words of the Tavern that was asked.
"""

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpcore2
import orjson

from core.chat_reply import Piece, pieces_of
from core.errors import RealmError

SECONDS = {"connect": 5.0, "read": 120.0, "write": 30.0, "pool": 5.0}
JSON_BYTES = 16 << 20
NOT_YET, AGAIN_SECONDS = (429, 502, 503, 504), 1.0  # answers to ask again after
_LOST = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError, OSError, ssl.SSLError)


class TavernProblem(RealmError):
    """The Tavern refused, or was lost; `status` is None where it did not answer."""

    def __init__(self, text: str, status: int | None = None):
        super().__init__(text)
        self.status = status


class TavernClient:
    """The Tavern at `url`; `token` where it asks for one."""

    def __init__(self, url: str, token: str | None = None):
        self.url = url.rstrip("/")
        self._headers = {"accept-encoding": "identity", "user-agent": "realm"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"
        self._pool = httpcore2.ConnectionPool(max_connections=2)

    def close(self) -> None:
        self._pool.close()

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`. Raises TavernProblem."""
        with self._asked("GET", path) as response:
            return _object(_whole(response))

    def rows(self, path: str) -> list[dict[str, Any]]:
        """The JSON array at `path`. Raises TavernProblem."""
        with self._asked("GET", path) as response:
            return _json(_whole(response), list, "array")

    def download(self, path: str, begin: int = 0) -> Iterator[tuple[int, bytes]]:
        """The file at `path` from byte `begin` on, as (place, part); from 0 where the Tavern does not go on."""
        with self._asked("GET", path, {"range": f"bytes={begin}-"} if begin else {}) as response:
            place = begin if response.status == 206 else 0
            for part in response.iter_stream():
                yield place, part
                place += len(part)

    def chat(self, request: dict[str, Any], about: dict[str, str]) -> Iterator[Piece]:
        """The answer, part by part if `request` wants a stream; `about` gets who answers. Raises TavernProblem."""
        body = orjson.dumps(request)
        with self._asked("POST", "/v1/chat/completions", {"content-type": "application/json"}, body) as response:
            for name, value in response.headers:
                if (key := name.decode("latin-1").lower()).startswith("x-oracle-"):
                    about[key.removeprefix("x-oracle-")] = value.decode("latin-1")
            if request.get("stream"):
                yield from _pieces(response.iter_stream())
            else:
                choices = _object(_whole(response)).get("choices") or [{}]
                yield from pieces_of(choices[0].get("message") or {})

    def ask(self, model: str, prompt: str, most: int, patience: float, about: dict[str, str] | None = None) -> str:
        """The likeliest answer to one prompt, at most so many tokens, without its thought. An Oracle that is started just now
        or has others to answer is asked again for `patience` seconds. Raises TavernProblem."""
        request = {
            "model": model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": most,
        }
        end = time.monotonic() + patience
        while True:
            try:
                pieces = self.chat(request, {} if about is None else about)
                return "".join(piece.text for piece in pieces if not piece.thought)
            except TavernProblem as problem:
                if problem.status not in NOT_YET or time.monotonic() > end:
                    raise
                time.sleep(AGAIN_SECONDS)

    @contextmanager
    def _asked(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Iterator[httpcore2.Response]:
        try:
            with self._pool.stream(
                method,
                self.url + path,
                headers=self._headers | (headers or {}),
                content=body,
                extensions={"timeout": SECONDS},
            ) as response:
                if response.status not in (200, 206):
                    raise TavernProblem(self._reason(response), response.status)
                yield response
        except _LOST as problem:
            why = str(problem) or type(problem).__name__
            raise TavernProblem(f"{self.url} cannot be reached, or the connection broke: {why}") from problem

    def _reason(self, response: httpcore2.Response) -> str:
        try:
            told = _object(_whole(response)).get("error", {}).get("text")
        except (TavernProblem, AttributeError):
            told = None
        where = " Redirects are not followed." if 300 <= response.status < 400 else ""
        return told or f"{self.url} answered {response.status}; is it a Tavern?{where}"


def _whole(response: httpcore2.Response) -> bytes:
    read = bytearray()
    for part in response.iter_stream():
        read += part
        if len(read) > JSON_BYTES:
            raise TavernProblem(f"the answer has more than {JSON_BYTES:,} bytes")
    return bytes(read)


def _object(body: bytes) -> dict[str, Any]:
    return _json(body, dict, "object")


def _json(body: bytes, kind: type, name: str) -> Any:
    try:
        values = orjson.loads(body)
    except orjson.JSONDecodeError:
        values = None
    if not isinstance(values, kind):
        raise TavernProblem(f"the answer is no JSON {name}; is it a Tavern's address?")
    return values


def _pieces(parts: Iterator[bytes]) -> Iterator[Piece]:
    """What the messages of a stream say. Raises TavernProblem where one tells an error."""
    held = b""
    for part in parts:
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if line.startswith(b"data:") and data != b"[DONE]":
                message = _object(data)
                if error := message.get("error"):
                    raise TavernProblem(str(error.get("message") or error.get("text") or error))
                for choice in message.get("choices") or ():
                    yield from pieces_of(choice.get("delta") or {})
