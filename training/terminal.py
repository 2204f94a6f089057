"""How answers look on the caller's terminal: JSON, tables, sizes, times. It knows nothing about the realm.

Names in them come from files that anybody may have dropped; nothing but the colours below reaches a terminal unescaped.
"""

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from core.logs import visible

CLEAR = "\x1b[H\x1b[J"
_STYLES = {"bold": "1", "dim": "2", "gold": "33", "green": "32", "red": "31"}


def is_terminal() -> bool:
    return sys.stdout.isatty()


def styled(text: str, style: str) -> str:
    """`text` in a style where colours are wanted (https://no-color.org)."""
    if not is_terminal() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def as_json(value: Any, indent: bool = True) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else 0, default=str).decode()


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Columns as wide as they need; None is a dash."""
    cells = [[cell_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(head, *cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *cells)
    ]
    return "\n".join([styled(lines[0], "dim"), *lines[1:]])


def cell_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0f}"
    return visible(str(value))


def interval_text(score: Mapping[str, float]) -> str:
    """An accuracy with its 95 % interval: 96.0% (93.6% to 97.5%)."""
    return f"{score['accuracy']:.1%} ({score['low']:.1%} to {score['high']:.1%})"


def number_text(value: float | None, unit: str = "") -> str:
    """1234567 -> 1.2M."""
    if value is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}{letter}{unit}"
    return f"{value:.0f}{unit}"


def bytes_text(count: float) -> str:
    """Binary units, as disks and memory are thought of."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def duration_text(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment_text(seconds: float | None) -> str | None:
    """Seconds since the epoch as local date and time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else None
