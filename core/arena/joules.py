"""Joules that a GPU used while an agent learned, as its driver counts them; None on a CPU. It knows no agent.

The counter (nvmlDeviceGetTotalEnergyConsumption, millijoules since the driver was loaded) is the whole board's: whoever else
computes there is in it, too.
"""

from collections.abc import Callable


def read_joules() -> float | None:
    """The first GPU's counter, None where there is none or it does not count."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        return pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1000
    except pynvml.NVMLError:
        return None


class Meter:
    """`added` tells a sum with what was used since the meter was made or last asked."""

    def __init__(self, device: str, read: Callable[[], float | None] = read_joules):
        self._read = read if device == "cuda" else lambda: None
        self._last = self._read()

    def added(self, joules: float | None) -> float | None:
        now, before = self._read(), self._last
        self._last = now
        return joules if now is None or before is None else (joules or 0.0) + now - before
