"""A teacher on a real socket: it answers chat completions as `say` has it, and remembers what it was asked."""

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._send(200, {"object": "list", "data": [{"id": name} for name in self.server.models]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(body)
        self.server.keys.append(self.headers.get("authorization"))
        said = self.server.say(body)
        if isinstance(said, str):
            said = 200, completion(said)
        with contextlib.suppress(OSError):
            self._send(*said)

    def _send(self, status: int, value) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        if 300 <= status < 400:
            self.send_header("location", "http://127.0.0.1:9/")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def completion(said: str | None, finish: str = "stop", **message) -> dict:
    """An answer as OpenAI's interface has it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": said, **message}, "finish_reason": finish}
    return {"object": "chat.completion", "choices": [choice]}


class Teacher(ThreadingHTTPServer):
    """`say(request)` gives the text of an answer, or (status, body). `questions`: what was asked, last turns only."""

    daemon_threads = True

    def __init__(self, say: Callable):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.say, self.asked, self.keys, self.models = say, [], [], ["sage"]
        self.url = f"http://127.0.0.1:{self.server_port}"

    @property
    def questions(self) -> list[str]:
        return [body["messages"][-1]["content"] for body in self.asked]

    def handle_error(self, *_) -> None:
        """Who was killed while it was answered is not missed."""


@contextlib.contextmanager
def teacher(say: Callable = lambda body: f"The sage says {body['messages'][-1]['content'][:9]}") -> Iterator[Teacher]:
    server = Teacher(say)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
