"""From the bytes of a quest file to rows, one line at a time, in bounded memory; it judges lines, never whole files."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from core.formats import MAX_LINE_BYTES, BadRow, Row, read, strict_json

CHUNK_BYTES = 4 << 20
_BOM = b"\xef\xbb\xbf"


def read_lines(path: Path, hasher=None) -> Iterator[tuple[int, bytes, BadRow | None]]:
    """Number (from 1), bytes without the line's end, and what is wrong with it as a line; blank lines are passed over.

    `hasher.update` gets every byte of the file. A line above `MAX_LINE_BYTES` is given by its beginning only.
    """
    with open(path, "rb") as file:
        yield from lines_of(file, 0, hasher)


def lines_of(file: BinaryIO, number: int, hasher=None) -> Iterator[tuple[int, bytes, BadRow | None]]:
    """`read_lines` from where `file` stands, after line `number`."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if hasher:
            hasher.update(line)
        too_long = len(line) > MAX_LINE_BYTES and not line.endswith(b"\n")
        if number == 1 and line.startswith(_BOM):
            line = line[len(_BOM) :]
        line = line.rstrip(b"\r\n")
        if too_long:
            yield (
                number,
                line,
                BadRow("line", f"is longer than {MAX_LINE_BYTES >> 20} MiB", line[:80], "split the row"),
            )
            _skip_line(file, hasher)  # read on only if another line is asked for
        elif line.strip():
            yield number, line, None


def _skip_line(file, hasher) -> None:
    while more := file.readline(1 << 20):
        if hasher:
            hasher.update(more)
        if more.endswith(b"\n"):
            return


def chunks(entries: Iterable[tuple], rows: int) -> Iterator[list[tuple]]:
    """Entries (number, line, …) in lists of at most `rows` and of about `CHUNK_BYTES`, so that long rows need no more memory."""
    chunk: list[tuple] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += len(entry[1])
        if len(chunk) == rows or size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def parse(line: bytes) -> dict | BadRow:
    """The JSON object in `line`, or what is wrong with it."""
    try:
        return strict_json(line)
    except BadRow as problem:
        return problem


def read_rows(path: Path, form, columns: dict[str, str], hasher=None) -> Iterator[tuple[int, bytes, Row | BadRow]]:
    """Every line of `path` as a row of `form`, or what is wrong with it: number, raw bytes, row."""
    for number, line, problem in read_lines(path, hasher):
        values = problem or parse(line)
        yield number, line, values if isinstance(values, BadRow) else to_row(form, values, columns)


def to_row(form, values: dict, columns: dict[str, str]) -> Row | BadRow:
    try:
        return read(form, values, columns)
    except BadRow as problem:
        return problem
