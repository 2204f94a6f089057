"""Curves as a small SVG, gold on dark, that any browser shows. It knows no measure by name and needs no library."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, floor, isfinite, log10
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960, 420, 76, 210, 88, 56
NIGHT, INK, FAINT, LINE = "#14110c", "#efe6d2", "#a89878", "#3a3020"
COLOURS = ("#e0b040", "#7fb3d5", "#d98a6a", "#93c47d", "#c39bd3", "#76c7c0", "#e8d48b", "#a89878")
TICKS, MOST_POINTS = 5, 600


@dataclass(frozen=True)
class Curve:
    """Points (x, y) by rising x; those that are no numbers are gaps. `faint`: drawn thin, behind the others."""

    label: str
    points: Sequence[tuple[float, float]]
    faint: bool = False


def line_chart(title: str, subtitle: str, curves: Sequence[Curve], x_label: str, y_label: str) -> str:
    """The SVG of `curves`, each with its label beside its end. Raises ValueError where no point is a number."""
    known = [point for curve in curves for point in curve.points if isfinite(point[0]) and isfinite(point[1])]
    if not known:
        raise ValueError(f"{title}: there is no number to draw")
    xs, ys = (_Axis.around([point[axis] for point in known]) for axis in (0, 1))
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' font-family='Georgia, serif'>",
        f"<title>{escape(title)}</title>",
        f"<rect width='{WIDTH}' height='{HEIGHT}' rx='14' fill='{NIGHT}'/>",
        _text(28, 38, title, COLOURS[0], 22),
        _text(28, 62, subtitle, FAINT, 14),
        *_grid(xs, ys),
        _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_label, FAINT, 13, "middle"),
        _text(LEFT - 8, TOP - 10, y_label, FAINT, 13),
    ]
    ordered = sorted(enumerate(curves), key=lambda pair: not pair[1].faint)
    parts += [_path(curve, COLOURS[place % len(COLOURS)], xs, ys) for place, curve in ordered]
    return "\n".join([*parts, *_labels(curves, ys), "</svg>", ""])


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    step: float

    @classmethod
    def around(cls, values: Sequence[float]) -> "_Axis":
        """Round numbers around `values`."""
        low, high = min(values), max(values)
        rough = (high - low or abs(high) or 1.0) / TICKS
        power = 10.0 ** floor(log10(rough))
        step = next(part * power for part in (1, 2, 5, 10) if part * power >= rough)
        low, high = floor(low / step) * step, ceil(high / step) * step
        return cls(low, high if high > low else low + step, step)

    def share(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[float]:
        return [self.low + self.step * count for count in range(round((self.high - self.low) / self.step) + 1)]

    def text(self, tick: float) -> str:
        return f"{tick:,.{max(0, -floor(log10(self.step)))}f}"


def _x(xs: _Axis, value: float) -> float:
    return LEFT + xs.share(value) * (WIDTH - LEFT - RIGHT)


def _y(ys: _Axis, value: float) -> float:
    return HEIGHT - BOTTOM - ys.share(value) * (HEIGHT - TOP - BOTTOM)


def _grid(xs: _Axis, ys: _Axis) -> list[str]:
    parts = []
    for tick in ys.ticks:
        y = _y(ys, tick)
        parts.append(f"<line x1='{LEFT}' y1='{y:.1f}' x2='{WIDTH - RIGHT}' y2='{y:.1f}' stroke='{LINE}'/>")
        parts.append(_text(LEFT - 8, y + 4, ys.text(tick), FAINT, 12, "end"))
    for tick in xs.ticks:
        parts.append(_text(_x(xs, tick), HEIGHT - BOTTOM + 18, xs.text(tick), FAINT, 12, "middle"))
    return parts


def _path(curve: Curve, colour: str, xs: _Axis, ys: _Axis) -> str:
    """Of a long curve every so manieth point, the last one always."""
    stride, last = -(-len(curve.points) // MOST_POINTS), len(curve.points) - 1
    commands, pen_down = [], False
    for place, (x, y) in enumerate(curve.points):
        if place % stride and place != last:
            continue
        if not (isfinite(x) and isfinite(y)):
            pen_down = False
            continue
        commands.append(f"{'L' if pen_down else 'M'}{_x(xs, x):.1f} {_y(ys, y):.1f}")
        pen_down = True
    look = "stroke-width='1' opacity='0.45'" if curve.faint else "stroke-width='2.2'"
    return f"<path d='{' '.join(commands)}' fill='none' stroke='{colour}' {look}/>"


def _labels(curves: Sequence[Curve], ys: _Axis) -> list[str]:
    """Beside the curves' ends, moved apart where they would lie upon each other."""
    ends = []
    for place, curve in enumerate(curves):
        finite = [y for _, y in curve.points if isfinite(y)]
        if finite and not curve.faint:
            ends.append((_y(ys, finite[-1]) + 5, curve.label, COLOURS[place % len(COLOURS)]))
    parts, above = [], TOP - 18.0
    for y, label, colour in sorted(ends):
        above = max(y, above + 17)
        parts.append(_text(WIDTH - RIGHT + 10, above, label, colour, 14))
    return parts


def _text(x: float, y: float, text: str, colour: str, size: int, anchor: str = "start") -> str:
    look = f"fill='{colour}' font-size='{size}' text-anchor='{anchor}'"
    return f"<text x='{x:.1f}' y='{y:.1f}' {look}>{escape(text)}</text>"
