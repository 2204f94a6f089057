"""Curves as the numbers of an SVG: paths, ticks and labels for the template `_fragments/chart.html`. It reads nothing.

The plot stretches to any width; its labels are HTML at even distances, so they keep their size on a phone.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from monitoring.metrics import Curves
from monitoring.servers.tavern.words import compact, number, precise, tiny

WIDTH, HEIGHT = 1000, 300
GAP = "M"


@dataclass(frozen=True)
class Kind:
    """How one series is drawn. `from_zero`: its axis begins there. `smooth`: its trend counts more than its points."""

    series: str
    title: str
    unit: str
    words: Callable[[float | None], str]
    from_zero: bool = False
    smooth: bool = True
    validation: bool = False


LOSS = Kind("loss", "Loss", "nats per trained token", precise, validation=True)
KINDS = {
    kind.series: kind
    for kind in (
        LOSS,
        Kind("gradient_norm", "Gradient norm", "before clipping", precise, from_zero=True),
        Kind("tokens_per_second", "Throughput", "tokens per second", compact, from_zero=True),
        Kind("learning_rate", "Learning rate", "AdamW", tiny, from_zero=True, smooth=False),
    )
}
VALIDATION = Kind("validation", "Validation loss", "nats per held-out token", precise)


def chart(curves: Curves, kind: Kind, marks: Iterable[tuple[int, str]] = ()) -> dict[str, Any]:
    """The chart of one series. `marks`: steps where something began, with its name."""
    curve = curves.series[kind.series]
    middles = [(first + last) / 2 for first, last in zip(curves.first, curves.last, strict=True)]
    dots = list(zip(curves.validation_steps, curves.validation, strict=True)) if kind.validation else []
    trend = curve.smooth if kind.smooth else curve.mean
    scale = _Scale.over(curves, [*_finite(trend), *_middling(curve), *(loss for _, loss in dots)], kind.from_zero)
    newest = next((value for value in reversed(curve.mean) if value is not None), None)
    read = zip(middles, curves.last, curve.mean, curve.min, curve.max, strict=True)
    return _drawing(kind, scale, newest, _described(kind, curves, curve, newest)) | {
        "band": scale.band(middles, curve.min, curve.max) if kind.smooth else "",
        "raw": scale.line(middles, curve.mean) if kind.smooth else "",
        "line": scale.line(middles, trend),
        "dots": scale.dots(dots),
        "validation": kind.words(dots[-1][1]) if dots else None,
        "marks": [{"x": scale.x(step), "name": name} for step, name in marks if scale.first < step <= scale.last],
        "points": [
            [scale.x(middle), number(step), *map(kind.words, values)]
            for middle, step, *values in read
            if values[0] is not None
        ],
    }


def validation_chart(curves: Curves) -> dict[str, Any]:
    """Held-out losses alone, joined by a line."""
    kind, points = VALIDATION, list(zip(curves.validation_steps, curves.validation, strict=True))
    scale, newest = _Scale.over(curves, curves.validation, False), points[-1][1] if points else None
    described = f"{kind.title} in {kind.unit}: {len(points)} measurements, the newest {kind.words(newest)}."
    return _drawing(kind, scale, newest, described) | {
        "line": scale.line(curves.validation_steps, curves.validation),
        "dots": scale.dots(points),
        "points": [[scale.x(step), number(step), *[kind.words(loss)] * 3] for step, loss in points],
    }


def _drawing(kind: Kind, scale: "_Scale", newest: float | None, described: str) -> dict[str, Any]:
    """What every chart has; the curves come on top."""
    return {
        "kind": kind,
        "empty": newest is None,
        "newest": kind.words(newest),
        "width": WIDTH,
        "height": HEIGHT,
        "described": described,
        "band": "",
        "raw": "",
        "marks": [],
        "validation": None,
        **scale.labels(kind.words),
    }


def _described(kind: Kind, curves: Curves, curve, newest: float | None) -> str:
    lows, highs = _finite(curve.min), _finite(curve.max)
    if newest is None or not lows:
        return ""
    return (
        f"{kind.title} in {kind.unit}, steps {number(curves.first[0])} to {number(curves.last[-1])}: between "
        f"{kind.words(min(lows))} and {kind.words(max(highs))}, at the end {kind.words(newest)}."
    )


def _finite(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]


def _middling(curve) -> list[float]:
    """The band's values without its rarest peaks, which may leave the picture."""
    ordered = sorted(_finite([*curve.min, *curve.max]))
    cut = len(ordered) // 100
    return ordered[cut : len(ordered) - cut]


