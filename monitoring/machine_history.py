"""How busy this machine was over the last hour: a ring in memory, lost with its process. It draws nothing and keeps no file.

Samples are placed by a clock that also runs while the machine sleeps and that nobody sets; they are turned into times of
day when they are told, so that a clock that jumps leaves them in order and in their right place.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from monitoring.gpu import read_gpus

EVERY_SECONDS = 5.0
KEPT = 720
SLEPT = 3  # so many times the usual distance between two samples is a gap


def uptime() -> float:
    """Seconds on a clock that is never set and counts sleep, too, where the system has one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class MachineHistory:
    """CPU, memory, the disk that `root` is on, GPUs: shares in percent. `take` adds a sample."""

    def __init__(self, root: Path, gpus: Callable[[], list[dict]] = read_gpus, clock: Callable[[], float] = uptime):
        self._root, self._gpus, self._clock = root, gpus, clock
        self._samples: deque[tuple[float, dict[str, float | None]]] = deque(maxlen=KEPT)
        self._names: dict[str, str] = {"cpu": "CPU", "memory": "Memory", "disk": "Disk"}
        self._spent = _spent()

    def take(self) -> None:
        before, self._spent = self._spent, _spent()
        busy, whole = (now - then for now, then in zip(self._spent, before, strict=True))
        memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(self._root))
        shares = {
            "cpu": _share(busy, whole),
            "memory": _share(memory.total - memory.available, memory.total),
            "disk": _share(disk.total - disk.free, disk.total),
        }
        for gpu in self._gpus():
            key, name = f"gpu{gpu['index']}", gpu["name"] or "GPU"
            shares |= {key: gpu["utilization_percent"]}
            shares |= {f"{key}_memory": _share(gpu["memory_used_bytes"], gpu["memory_total_bytes"])}
            self._names |= {key: name, f"{key}_memory": f"{name}, memory"}
        self._samples.append((self._clock(), shares))

    def told(self) -> dict[str, Any]:
        """`time` in seconds since the epoch, oldest first; `series`: key, name and a share in percent for each time.

        Where the machine slept there is a moment without a value.
        """
        moments, rows, offset, before = [], [], time.time() - self._clock(), None
        for moment, shares in tuple(self._samples):
            if before is not None and moment - before > SLEPT * EVERY_SECONDS:
                moments.append(round(offset + (before + moment) / 2, 1))
                rows.append({})
            moments.append(round(offset + moment, 1))
            rows.append(shares)
            before = moment
        series = [
            {"key": key, "name": name, "percent": [row.get(key) for row in rows]}
            for key, name in tuple(self._names.items())
        ]
        return {"every_seconds": EVERY_SECONDS, "time": moments, "series": series}


def _spent() -> tuple[float, float]:
    """Seconds that all processors were busy, and seconds in all."""
    times = psutil.cpu_times()
    whole = (
        sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    )  # these two are counted in user
    return whole - times.idle - getattr(times, "iowait", 0.0), whole


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else round(min(100.0, max(0.0, 100 * part / whole)), 1)
