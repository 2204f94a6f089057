"""Writes one checkpoint at a time while training goes on, in a thread of low priority. It knows nothing about verdicts.

`tip` is the newest checkpoint on disk; `held` says what the newest copy of the weights holds, on disk or not yet.
"""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from core import checkpoints
from core.checkpoints import Manifest
from core.errors import RealmError
from core.forge.snapshot import Snapshot
from core.paths import RealmPaths

NICENESS = 10  # a tenth of a busy core
BEAT_SECONDS = 0.25


class WriteFailed(RealmError):
    """A checkpoint could not be written; the cause says why."""


class CheckpointWriter:
    """`start` a checkpoint, `collect` it when it is there; `beat` is called while somebody waits for it."""

    tip: Manifest
    held: Manifest

    def __init__(self, paths: RealmPaths, beat: Callable[[], None]):
        self._paths, self._beat = paths, beat
        self._snapshot = Snapshot()
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_step_back)
        self._commit: Future[Manifest] | None = None

    def stand_on(self, tip: Manifest) -> None:
        """The weights in memory are those of `tip`."""
        self.tip = self.held = tip

    @property
    def busy(self) -> bool:
        """Whether a checkpoint was started and not collected."""
        return self._commit is not None

    def start(self, facts: Manifest, model: Any, optimizer: Any, texts: Mapping[str, bytes], guard: Any) -> None:
        """Copy what the checkpoint holds, and have it written; `texts`: further small files, by name."""
        assert not self.busy, "one checkpoint at a time"
        self._snapshot.take(model, optimizer, texts, guard)
        self._commit = self._thread.submit(self._write, facts, self._paths.vault / self.tip.id)
        self.held = facts

    def _write(self, facts: Manifest, parent: Path) -> Manifest:
        """In the thread. The tip moves as soon as the checkpoint is there, however long the trainer's step takes."""
        manifest = checkpoints.commit(self._paths, facts, lambda folder: self._snapshot.write(folder, parent))
        checkpoints.set_tip(self._paths, manifest.id)
        return manifest

    def collect(self, patient: bool = False) -> Manifest | None:
        """The new tip, if one has come since; `patient`: wait for one that is on its way. Raises WriteFailed."""
        commit = self._commit
        if commit is None or not (patient or commit.done()):
            return None
        while not wait((commit,), BEAT_SECONDS).done:
            self._beat()
        self._commit = None
        if problem := commit.exception():
            raise WriteFailed(str(problem)) from problem
        self.tip = commit.result()
        return self.tip


def _step_back() -> None:
    """This thread takes what the trainer's leave; while nothing is trained it has the machine to itself."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
