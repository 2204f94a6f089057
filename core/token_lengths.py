"""How long rows are in tokens, as a histogram that people can read; it knows nothing about rows or files."""

from typing import Any

import numpy as np

BINS = 24


def histogram(lengths: np.ndarray, max_length: int) -> dict[str, Any]:
    """Rows by their length: bin k of `counts` holds those from k times `width` on; the last one all that are longer, too.

    `max_length` lies within the bins unless all rows are far shorter; few rows are longer than twice as much.
    """
    longest = int(lengths.max()) if len(lengths) else 0
    top = longest if 2 * longest < max_length else max(max_length, min(longest, 2 * max_length))
    width = _round(top / BINS)
    bins = top // width + 1
    counts = np.bincount(np.minimum(lengths // width, bins - 1), minlength=bins)
    return {"width": width, "counts": counts.tolist(), "longest": longest, "max_length": max_length}


def _round(least: float) -> int:
    """The smallest of 1, 2, 5, 10, 20, … that is at least so much."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= least:
                return factor * power
        power *= 10
