"""A curve for the terminal, drawn with braille dots: two across and four down in every character. It knows no measure by name."""

import math
from collections.abc import Sequence

WIDTH, HEIGHT = 64, 12
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # Unicode's braille patterns, row by row
_BLANK = 0x2800
_BLOCKS = "▏▎▍▌▋▊▉█"


def text_chart(values: Sequence[float], width: int = WIDTH, height: int = HEIGHT) -> str:
    """`values` from left to right, those that are no numbers left out, with the scale at the left."""
    columns = _columns(values, width * 2)
    known = [value for value in columns if value is not None]
    if not known:
        return "nothing to draw: there is no number"
    low, high = min(known), max(known)
    span = (high - low) or 1.0
    cells = [[_BLANK] * width for _ in range(height)]
    before = None
    for x, value in enumerate(columns):
        if value is None:
            before = None
            continue
        y = round((high - value) / span * (height * 4 - 1))
        for dot in range(min(y, y if before is None else before), max(y, y if before is None else before) + 1):
            cells[dot // 4][x // 2] |= _DOTS[dot % 4][x % 2]
        before = y
    labels = {0: f"{high:.4g}", height // 2: f"{(low + high) / 2:.4g}", height - 1: f"{low:.4g}"}
    margin = max(map(len, labels.values()))
    lines = [
        f"{labels.get(row, ''):>{margin}} ┤{''.join(map(chr, line)).rstrip(chr(_BLANK))}"
        for row, line in enumerate(cells)
    ]
    ends = f"{'1':<{max(1, width - len(str(len(values))))}}{len(values)}"
    return "\n".join([*lines, f"{'':>{margin}} └{'─' * width}", f"{'':>{margin}}  {ends}"])


def bars(values: dict[str, float], width: int = 40) -> str:
    """A bar for each number, as long as its logarithm is large among the others': gradients differ by orders of magnitude."""
    logs = {name: math.log10(value) for name, value in values.items() if value > 0 and math.isfinite(value)}
    low, high = min(logs.values(), default=0.0) - 0.5, max(logs.values(), default=0.0)
    margin = max(map(len, values), default=0)
    return "\n".join(
        f"{name:<{margin}}  {value:>9.3g}  {_bar(logs.get(name), low, high, width)}" for name, value in values.items()
    )


def _bar(value: float | None, low: float, high: float, width: int) -> str:
    if value is None:
        return ""
    eighths = max(1, round((value - low) / (high - low) * width * 8))
    return "█" * (eighths // 8) + (_BLOCKS[eighths % 8 - 1] if eighths % 8 else "")


def _columns(values: Sequence[float], count: int) -> list[float | None]:
    """`values` as so many columns: the mean of a stretch, or of few values each more than once."""
    found: list[float | None] = []
    for column in range(count if values else 0):
        first = column * len(values) // count
        stretch = values[first : max(first + 1, (column + 1) * len(values) // count)]
        known = [value for value in stretch if math.isfinite(value)]
        found.append(sum(known) / len(known) if known else None)
    return found
