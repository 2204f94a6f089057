"""Logs as JSON lines, a file per service and day, and a reader for them; it knows nothing about who logs what.

One record is one line and one write, so that processes may share a file and no text from outside can forge a line:
control and bidirectional characters arrive escaped. An exception's trace is a field of its record.
"""

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from core.errors import UserError, nearest
from core.paths import RealmPaths

_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_BLOCK = 1 << 16


def visible(text: str) -> str:
    """`text` with every character that could steer a terminal or hide text written as an escape."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def __init__(self, service: str):
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["trace"] = self.formatException(record.exc_info)
        return visible(json.dumps(line, ensure_ascii=False, default=str))


class HumanText(logging.Formatter):
    """A record as people read it: time, level, message, and the trace below."""

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        text = f"{clock} {record.levelname.lower():8}{visible(record.getMessage())}"
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n".join([text, *map(visible, trace.splitlines())])


class DailyFile(logging.Handler):
    """Appends to `<service>_YYYYMMDD.log`; a record after midnight opens the next day's file."""

    def __init__(self, folder: Path, service: str):
        super().__init__()
        self._folder, self._service = folder, service
        self._day, self._descriptor, self._cut = "", -1, False
        self.setFormatter(JsonLines(service))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            day = time.strftime("%Y%m%d", time.localtime(record.created))
            if day != self._day:
                self._open(day)
            line = ("\n" * self._cut + self.format(record) + "\n").encode()
            self._cut = 0 < os.write(self._descriptor, line) < len(line)  # the disk was full in the middle of it
        except OSError:  # a full disk must not end a service; logging reports it on stderr
            self.handleError(record)

    def _open(self, day: str) -> None:
        self._close()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._service}_{day}.log"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._day = day

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._day, self._descriptor = "", -1

    def close(self) -> None:
        self._close()
        super().close()


def start_logging(paths: RealmPaths, service: str, stderr: bool | None = None) -> None:
    """Send this process's log to its file; `stderr`: human text there, too (None: where it is a terminal)."""
    root = logging.getLogger()
    for handler in [ours for ours in root.handlers if isinstance(ours.formatter, JsonLines | HumanText)]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(logging.INFO)
    root.addHandler(DailyFile(paths.logs, service))
    if sys.stderr.isatty() if stderr is None else stderr:
        root.addHandler(_human(sys.stderr))
    logging.captureWarnings(True)
    sys.excepthook = _log_crash
    threading.excepthook = lambda crash: _log_crash(crash.exc_type, crash.exc_value, crash.exc_traceback)


def _human(stream: TextIO) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    handler.setFormatter(HumanText())
    return handler


def _log_crash(kind, problem, trace) -> None:
    """An exception nobody caught: into the log, and to stderr as Python does."""
    logging.getLogger("crash").critical("%s: %s", kind.__name__, problem, exc_info=(kind, problem, trace))
    sys.__excepthook__(kind, problem, trace)


# Reading


def log_files(paths: RealmPaths, service: str | None = None) -> list[Path]:
    """The log files of `service`, or of all, oldest day first. Raises UserError for a service without any."""
    files = sorted(paths.logs.glob("*_????????.log"), key=_day_of)
    known = sorted({_service_of(path) for path in files})
    if service and service not in known:
        raise UserError(
            f"no log of {service!r}{nearest(service, known) or '.'} Logs here: {', '.join(known) or 'none yet'}"
        )
    return [path for path in files if service in (None, _service_of(path))]


def _service_of(path: Path) -> str:
    return path.name[:-13]


def _day_of(path: Path) -> str:
    return path.name[-12:]


def newest_records(paths: RealmPaths, service: str | None = None, count: int = 50) -> list[dict[str, Any]]:
    """The last `count` records, oldest first, of all services together unless one is named."""
    found: list[dict[str, Any]] = []
    days = groupby(reversed(log_files(paths, service)), key=_day_of)
    for _, files in days:
        found += [_record(line, path) for path in files for line in _last_lines(path, count)]
        if len(found) >= count:
            break
    return sorted(found, key=lambda record: record["time"])[-count:] if count else []


def _last_lines(path: Path, count: int) -> list[bytes]:
    with open(path, "rb") as file:
        end = start = file.seek(0, os.SEEK_END)
        block = b""
        while start > 0 and block.count(b"\n") <= count:
            start = max(0, end - max(_BLOCK, 2 * len(block)))
            file.seek(start)
            block = file.read(end - start)
    return block.splitlines()[-count:]


def _record(line: bytes, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
        assert isinstance(record, dict)
        return {"time": 0.0, "level": "info", "service": _service_of(path), "message": "", **record}
    except (ValueError, AssertionError):  # a line cut by a crash, or somebody else's
        return {"time": 0.0, "level": "info", "service": _service_of(path), "message": line.decode(errors="replace")}


def follow(paths: RealmPaths, service: str | None, sleep: Callable[[float], None]) -> Iterator[dict[str, Any]]:
    """Records as they are written from now on, for ever; a new day's or service's file is picked up."""
    read = {path: path.stat().st_size for path in log_files(paths, service)}
    while True:
        for path in paths.logs.glob(f"{service or '*'}_????????.log"):
            with open(path, "rb") as file:
                file.seek(read.get(path, 0))
                whole, newline, _ = file.read().rpartition(b"\n")
            read[path] = read.get(path, 0) + len(whole) + len(newline)
            yield from (_record(line, path) for line in whole.splitlines())
        sleep(0.2)


def as_text(record: dict[str, Any]) -> str:
    """A record for the terminal."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["time"]))
    text = f"{clock} {record['service']:8} {record['level']:8} {visible(str(record['message']))}"
    trace = "\n".join(f"    {visible(line)}" for line in str(record.get("trace", "")).splitlines())
    return f"{text}\n{trace}" if trace else text
