"""Connections that are slow, many or stalled: what each costs, and that nobody else waits for them."""

import contextlib
import json
import socket
import threading
import time
from functools import partial

import pytest
import uvicorn
from tavern_realm import empty_realm, fill
from tavern_server import tavern

from monitoring.servers.tavern.guard import GuardedProtocol, Guests, Limits

pytestmark = pytest.mark.alone
LIMITS = Limits(
    connections=12,
    of_one_address=8,
    waiting=4,
    head_seconds=0.4,
    body_seconds=0.4,
    body_bytes=500,
    linger_seconds=0.2,
)


async def echo(scope, receive, send):
    """Answers with the number of bytes of the body; at once to /deaf, which reads none."""
    count, more = 0, scope["path"] != "/deaf"
    while more:
        message = await receive()
        count, more = count + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
    await send({"type": "http.response.body", "body": b"%9d" % count})


@pytest.fixture(scope="module")
def server():
    """A server with the guard and with limits that a test can wait for; yields its guests and a way to connect."""
    guests = Guests(LIMITS)
    config = uvicorn.Config(
        echo, http=partial(GuardedProtocol, guests=guests), ws="none", lifespan="off", log_config=None, access_log=False
    )
    running = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    yield guests, lambda: socket.create_connection(listener.getsockname(), timeout=5)
    running.should_exit = True
    thread.join(10)


def seconds_until_closed(connection):
    began = time.monotonic()
    with contextlib.suppress(ConnectionError):
        while connection.recv(4096):
            pass
    return time.monotonic() - began


def test_a_head_that_trickles_is_cut_off_at_its_deadline(server):
    _, connect = server
    for start in (b"", b"G", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "):
        connection = connect()
        connection.sendall(start)
        trickle = threading.Event()

        def drip(connection=connection, trickle=trickle):
            with contextlib.suppress(OSError):
                while not trickle.wait(0.05):
                    connection.sendall(b"a")

        thread = threading.Thread(target=drip)
        thread.start()
        assert 0.3 < seconds_until_closed(connection) < 1.5
        trickle.set()
        thread.join()
        connection.close()


def test_a_body_that_trickles_is_cut_off_and_one_that_comes_is_not(server):
    _, connect = server
    slow, steady = connect(), connect()
    for connection in (slow, steady):
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n")
    for _ in range(10):
        steady.sendall(b"x" * 300)
        time.sleep(0.1)
    assert steady.recv(4096).endswith(b"     3000")
    assert seconds_until_closed(slow) < 0.5
    slow.close()
    steady.close()


def test_who_is_answered_and_goes_on_sending_is_not_read_for_ever(server):
    _, connect = server
    connection = connect()
    connection.sendall(b"POST /deaf HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\n" + b"x" * 1000)
    assert b"200 OK" in connection.recv(4096)
    began = time.monotonic()
    with pytest.raises(OSError):
        while time.monotonic() - began < 3:
            connection.sendall(b"x" * 10_000)
            time.sleep(0.01)
    assert time.monotonic() - began < 1.5
    connection.close()


def test_of_many_that_wait_the_oldest_makes_room_and_whoever_asks_is_answered(server):
    guests, connect = server
    idle = []
    for _ in range(7):
        idle.append(connect())
        idle[-1].sendall(b"GET / HT")
        time.sleep(0.03)
    assert len(guests.waiting) == LIMITS.waiting
    with connect() as asking:
        asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert asking.recv(4096).startswith(b"HTTP/1.1 200")
    assert all(seconds_until_closed(connection) < 0.3 for connection in idle[:3])
    idle[-1].sendall(b"TP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert idle[-1].recv(4096).startswith(b"HTTP/1.1 200")
    for connection in idle:
        connection.close()


def test_one_address_has_so_many_connections_and_they_are_given_back(server):
    guests, connect = server
    time.sleep(0.6)  # those of other tests have gone
    with contextlib.ExitStack() as busy:
        for _ in range(LIMITS.of_one_address):
            connection = busy.enter_context(connect())
            connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n" + b"x" * 4000)
            time.sleep(0.01)
        assert guests.of_address["127.0.0.1"] == LIMITS.of_one_address
        with connect() as refused:
            assert seconds_until_closed(refused) < 0.3
    time.sleep(0.2)
    assert guests.of_address == {} and guests.waiting == {}


def test_pipelined_requests_are_all_answered(server):
    _, connect = server
    with connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + b"GET / HTTP/1.1\r\nHost")
        time.sleep(0.1)
        connection.sendall(b": x\r\nConnection: close\r\n\r\n")
        said = b""
        while more := connection.recv(4096):
            said += more
    assert said.count(b"HTTP/1.1 200") == 4


# The real process


def test_a_thousand_slow_connections_and_overlapping_ranges_make_nobody_wait(tmp_path):
    paths = empty_realm(tmp_path)
    fill(paths).close()
    with tavern(paths.root) as server, contextlib.ExitStack() as opened:
        slow, stop = [], threading.Event()
        for _ in range(1000):
            slow.append(opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5)))
            with contextlib.suppress(OSError):  # closed already
                slow[-1].sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        ranges = "bytes=" + ",".join(f"{place}-" for place in range(500))

        def attack():
            while not stop.wait(0.2):
                for connection in slow:
                    with contextlib.suppress(OSError):
                        connection.sendall(b"a")
                for headers in ({"Range": ranges}, {"Range": "bytes=0-,1-,2-,3-"}):
                    with contextlib.closing(server.connect()) as asking:
                        asking.request("GET", "/static/tavern.css", headers=headers)
                        assert asking.getresponse().read()

        thread = threading.Thread(target=attack)
        thread.start()
        try:
            waited = [seconds_to_answer(server, path) for path in ("/", "/api/status", "/healthz", "/quests") * 30]
        finally:
            stop.set()
            thread.join()
        p95 = sorted(waited)[int(len(waited) * 0.95)]
        print(json.dumps({"p95_seconds": round(p95, 4), "longest": round(max(waited), 4)}))
        assert p95 < 1.0
        assert sum(map(is_open, slow)) <= Limits().waiting


def seconds_to_answer(server, path):
    began = time.monotonic()
    with contextlib.closing(server.connect()) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read()
    return time.monotonic() - began


def is_open(connection):
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_no_log_ever_holds_the_token(tmp_path):
    paths = empty_realm(tmp_path)
    paths.config.write_text('{"tavern": {"require_token": true}}')
    with tavern(paths.root) as server:
        token = paths.token.read_text()
        targets = (
            f"/login?token={token}",
            f"/login?token={token}x",
            f"/nope?token={token}",
            f"/api/status?token={token}",
        )
        for target in targets:
            for headers in ({}, {"Authorization": f"Bearer {token}"}, {"Host": token}, {"Upgrade": "websocket"}):
                connection = server.connect()
                connection.request("GET", target, headers=headers)
                assert connection.getresponse().status in (200, 303, 400, 401, 404)
                connection.close()
        with socket.create_connection(("127.0.0.1", server.port)) as broken:
            broken.sendall(f"GET /{token} NONSENSE\r\n\r\n".encode())
            broken.recv(100)
    logs = [path for folder in (paths.logs, paths.status.parent) for path in folder.rglob("*") if path.is_file()]
    assert logs and not any(token.encode() in path.read_bytes() for path in logs)
