"""Whether a battle can afford another look at itself: what was spent on looking, against a share of its time. No torch.

Looking changes neither weights nor random streams, so a stopwatch may decide about it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SHARE = 0.05


class TimeBudget:
    """One battle's. `rates`: seconds per unit that each kind of look took last; the caller keeps them between battles."""

    def __init__(self, rates: dict[str, float], share: float = SHARE, clock: Callable[[], float] = time.perf_counter):
        self.share, self.trained, self.spent = share, 0.0, 0.0
        self._rates, self._clock = rates, clock

    def train(self, seconds: float) -> None:
        """So long was trained."""
        self.trained += seconds

    @property
    def left(self) -> float:
        """Seconds that may still be spent on looking now."""
        return self.share * (self.trained + self.spent) - self.spent

    def affords(self, kind: str, units: float, guess: float) -> bool:
        """Whether `units` more of this kind fit in; `guess`: their seconds, as long as none was ever done."""
        cost = units * self._rates[kind] if kind in self._rates else guess
        return cost <= self.left

    @contextmanager
    def spending(self, kind: str, units: float) -> Iterator[None]:
        """What happens inside is a look of so many units."""
        began = self._clock()
        yield
        seconds = self._clock() - began
        self.spent += seconds
        self._rates[kind] = seconds / units
