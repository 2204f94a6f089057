"""Curves as the numbers of an SVG: paths, ticks and labels for the macro `draw` of the templates. It reads nothing.

What is drawn here is the first paint, and all there is without JavaScript; static/charts.js draws the same over it. The
plot stretches to any width; its labels are HTML at even distances, so they keep their size on a phone.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from monitoring.metrics import Curves
from monitoring.servers.tavern.words import compact, number, percent_points, precise, tiny

WIDTH, HEIGHT = 1000, 300
GAP = "M"
HUES = ("first", "second", "third", "fourth", "fifth")  # classes of the style sheet


@dataclass(frozen=True)
class Kind:
    """How one chart is drawn. `series`: its curve; `dots`: what is measured now and then, one of `Curves`' lists.

    `from_zero`: its axis begins there. `smooth`: its trend counts more than its points.
    """

    name: str
    title: str
    unit: str
    words: Callable[[float | None], str]
    series: str | None = None
    dots: str | None = None
    from_zero: bool = False
    smooth: bool = True


LOSS = Kind("loss", "Loss", "nats per token, trained and held out", precise, "loss", "validation")
KINDS = (
    LOSS,
    Kind("gap", "Overfitting gap", "held-out minus training loss", precise, dots="gap"),
    Kind("gradient_norm", "Gradient norm", "before clipping", precise, "gradient_norm", from_zero=True),
    Kind("tokens_per_second", "Throughput", "tokens per second", compact, "tokens_per_second", from_zero=True),
    Kind("learning_rate", "Learning rate", "AdamW", tiny, "learning_rate", from_zero=True, smooth=False),
)
ACCURACY = Kind("accuracy", "Right answers", "percent at the frontier, by step", percent_points, from_zero=True)
HELD_OUT = Kind("held_out", "Held-out loss", "nats, by step", precise)
RIVALS = Kind("rivals", "Loss", "nats per character, by step", precise)
HOUR = Kind("machine", "The last hour", "percent of what this machine has", percent_points, from_zero=True)


def chart(tracks: Sequence[Curves], kind: Kind, marks: Iterable[tuple[int, str]] = ()) -> dict[str, Any]:
    """One series of a track, or of two laid over each other. `marks`: steps where something began, with its name."""
    values = [value for curves in tracks for value in _weighty(curves, kind)]
    scale = _Scale.over([step for curves in tracks for step in _ends(curves)], values, kind.from_zero)
    lines, dots, alone = [], [], len(tracks) == 1
    for curves, hue in zip(tracks, HUES, strict=False):
        if kind.series:
            middles, curve = _middles(curves), curves.series[kind.series]
            if kind.smooth and alone:
                lines.append({"kind": "band", "d": scale.band(middles, curve.min, curve.max)})
            if kind.smooth:
                lines.append({"kind": f"raw {hue}", "d": scale.line(middles, curve.mean)})
            lines.append({"kind": f"line {hue}", "d": scale.line(middles, _trend(curves, kind))})
        if kind.dots:
            points = list(zip(curves.validation_steps, getattr(curves, kind.dots), strict=True))
            if kind.series is None:
                lines.append({"kind": f"line {hue}", "d": scale.line(*_columns(points))})
            dots.append(
                {"kind": f"dots {hue if kind.series is None or not alone else 'held-out'}", "d": scale.dots(points)}
            )
    return _drawing(kind, scale, _newest(tracks[0], kind), _described(kind, tracks[0])) | {
        "lines": lines,
        "dots": dots,
        "marks": [{"x": scale.x(step), "name": name} for step, name in marks if scale.first < step <= scale.last],
        "x_labels": [compact(round(step)) for step in scale.quarters()],
        "legend": _legend(kind, tracks[0], bool(marks)) if alone else [],
    }


def hour(history: dict[str, Any]) -> dict[str, Any]:
    """The machine's last hour, as `MachineHistory.told` says it."""
    times = history["time"]
    scale = _Scale.over([*times[:1], *times[-1:]], [100.0], True)
    named = list(zip(history["series"], HUES * len(history["series"]), strict=False))
    newest = [f"{series['name']} {percent_points(series['percent'][-1])}" for series, _ in named] if times else []
    drawing = _drawing(HOUR, scale, " · ".join(newest) or None, ", ".join(newest))
    return drawing | {
        "lines": [{"kind": f"line {hue}", "d": scale.line(times, series["percent"])} for series, hue in named],
        "x_labels": [f"{(moment - times[-1]) / 60:.0f} min" if times else "" for moment in scale.quarters()],
        "legend": [{"kind": f"key-line {hue}", "text": series["name"]} for series, hue in named],
    }


def accuracy(
    canaries: Sequence[tuple[int, float]], exams: Sequence[tuple[int, float]], marks: Iterable[tuple[int, str]]
) -> dict[str, Any]:
    """Answers that were right, in percent by step: a line of canaries, a dot for each exam."""
    scale = _Scale.over([step for step, _ in (*canaries, *exams)], [100.0], True)
    newest = percent_points(canaries[-1][1]) if canaries else None
    told = f"{len(canaries)} times asked, at the end {newest} right; {len(exams)} exams" if canaries else ""
    entries = [
        ("key-line first", "canaries, the same problems each time"),
        ("key-dots", "exams"),
        ("key-mark", "a level is mastered"),
    ]
    return _drawing(ACCURACY, scale, newest, told) | {
        "lines": [{"kind": "line first", "d": scale.line(*_columns(canaries))}],
        "dots": [{"kind": "dots held-out", "d": scale.dots(exams)}],
        "marks": [{"x": scale.x(step), "name": name} for step, name in marks],
        "x_labels": [compact(round(step)) for step in scale.quarters()],
        "legend": [{"kind": key, "text": text} for key, text in entries],
    }


