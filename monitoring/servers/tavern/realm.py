"""The realm as the Tavern's requests share it: status and machine readings computed once for everybody. It only reads;
what visitors want exported or fought is done by processes beside it.

Built so that it answers before there is a ledger: what needs one opens it when it is asked.
"""

import threading
import time
from typing import Any

import psutil

from core.config import Config
from core.folder_counts import FolderCounts
from core.full_disk import Reserve
from core.ledger import Ledger
from core.paths import RealmPaths
from core.status import realm_status
from monitoring.gpu import read_gpus
from monitoring.machine_history import MachineHistory
from monitoring.metrics import Metrics
from monitoring.servers.tavern.arena_battles import ArenaBattles
from monitoring.servers.tavern.estimate import QueueEstimate
from monitoring.servers.tavern.exports import Exports

FRESH_SECONDS = 0.5


class Realm:
    """Paths, config, ledger, metrics, and `status()`, which is at most half a second old and must not be changed."""

    def __init__(self, paths: RealmPaths, config: Config):
        self.paths, self.config = paths, config
        self.metrics = Metrics(paths.metrics, config.hero.name)
        self.exports, self.battles = Exports(paths), ArenaBattles(paths)
        self._folders = FolderCounts()
        self._estimate = QueueEstimate(config.hero.name)
        self.history = MachineHistory(paths.root)
        self._ledger: Ledger | None = None
        self._lock = threading.Lock()
        self._status: dict[str, Any] = {}
        self._machine: dict[str, Any] = {}
        self._read = float("-inf")
        psutil.cpu_percent()  # the first reading is always zero

    @property
    def ledger(self) -> Ledger:
        with self._lock:
            self._ledger = self._ledger or Ledger(self.paths.ledger, Reserve(self.paths).release)
        return self._ledger

    def status(self) -> dict[str, Any]:
        return self._readings()[0]

    def machine(self) -> dict[str, Any]:
        """CPU and memory of this machine, room on the realm's disk."""
        return self._readings()[1]

    def queue_seconds(self) -> float | None:
        """An estimate of the time until nothing waits any more."""
        return self._estimate.seconds(self.status(), self.ledger)

    def _readings(self) -> tuple[dict[str, Any], dict[str, Any]]:
        ledger = self.ledger
        with self._lock:
            if time.monotonic() - self._read >= FRESH_SECONDS:
                self._status = realm_status(self.paths, self.config, ledger, read_gpus(), self._folders)
                self._machine = _machine(self.paths)
                self._read = time.monotonic()
            return self._status, self._machine

    def stale(self) -> None:
        """The next reading is a new one: somebody has just changed something."""
        self._read = float("-inf")

    def newest_event(self) -> int:
        row = self.ledger.one("SELECT MAX(id) AS id FROM events")
        return row["id"] or 0

    def events_after(self, event: int, limit: int = 500) -> list[dict[str, Any]]:
        """The oldest `limit` events with an id above `event`, in order."""
        return self.ledger.all(
            "SELECT id, time, service, level, code, text FROM events WHERE id>? ORDER BY id LIMIT ?", (event, limit)
        )


def _machine(paths: RealmPaths) -> dict[str, Any]:
    memory, disk = psutil.virtual_memory(), psutil.disk_usage(str(paths.root))
    return {
        "cpu_percent": psutil.cpu_percent(),
        "cpus": psutil.cpu_count(),
        "memory_used_bytes": memory.total - memory.available,
        "memory_total_bytes": memory.total,
        "disk_used_bytes": disk.total - disk.free,
        "disk_total_bytes": disk.total,
    }
