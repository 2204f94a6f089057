"""A histogram of row lengths as the numbers of an SVG; it measures nothing."""

from typing import Any

from monitoring.servers.tavern.words import number

WIDTH, HEIGHT = 600, 140


def length_chart(histogram: dict[str, Any]) -> dict[str, Any]:
    """Bars, labels, and where `max_length` lies, if it lies within the picture."""
    width, counts, most = histogram["width"], histogram["counts"], histogram["max_length"]
    top, each, end = max(counts, default=0) or 1, WIDTH / max(1, len(counts)), width * len(counts)
    bars = []
    for place, rows in enumerate(counts):
        first, last = place * width, (place + 1) * width - 1
        more = place == len(counts) - 1 and histogram["longest"] > last
        height = max(1.5, HEIGHT * rows / top) if rows else 0
        bars.append(
            {
                "x": round(place * each + 0.5, 2),
                "y": round(HEIGHT - height, 2),
                "width": round(max(1.0, each - 1), 2),
                "height": round(height, 2),
                "beyond": first > most,
                "title": f"{number(first)} tokens and more: {number(rows)} rows"
                if more
                else f"{number(first)} to {number(last)} tokens: {number(rows)} rows",
            }
        )
    return {
        "bars": bars,
        "width": WIDTH,
        "height": HEIGHT,
        "mark": round(WIDTH * most / end, 2) if 0 < most < end else None,
        "max_length": most,
        "labels": [number(end * quarter / 4) for quarter in range(5)],
    }
