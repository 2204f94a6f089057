"""Takes complete files out of the inbox, many at once: ids first, then the renames, then one flush for all of them.

A claim is a ledger row and a rename to `.claim/STEM-qID.jsonl`, in this order. A crash in between leaves rows without a
file, which `recover` of the intake forgets. It knows nothing about judging.
"""

import errno
import os
import shutil
import stat
import time
from collections.abc import Iterable
from pathlib import Path

from core.durable import move, rename, sync_file, sync_folder
from core.full_disk import is_no_space
from core.inbox import SIDECAR, Arrival, queue_stem, refusal
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import quest_name


class Claims:
    """Claims for one realm. What cannot be taken is told once and stays where it is."""

    def __init__(self, paths: RealmPaths, ledger: Ledger):
        self.paths, self.ledger = paths, ledger
        self._told: set[Path] = set()

    def take(self, arrivals: list[Arrival]) -> tuple[list[Path], list[Arrival]]:
        """The claimed files, in order, and the arrivals that cannot be taken now."""
        stuck = [arrival for arrival in arrivals if self._has_wrong_sidecar(arrival)]
        wanted = [arrival for arrival in arrivals if arrival not in stuck] if stuck else arrivals
        named = self._named(wanted)
        with_sidecar = [(arrival, claimed) for arrival, _, claimed in named if os.path.lexists(arrival.sidecar)]
        for arrival, claimed in with_sidecar:
            _take_if_there(arrival.sidecar, claimed.with_suffix(SIDECAR))
        self._flush(arrival for arrival, _ in with_sidecar)  # a file never arrives without its settings
        taken = []
        for arrival, quest, claimed in named:
            try:
                _take(arrival.path, claimed)
                taken.append((arrival, claimed))
            except FileNotFoundError:
                self.vanished(quest, claimed, arrival.sidecar)
            except OSError as problem:  # we may not move it, say, or it is no file and on another file system
                if is_no_space(problem, self.paths.state):  # what is not taken yet stays where it is
                    raise
                self.vanished(quest, claimed, arrival.sidecar)
                self._tell(arrival, problem.strerror, quest)
                stuck.append(arrival)
        self._flush(arrival for arrival, _ in taken)
        return [claimed for _, claimed in taken], stuck

    def vanished(self, quest: int, claimed: Path, sidecar: Path) -> None:
        """The file was taken back by its owner, or a crash came first: its sidecar waits for it in the inbox."""
        if claimed.with_suffix(SIDECAR).exists() and not os.path.lexists(sidecar):
            _take(claimed.with_suffix(SIDECAR), sidecar)
            sync_folder(sidecar.parent)
        self.ledger.change("quests", quest, state="vanished", updated=time.time())

    def _has_wrong_sidecar(self, arrival: Arrival) -> bool:
        try:
            wrong = refusal(arrival.sidecar.lstat())
        except OSError:  # there is none, or its name would be too long
            return False
        if wrong:
            self._tell(arrival, f"{arrival.sidecar.name} {wrong}")
        return bool(wrong)

    def _tell(self, arrival: Arrival, why: str, quest: int | None = None) -> None:
        if arrival.path not in self._told:
            self._told.add(arrival.path)
            text = f"{queue_stem(arrival.stem)} cannot be taken from the inbox: {why}."
            self.ledger.event("daemon", "quest_stuck", text, "warning", quest=quest)

    def _named(self, arrivals: list[Arrival]) -> list[tuple[Arrival, int, Path]]:
        """Each arrival with its id and its place in `.claim`; all ids are safe on disk."""
        now, named = time.time(), []
        with self.ledger.together():
            for arrival in arrivals:
                stem = queue_stem(arrival.stem)
                quest = self.ledger.add("quests", stem=stem, origin="user", state="arriving", priority=arrival.priority,
                                        created=now, updated=now)  # fmt: skip
                named.append((arrival, quest, self.paths.claims / f"{quest_name(stem, quest)}.jsonl"))
        return named

    def _flush(self, arrivals: Iterable[Arrival]) -> None:
        """Make the renames of these arrivals durable."""
        if sources := {arrival.path.parent for arrival in arrivals}:
            for folder in (self.paths.claims, *sorted(sources)):
                sync_folder(folder)


def _take_if_there(source: Path, target: Path) -> None:
    try:
        _take(source, target)
    except FileNotFoundError:  # its owner took it back
        return


def _take(source: Path, target: Path) -> None:
    """Move a file out of the inbox, by copy where the inbox is on another file system."""
    try:
        rename(source, target)
    except OSError as problem:
        if problem.errno != errno.EXDEV or not stat.S_ISREG(source.lstat().st_mode):
            raise
        beside = target.with_name(f".{target.name}.tmp")
        shutil.copyfile(source, beside, follow_symlinks=False)
        sync_file(beside)
        move(beside, target)
        source.unlink()
