"""A service as an operating-system process: begin it, see its end, signal it, clear away what it leaves behind.

It knows nothing about when to do so. Only processes that this supervisor began are ever signalled: a child stays a
zombie, its pid unused by others, until its end was seen here; an orphan is known by pid and start time.
"""

import contextlib
import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from core.durable import read_json
from core.realm_lock import same_process
from safety.evidence import KernelLog, MemoryGroup

_OUTPUT_BYTES = 1 << 20
_LAST_BYTES = 16 << 10
_LOOK_SECONDS = 1.0
log = logging.getLogger("watchdog")


class Child:
    """One life of a service, in a session of its own; its stdin is empty, `output` gets what it prints."""

    def __init__(
        self,
        command: list[str],
        output: Path,
        environment: dict[str, str],
        folder: Path,
        kernel: KernelLog | None = None,
    ):
        _turn_over(output)
        self._output, self._kernel = output, kernel
        with open(output, "ab") as stream:
            self._begins = stream.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                cwd=folder,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.pid = self._process.pid
        self.started = psutil.Process(self.pid).create_time()
        self._group = MemoryGroup(self.pid)
        self._next_look = 0.0

    def poll(self) -> int | None:
        """Exit code, minus the signal's number for a death by signal, or None while it lives."""
        if self._process.returncode is None and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self._end_session()
            self._process.wait()
        if self._process.returncode is None and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._group.look()
        return self._process.returncode

    def stopped(self) -> bool:
        """Whether somebody has stopped it (SIGSTOP, a debugger): then its silence is not its own."""
        return psutil.Process(self.pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)

    def said(self) -> str:
        """The end of what this life printed."""
        with contextlib.suppress(OSError), open(self._output, "rb") as file:
            file.seek(max(self._begins, file.seek(0, os.SEEK_END) - _LAST_BYTES))
            return file.read().decode(errors="replace")
        return ""

    def oom_killed(self) -> bool:
        """Whether there is evidence that the kernel ended it, or one of its group, for memory."""
        return self._group.killed() or (self._kernel is not None and self._kernel.named(self.pid))

    def _end_session(self) -> None:
        """Whatever the dead child had begun ends, too. Its pid, the session's name, is still the zombie's."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def send(self, number: int) -> None:
        """Signal it, if it lives; what it had begun is killed with it."""
        if self.poll() is None:
            (os.killpg if number == signal.SIGKILL else os.kill)(self.pid, number)


def _turn_over(output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.exists() and output.stat().st_size > _OUTPUT_BYTES:
        os.replace(output, output.with_suffix(".out.1"))


def orphans(table: Path) -> list[dict[str, Any]]:
    """The services of a dead supervisor that still live, as its last word in services.json has them."""
    services = (read_json(table) or {}).get("services", [])
    return [
        service
        for service in services
        if service.get("pid") != os.getpid() and same_process(service.get("pid"), service.get("started"))
    ]


def await_orphans(
    table: Path,
    patience: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Let a dead supervisor's services end, as the kernel told them to; kill what is left after `patience` seconds."""
    deadline = clock() + patience
    while left := orphans(table):
        if clock() > deadline:
            for service in left:
                log.warning("killing %s (pid %d), left by a dead supervisor", service["name"], service["pid"])
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(service["pid"]).kill()
            deadline = clock() + patience
        sleep(0.1)
