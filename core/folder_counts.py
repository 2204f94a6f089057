"""How many files of a kind folders hold, counted anew only where a folder has changed. It knows nothing about quests.

A folder's time of change has the grain of the kernel's clock: what changed within the last second may change again unseen,
so that count is not relied on. A time in the future, after a clock was set back, is not either.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

SETTLED_NS = 1_000_000_000


class FolderCounts:
    """Kept by whoever asks often."""

    def __init__(self) -> None:
        self._known: dict[Path, tuple[int, int]] = {}

    def count(self, folder: Path, is_one: Callable[[str], object]) -> int:
        changed = os.stat(folder).st_mtime_ns
        before, count = self._known.get(folder, (None, 0))
        if before != changed:
            settled = 0 <= changed < time.time_ns() - SETTLED_NS
            count = sum(1 for name in os.listdir(folder) if is_one(name))
            if settled:
                self._known[folder] = (changed, count)
            else:
                self._known.pop(folder, None)
        return count
