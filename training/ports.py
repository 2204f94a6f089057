"""TCP ports of this machine: whether one is free, who has it, whether the Tavern answers there. Knows no realm."""

import http.client
import socket

import psutil


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now, as the Tavern does it."""
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        socket.create_server((host, port), family=family).close()
        return True
    except OSError:
        return False


def next_free(host: str, port: int) -> int | None:
    """The first free port above `port`, within a hundred."""
    return next((other for other in range(port + 1, min(port + 101, 65536)) if is_free(host, other)), None)


def listener(port: int) -> str | None:
    """The process that listens on `port`, as `name (pid 123)`; None where the system does not tell."""
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for connection in connections:
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
            except psutil.NoSuchProcess:
                return None
    return None


def reachable(host: str) -> str:
    """The address to call a server that listens on `host`."""
    return {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def answers(host: str, port: int, path: str) -> bool:
    """Whether GET `path` gets 200 there within a second."""
    connection = http.client.HTTPConnection(reachable(host), port, timeout=1.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