@dataclass(frozen=True)
class _Scale:
    """From steps and values to the plot's coordinates."""

    first: float
    last: float
    low: float
    high: float
    rows: int

    @classmethod
    def over(cls, curves: Curves, values: Iterable[float], from_zero: bool) -> "_Scale":
        finite = _finite(values) or [0.0, 1.0]
        low, high, rows = _ticks(0.0 if from_zero else min(finite), max(finite))
        steps = [*curves.first[:1], *curves.last[-1:], *curves.validation_steps[-1:]] or [0, 1]
        return cls(min(steps), max(steps), low, high, rows)

    def x(self, step: float) -> float:
        length = self.last - self.first
        return round(WIDTH * (step - self.first) / length, 1) if length > 0 else WIDTH / 2

    def y(self, value: float) -> float:
        return round(min(HEIGHT, max(0.0, HEIGHT * (self.high - value) / (self.high - self.low))), 1)

    def line(self, steps: Iterable[float], values: Iterable[float | None]) -> str:
        drawn, before = [], GAP
        for step, value in zip(steps, values, strict=True):
            if value is None or not math.isfinite(value):
                before = GAP
                continue
            drawn.append(f"{before}{self.x(step):g} {self.y(value):g}")
            before = "L"
        return "".join(drawn)

    def band(self, steps: list[float], lows: list[float | None], highs: list[float | None]) -> str:
        """The area between lows and highs, one polygon per stretch without a gap."""
        shapes, stretch = [], []
        for step, low, high in [*zip(steps, lows, highs, strict=True), (0, None, None)]:
            if low is not None and math.isfinite(low) and math.isfinite(high):
                stretch.append((self.x(step), self.y(low), self.y(high)))
            elif stretch:
                corners = [f"{x:g} {top:g}" for x, _, top in stretch]
                corners += [f"{x:g} {bottom:g}" for x, bottom, _ in reversed(stretch)]
                shapes.append("M" + "L".join(corners) + "Z")
                stretch = []
        return "".join(shapes)

    def dots(self, points: Iterable[tuple[float, float]]) -> str:
        """Lines without length: with round caps they stay circles, however the plot is stretched."""
        return "".join(f"M{self.x(step):g} {self.y(value):g}h0" for step, value in points if math.isfinite(value))

    def labels(self, words: Callable[[float | None], str]) -> dict[str, Any]:
        values = [self.high - (self.high - self.low) * row / self.rows for row in range(self.rows + 1)]
        length = self.last - self.first
        steps = [self.first + length * quarter / 4 for quarter in range(5 if length > 0 else 1)]
        return {
            "y_labels": _trimmed([words(value) for value in values]),
            "x_labels": [compact(round(step)) for step in steps],
            "rows": [round(HEIGHT * row / self.rows, 1) for row in range(self.rows + 1)],
        }


def _trimmed(labels: list[str]) -> list[str]:
    """Labels without the zeros that none of them needs: 2.5000 -> 2.5."""
    while all("." in label and label.endswith("0") for label in labels):
        labels = [label[:-1].rstrip(".") for label in labels]
    return labels


def _ticks(low: float, high: float) -> tuple[float, float, int]:
    """Round bounds around the values, and how many even rows lie between them (3 to 8)."""
    if high <= low:
        margin = abs(low) * 0.1 or 0.5
        low, high = (low - margin if low else 0.0), high + margin
    rough = (high - low) / 6
    power = 10 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough)
    bottom, top = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return bottom * step, top * step, max(1, top - bottom)
