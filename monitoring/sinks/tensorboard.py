"""TensorBoard's event files, a run for each hero; it knows nothing about where the numbers come from.

Written by hand, for the libraries that can import torch, which is no load for a copy: a file is a row of records (length, its
checksum, data, its checksum), each an `Event` of TensorFlow's event.proto, of which a scalar needs five fields.
"""

import struct
import time
from collections.abc import Mapping
from pathlib import Path

_DOUBLE, _VARINT, _BYTES, _FLOAT = 1, 0, 2, 5  # wire types of protocol buffers
WALL_TIME, STEP, FILE_VERSION, SUMMARY, SESSION_LOG = 1, 2, 3, 5, 7  # fields of Event
VALUE, TAG, SIMPLE_VALUE, STATUS, START = 1, 1, 2, 1, 1  # of Summary, Summary.Value, SessionLog


def _castagnoli() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return tuple(table)


_TABLE = _castagnoli()


def checksum(data: bytes) -> bytes:
    """CRC-32C, masked as in TensorFlow's records."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def _field(number: int, wire: int, value: bytes) -> bytes:
    return _varint(number << 3 | wire) + (_varint(len(value)) if wire == _BYTES else b"") + value


def _event(moment: float, step: int, what: bytes) -> bytes:
    return _field(WALL_TIME, _DOUBLE, struct.pack("<d", moment)) + _field(STEP, _VARINT, _varint(step)) + what


def _scalar(name: str, value: float) -> bytes:
    return _field(
        VALUE,
        _BYTES,
        _field(TAG, _BYTES, name.encode()) + _field(SIMPLE_VALUE, _FLOAT, struct.pack("<f", value)),
    )


class EventFile:
    """A new file of a run; TensorBoard reads a run's files in the order of their names."""

    def __init__(self, folder: Path, after: int):
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("events.out.tfevents.*")))
        self._file = open(folder / f"events.out.tfevents.{int(time.time())}.{number:06}.realm", "xb")
        self._record(_event(time.time(), 0, _field(FILE_VERSION, _BYTES, b"brain.Event:2")))
        if number:  # what earlier files hold from this step on is void: a writer that died may not have remembered it
            start = _field(SESSION_LOG, _BYTES, _field(STATUS, _VARINT, _varint(START)))
            self._record(_event(time.time(), after + 1, start))
        self.flush()

    def write(self, step: int, time: float, values: Mapping[str, float]) -> None:
        scalars = b"".join(_scalar(name, value) for name, value in values.items())
        self._record(_event(time, step, _field(SUMMARY, _BYTES, scalars)))

    def _record(self, data: bytes) -> None:
        length = struct.pack("<Q", len(data))
        self._file.write(length + checksum(length) + data + checksum(data))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def open_sink(folder: Path, hero: str, after: int) -> EventFile:
    return EventFile(folder / hero, after)