def held_out(points: Sequence[tuple[int, float]]) -> dict[str, Any]:
    """Losses on rows that were not trained, battle after battle."""
    values = [value for _, value in points]
    scale = _Scale.over([step for step, _ in points], values, False)
    newest = precise(values[-1]) if values else None
    told = f"{len(points)} times measured, between {precise(min(values))} and {precise(max(values))}" if values else ""
    return _drawing(HELD_OUT, scale, newest, told) | {
        "lines": [{"kind": "line first", "d": scale.line(*_columns(points))}],
        "dots": [{"kind": "dots held-out", "d": scale.dots(points)}],
        "x_labels": [compact(round(step)) for step in scale.quarters()],
        "legend": [],
    }


def rivals(curves: dict[str, list[tuple[float, float | None]]]) -> dict[str, Any]:
    """What agents lose in a battle, one line for each: steps and losses by name."""
    points = [point for curve in curves.values() for point in curve]
    scale = _Scale.over([step for step, _ in points], [value for _, value in points], False)
    newest = {name: precise(curve[-1][1]) for name, curve in curves.items() if curve}
    told = ", ".join(f"{name} {value}" for name, value in newest.items())
    named = list(zip(curves, HUES * len(curves), strict=False))
    return _drawing(RIVALS, scale, " · ".join(newest.values()) or None, f"At the end: {told}." if told else "") | {
        "lines": [{"kind": f"line {hue}", "d": scale.line(*_columns(curves[name]))} for name, hue in named],
        "x_labels": [compact(round(step)) for step in scale.quarters()],
        "legend": [{"kind": f"key-line {hue}", "text": name} for name, hue in named],
    }


def _drawing(kind: Kind, scale: "_Scale", newest: str | None, described: str) -> dict[str, Any]:
    """What every chart has; the curves come on top."""
    rows = [scale.high - (scale.high - scale.low) * row / scale.rows for row in range(scale.rows + 1)]
    return {
        "kind": kind,
        "empty": newest is None,
        "newest": newest or "",
        "width": WIDTH,
        "height": HEIGHT,
        "described": described,
        "lines": [],
        "dots": [],
        "marks": [],
        "rows": [round(HEIGHT * row / scale.rows, 1) for row in range(scale.rows + 1)],
        "y_labels": _trimmed([kind.words(value) for value in rows]),
    }


def _legend(kind: Kind, curves: Curves, marked: bool) -> list[dict[str, str]]:
    if not (kind.series and kind.dots):
        return []
    told = next((value for value in reversed(getattr(curves, kind.dots)) if value is not None), None)
    entries = [("key-line", "smoothed"), ("key-band", "raw, lowest to highest")]
    entries += [("key-dots", f"{kind.dots} {kind.words(told)}")] if told is not None else []
    entries += [("key-mark", "a battle begins")] if marked else []
    return [{"kind": key, "text": text} for key, text in entries]


def _middles(curves: Curves) -> list[float]:
    return [(first + last) / 2 for first, last in zip(curves.first, curves.last, strict=True)]


def _ends(curves: Curves) -> list[float]:
    return [*curves.first[:1], *curves.last[-1:], *curves.validation_steps[-1:]]


def _trend(curves: Curves, kind: Kind) -> list[float | None]:
    curve = curves.series[kind.series]
    return curve.smooth if kind.smooth else curve.mean


def _weighty(curves: Curves, kind: Kind) -> list[float]:
    """The values that the axis must hold."""
    dots = _finite(getattr(curves, kind.dots)) if kind.dots else []
    curve = [*_finite(_trend(curves, kind)), *_middling(curves.series[kind.series])] if kind.series else []
    return curve + dots


def _newest(curves: Curves, kind: Kind) -> str | None:
    values = curves.series[kind.series].mean if kind.series else getattr(curves, kind.dots)
    newest = next((value for value in reversed(values) if value is not None), None)
    return None if newest is None else kind.words(newest)


def _described(kind: Kind, curves: Curves) -> str:
    curve = curves.series[kind.series] if kind.series else None
    lows, highs = (_finite(curve.min), _finite(curve.max)) if curve else (_finite(getattr(curves, kind.dots)),) * 2
    if not lows or not curves:
        return ""
    return (
        f"{kind.title} in {kind.unit}, steps {number(curves.first[0])} to {number(curves.last[-1])}: between "
        f"{kind.words(min(lows))} and {kind.words(max(highs))}, at the end {_newest(curves, kind) or 'unknown'}."
    )


def _columns(points: Iterable[tuple[float, Any]]) -> tuple[list[float], list[Any]]:
    points = list(points)
    return [step for step, _ in points], [value for _, value in points]


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
    def over(cls, steps: Iterable[float], values: Iterable[float], from_zero: bool) -> "_Scale":
        finite, steps = _finite(values) or [0.0, 1.0], list(steps) or [0, 1]
        low, high, rows = _ticks(0.0 if from_zero else min(finite), max(finite))
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

    def dots(self, points: Iterable[tuple[float, float | None]]) -> str:
        """Lines without length: with round caps they stay circles, however the plot is stretched."""
        known = ((step, value) for step, value in points if value is not None and math.isfinite(value))
        return "".join(f"M{self.x(step):g} {self.y(value):g}h0" for step, value in known)

    def quarters(self) -> list[float]:
        """Where the labels below the plot stand."""
        length = self.last - self.first
        return [self.first + length * quarter / 4 for quarter in range(5 if length > 0 else 1)]


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
