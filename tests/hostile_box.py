"""A box that is asked by the Oracle's proxy: a real socket server that may be well-behaved, slow, dying or hostile.

How it behaves is the text of the last message of a request: the name of a method of `Manners`.
"""

import json
import socket
import socketserver
import threading
import time
from contextlib import suppress


def chunk(text: str, **more) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return (
        b"data: "
        + json.dumps({"id": "x", "object": "chat.completion.chunk", "choices": [choice], **more}).encode()
        + b"\n\n"
    )


class Manners(socketserver.StreamRequestHandler):
    """One connection. Every answer closes it."""

    def handle(self) -> None:
        head = []
        while line := self.rfile.readline().strip():
            head.append(line.decode())
        if not head:
            return
        _, path, _ = head[0].split()
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.body = json.loads(body) if body else {}
        self.server.seen.append({"path": path, "headers": self.headers, "body": self.body, "raw": "\n".join(head)})
        how = {"/health": self.server.health, "/v1/models": self.server.listing}.get(path)
        with suppress(OSError):
            getattr(self, how or self.body["messages"][-1]["content"])()

    # Manners

    def healthy(self) -> None:
        self.whole({"status": "ok"})

    def models(self) -> None:
        self.whole({"object": "list", "data": self.server.models})

    def answer(self) -> None:
        """What any good server does."""
        if not self.body.get("stream"):
            message = {"role": "assistant", "content": "well", "reasoning_content": "hm"}
            self.whole({"id": "x", "object": "chat.completion", "model": self.body["model"],
                        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})  # fmt: skip
            return
        self.begin_stream()
        for text in ("one", " two", " three"):
            self.server.wrote.append(time.monotonic())
            self.part(chunk(text))
            time.sleep(0.05)
        self.part(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def never_ends(self) -> None:
        """Words until the other side is gone, which is noted."""
        self.begin_stream()
        self.until_gone(lambda: (self.part(chunk("more ")), time.sleep(0.02)))

    def says_nothing(self) -> None:
        self.until_gone(lambda: time.sleep(0.02) if self.still_there() else self.fail())

    def dies(self) -> None:
        self.begin_stream()
        self.part(chunk("half"))
        time.sleep(0.1)

    def dies_at_first(self) -> None:
        """Twice no answer at all, the third time a good one."""
        self.server.tries += 1
        if self.server.tries > 2:
            self.answer()

    def busy(self) -> None:
        self.whole({"error": {"message": "loading the model"}}, "503 Service Unavailable")

    def refuses(self) -> None:
        self.whole({"error": {"message": "no such parameter: foo"}}, "422 Unprocessable Entity")

    def wants_a_key(self) -> None:
        self.whole(
            {"error": {"message": "no key"}}, "401 Unauthorized", "www-authenticate: Basic\r\nset-cookie: a=b\r\n"
        )

    def breaks(self) -> None:
        self.whole({"detail": "x" * 5000}, "500 Oops")

    def redirects(self) -> None:
        self.whole({}, "307 Elsewhere", f"location: {self.server.canary}\r\n")

    def sends_html(self) -> None:
        self.raw("200 OK", "text/html", b"<script>alert(1)</script>")

    def compresses(self) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n"
        )
        self.wfile.write(b"\x1f\x8b" + b"\0" * 100)

    def floods(self) -> None:
        """A stream as fast as it goes, without end."""
        self.begin_stream()
        self.until_gone(lambda: self.part(chunk("x" * 60_000)))

    def is_huge(self) -> None:
        """One JSON answer of a gigabyte."""
        self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\n\r\n")
        self.until_gone(lambda: self.wfile.write(b'{"a": "' + b"x" * 65_536))

    def huge_list(self) -> None:
        self.is_huge()

    def endless_head(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n")
        self.until_gone(lambda: self.wfile.write(b"x-more: " + b"y" * 8000 + b"\r\n"))

    def is_no_http(self) -> None:
        self.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")

    # Means

    def begin_stream(self) -> None:
        self.wfile.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nset-cookie: a=b\r\n\r\n"
        )

    def part(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def whole(self, value, status: str = "200 OK", more: str = "") -> None:
        self.raw(status, "application/json", json.dumps(value).encode(), more)

    def raw(self, status: str, kind: str, body: bytes, more: str = "") -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{more}\r\n"
        self.wfile.write(head.encode() + body)

    def still_there(self) -> bool:
        self.connection.settimeout(0.001)
        try:
            return self.connection.recv(1) != b""
        except TimeoutError:
            return True

    def fail(self) -> None:
        raise ConnectionResetError

    def until_gone(self, again) -> None:
        try:
            while True:
                again()
        except OSError:
            self.server.gone.set()


class Box(socketserver.ThreadingTCPServer):
    """`seen`: the requests; `wrote`: when parts of good answers were written; `gone`: set when a visitor was missed."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, port: int = 0, health: str = "healthy", listing: str = "models"):
        super().__init__(("127.0.0.1", port), Manners)
        self.health, self.listing = health, listing
        self.models = [{"id": "some-model", "object": "model"}]
        self.seen: list[dict] = []
        self.wrote: list[float] = []
        self.gone, self.tries, self.canary = threading.Event(), 0, "http://127.0.0.1:9/"
        self.port = self.server_address[1]
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def handle_error(self, request, client_address) -> None:
        """A connection that breaks is what many of its manners are about."""

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Tap(socketserver.ThreadingTCPServer):
    """Stands between the proxy and a box, and notes in `words` when each part of an answer with words in it came from there."""

    allow_reuse_address, daemon_threads = True, True

    def __init__(self, target: int):
        super().__init__(("127.0.0.1", 0), _Between)
        self.target, self.port = target, self.server_address[1]
        self.words: list[float] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Between(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.server.target)) as box:
            threading.Thread(target=self.hand_on, args=(self.request, box), daemon=True).start()
            self.hand_on(box, self.request, self.server.words)

    @staticmethod
    def hand_on(source: socket.socket, target: socket.socket, words: list[float] | None = None) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if words is not None and b'"content":"' in data:
                    words.append(time.monotonic())
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)
