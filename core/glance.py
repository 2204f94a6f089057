"""A first look at a file of any size: how many rows and tokens it seems to hold, before it is judged for good.

Up to `WHOLE_BYTES` all of it is read, else stretches that lie evenly over it. The numbers have the shape of the
validator's report, whose counting this is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from core.quest import Settings
from core.quest_file import chunks, lines_of
from core.regular_file import open_regular
from core.rendering import Renderer
from core.validator import CHUNK_ROWS, DETECT_ROWS, SetAside, Tally, form_of, judge, report_of

WHOLE_BYTES = 1 << 20
STRETCHES = 32


def glance(path: Path, settings: Settings, renderer: Renderer) -> dict[str, Any]:
    """A report; `tokens.exact` says whether it is about all rows. Raises UserError, OSError."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        exact = size <= WHOLE_BYTES
        file.seek(0)
        head = next(chunks(lines_of(file, 0), DETECT_ROWS), [])
        form, school, reason = form_of(head, settings)
        tally, read = Tally(), 0
        for chunk in _chunks(file, size, exact):
            judge(chunk, form, settings, renderer if school else None, 1, tally, SetAside(None))
            read += sum(len(line) + 1 for _, line, _ in chunk)
    seen = tally.rows + tally.bad_rows
    if not exact and seen:
        tally.rows = round(size * tally.rows / read)
        tally.bad_rows = round(size * tally.bad_rows / read)
    return report_of(path, form, school, reason, 1 if exact else 2, size, None, tally, settings.max_length)


def _chunks(file: BinaryIO, size: int, exact: bool) -> Iterator[list[tuple]]:
    """Lines of the whole file, or of every stretch those that begin in it, one at least."""
    if exact:
        file.seek(0)
        yield from chunks(lines_of(file, 0), CHUNK_ROWS)
        return
    for number in range(STRETCHES):
        begin = size * number // STRETCHES
        file.seek(begin)
        if begin:
            file.readline(size)
        stretch = []
        for entry in lines_of(file, 1):
            stretch.append(entry)
            if entry[2] or file.tell() >= begin + WHOLE_BYTES // STRETCHES:
                break
        if stretch:
            yield stretch
