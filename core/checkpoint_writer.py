"""Writes one checkpoint at a time while training goes on, in a thread of low priority. It knows nothing about verdicts.

`tip` is the newest checkpoint on disk; `held` says what the newest copy of the weights holds, on disk or not yet. A
checkpoint for which there is no room stays in memory, and is written when there is (`stuck` says what keeps it).
"""

import errno
import os
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar

from core import checkpoints
from core.checkpoints import Manifest
from core.errors import RealmError
from core.forge.snapshot import Snapshot
from core.full_disk import is_no_space
from core.paths import RealmPaths
from core.room import Room
from core.save_pace import SavePace

NICENESS = 10  # a tenth of a busy core
BEAT_SECONDS = 0.25
ROOM_SECONDS = 1.0  # between two looks whether there is room
SMALL_FILES = 32 << 20  # tokenizer, manifest and other texts of a checkpoint, at most
Result = TypeVar("Result")


class WriteFailed(RealmError):
    """A checkpoint could not be written; the cause says why."""


class CheckpointWriter:
    """`start` a checkpoint, `collect` it when it is there; `beat` is called while one that is waited for has no room.

    `hurried`: whether the hero is to end, so that nobody can wait for room any more.
    """

    tip: Manifest
    held: Manifest
    pace: SavePace

    def __init__(self, paths: RealmPaths, beat: Callable[[], None], hurried: Callable[[], bool] = lambda: False):
        self._paths, self._beat, self._hurried = paths, beat, hurried
        self._snapshot = Snapshot()
        self._thread = ThreadPoolExecutor(1, "checkpoint", initializer=_step_back)
        self._commit: Future[Manifest] | None = None
        self._given_up = threading.Event()
        self.stuck: OSError | None = None

    def stand_on(self, tip: Manifest) -> None:
        """The weights in memory are those of `tip`."""
        self.tip = self.held = tip
        self.pace = SavePace(tip.step, time.monotonic())

    def rested(self) -> None:
        """Training begins with what is in memory."""
        self.pace.rested(self.held.step, time.monotonic())

    @property
    def busy(self) -> bool:
        """Whether a checkpoint was started and not collected."""
        return self._commit is not None

    def has_come(self, seconds: float = 0.0) -> bool:
        """Whether there is something to collect; at most `seconds` are waited for it."""
        return self._commit is not None and bool(wait((self._commit,), seconds).done)

    def start(self, facts: Manifest, model: Any, optimizer: Any, texts: Mapping[str, bytes], *beside: Any) -> None:
        """Copy what the checkpoint holds, and have it written; `texts`: further small files, by name; `beside`: the guard, the
        dice."""
        assert not self.busy, "one checkpoint at a time"
        self._snapshot.take(model, optimizer, texts, *beside)
        self._commit = self._thread.submit(self._write, facts, self._paths.vault / self.tip.id)
        self.held = facts
        self.pace.begun(facts.step, time.monotonic())

    def _write(self, facts: Manifest, parent: Path) -> Manifest:
        """In the thread. The tip moves as soon as the checkpoint is there, however long the trainer's step takes."""
        wanted = self._snapshot.bytes + SMALL_FILES
        manifest = self._when_there_is_room(
            wanted, lambda: checkpoints.commit(self._paths, facts, lambda folder: self._snapshot.write(folder, parent))
        )
        if manifest.branch is None:
            self._when_there_is_room(0, lambda: checkpoints.set_tip(self._paths, manifest.id))
        return manifest

    def _when_there_is_room(self, wanted: int, work: Callable[[], Result]) -> Result:
        """What `work` returns, begun again as often as the disk was full. Raises whatever else keeps it from being done."""
        while True:
            try:
                if not Room.of(self._paths.vault).holds(wanted):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._paths.vault))
                result = work()
                self.stuck = None
                return result
            except OSError as problem:
                if not is_no_space(problem, self._paths.vault):
                    raise
                self.stuck = problem
                if self._given_up.wait(ROOM_SECONDS):
                    raise

    def give_up(self) -> None:
        """A checkpoint that finds no room fails from now on."""
        self._given_up.set()

    def collect(self, patient: bool = False) -> Manifest | None:
        """The checkpoint that has come since, if one has, the new tip unless it is a branch; `patient`: wait for one that is
        on its way. Raises WriteFailed."""
        commit = self._commit
        if commit is None or not (patient or commit.done()):
            return None
        while not wait((commit,), BEAT_SECONDS).done:
            if self.stuck is not None:
                self._beat()
                if self._hurried():
                    self.give_up()
        self._commit = self.stuck = None
        if problem := commit.exception():
            raise WriteFailed(str(problem)) from problem
        come = commit.result()
        if come.branch is None:
            self.tip = come
            self.pace.landed(time.monotonic())
        return come


def _step_back() -> None:
    """This thread takes what the trainer's leave; while nothing is trained it has the machine to itself."""
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
