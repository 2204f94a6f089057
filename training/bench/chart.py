"""Bars with their ranges as a small SVG, gold on dark: the picture of one case. It knows no measure by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 960, 300, 180, 84, 26, 14
NIGHT, INK, FAINT, GOLD, EMBER, LINE = "#14110c", "#efe6d2", "#a89878", "#e0b040", "#6d5a33", "#3a3020"
FONT = "font-family='Georgia, serif'"


@dataclass(frozen=True)
class Bar:
    """`low` and `high`: the range around `value`; `note` stands behind the bar; a `hero` shines."""

    label: str
    value: float
    low: float
    high: float
    note: str = ""
    hero: bool = False


def chart(title: str, subtitle: str, bars: Sequence[Bar], scale: str, digits: int = 0) -> str:
    """`scale` names what the bars' length means; values are shown with so many `digits` after the point."""
    most = max(bar.high for bar in bars)
    height = TOP + len(bars) * (BAR + GAP) + 46
    per_unit = (WIDTH - LEFT - RIGHT) / most
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {height}' role='img' {FONT}>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{WIDTH}' height='{height}' rx='14' fill='{NIGHT}'/>",
        _text(28, 40, title, GOLD, 23),
        _text(28, 64, subtitle, FAINT, 14),
    ]
    bottom = TOP + len(bars) * (BAR + GAP)
    for tick in _ticks(most):
        x = LEFT + tick * per_unit
        parts.append(f"<line x1='{x:.1f}' y1='{TOP - 6}' x2='{x:.1f}' y2='{bottom}' stroke='{LINE}'/>")
        parts.append(_text(x, bottom + 16, f"{tick:,.{min(digits, 1)}f}", FAINT, 12, "middle"))
    parts += [part for place, bar in enumerate(bars) for part in _bar(bar, TOP + place * (BAR + GAP), per_unit, digits)]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 36, scale, FAINT, 13, "middle"))
    return "\n".join([*parts, "</svg>", ""])


def _bar(bar: Bar, y: float, per_unit: float, digits: int) -> list[str]:
    middle, end = y + BAR / 2, LEFT + bar.value * per_unit
    low, high = LEFT + bar.low * per_unit, LEFT + bar.high * per_unit
    strong, metal = (GOLD, GOLD) if bar.hero else (INK, EMBER)
    whisker = f"M{low:.1f} {middle} H{high:.1f} M{low:.1f} {middle - 5} v10 M{high:.1f} {middle - 5} v10"
    return [
        _text(LEFT - 12, middle + 5, bar.label, strong, 15, "end"),
        f"<rect x='{LEFT}' y='{y}' width='{end - LEFT:.1f}' height='{BAR}' rx='3' fill='{metal}'/>",
        f"<path d='{whisker}' stroke='{INK}' stroke-width='1.5' fill='none'/>",
        _text(max(end, high) + 10, middle + 5, f"{bar.value:,.{digits}f}", INK, 15),
        _text(WIDTH - 24, middle + 5, bar.note, GOLD, 15, "end"),
    ]


def _text(x: float, y: float, text: str, colour: str, size: int, anchor: str = "start") -> str:
    look = f"fill='{colour}' font-size='{size}' text-anchor='{anchor}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {look}>{escape(text)}</text>"


def _ticks(most: float) -> list[float]:
    """Three to six round numbers from 0 up to `most`."""
    power = 10.0 ** (len(str(int(most))) - 1)
    step = next(part * power for part in (0.2, 0.5, 1, 2, 5) if most / (part * power) < 6)
    return [step * count for count in range(int(most / step) + 1)]
