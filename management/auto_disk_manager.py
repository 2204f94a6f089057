"""The disk manager: a pure `judge` of the room there is, and the turn of the daemon that acts on it. It deletes nothing itself.

Elasticsearch's marks: from 85 % in use old checkpoints go, from 90 % no quest is taken or begun, from 95 % the battle waits.
A share alone says little: a large disk may be 91 % full with 200 GB free. So shares count only where less is free than ten
times what the next checkpoint wants; and where less is free than that, nothing is saved, whatever the share.
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from core import disk
from core.config import Disk
from core.disk import Level, Word
from core.full_disk import Reserve, is_no_space, spared
from core.ledger import Ledger
from core.paths import RealmPaths
from core.room import NEEDED_INODES, Room

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
PRUNE_SECONDS = 10.0
NICENESS = 10  # hashing leaves the processor to the trainer
ROOMY = 10.0  # times the next checkpoint's need: with more free, the share in use says nothing
EASE = 1.25  # what was begun for want of room ends only with a quarter more of it
EASE_SHARE = 0.01  # ... and a hundredth below the mark
RESERVE_SHARE = 0.01
BLOCK = 1 << 12


def judge(room: Room, needed: int, marks: Disk, before: Level) -> Level:
    """The level now. What was begun goes on until there is clearly room: a pause until the share is below the claim mark."""
    prune, claim, pause = (percent / 100 for percent in (marks.prune_percent, marks.claim_percent, marks.pause_percent))
    entered = _at(room, (prune, claim, pause), needed)
    left = _at(room, (prune - EASE_SHARE, claim - EASE_SHARE, claim), needed * EASE)
    return max(entered, min(before, left))


def _at(room: Room, marks: tuple[float, float, float], needed: float) -> Level:
    if not room.holds(needed):
        return Level.PAUSED
    shares = []
    if room.free < ROOMY * needed:
        shares.append(room.used)
    if room.inodes and room.free_inodes < ROOMY * NEEDED_INODES:
        shares.append(room.used_inodes)
    return Level(sum(max(shares, default=0.0) >= mark for mark in marks))


def lacking(room: Room, needed: int, marks: Disk) -> int:
    """Bytes that must become free for the realm to work again; all there are where it is inodes that lack."""
    if room.inodes and (
        room.free_inodes < NEEDED_INODES or room.used_inodes > max(room.used, marks.claim_percent / 100)
    ):
        return room.size
    aim = min((1 - marks.claim_percent / 100 + EASE_SHARE) * room.size, ROOMY * EASE * needed)
    return max(0, int(max(aim, EASE * needed) - room.free) + BLOCK)


class AutoDiskManager:
    """`turn(now)` looks at the disk every few seconds, says what is to be done, keeps the reserve and asks for pruning.

    `prune(room)` deletes old checkpoints, loose ones too where `room` bytes are wanted. It must not block.
    """

    def __init__(
        self,
        paths: RealmPaths,
        marks: Disk,
        ledger: Ledger,
        prune: Callable[[int], None],
        look: Callable[[], Room] | None = None,
    ):
        self.paths, self.marks, self.ledger = paths, marks, ledger
        self._prune, self._look = prune, look or (lambda: Room.of(paths.state))
        self._reserve = Reserve(paths)
        word = disk.heard(paths)
        self.level, self._since = (word.level, word.since) if word else (Level.NORMAL, time.time())
        self._next_look = self._next_prune = 0.0

    def turn(self, now: float) -> Level:
        """`now`: seconds of a monotonic clock."""
        if now < self._next_look:
            return self.level
        self._next_look = now + LOOK_SECONDS
        room, needed, before = self._look(), disk.need(self.paths), self.level
        self.level = judge(room, needed, self.marks, before)
        text = disk.words(room, self.level, needed)
        if self.level is not before:
            self._since = time.time()
        self._keep_reserve(room, needed)
        with spared(self.paths.state):
            disk.say(self.paths, Word(self.level, self._since, text))
        if self.level is not before:
            self._tell(before, text)
        if self.level >= Level.PRUNING and now >= self._next_prune:
            self._next_prune = now + PRUNE_SECONDS
            self._prune(lacking(room, needed, self.marks) if self.level > Level.PRUNING else 0)
        return self.level

    def _keep_reserve(self, room: Room, needed: int) -> None:
        """Give the reserve back to a disk that is full; set it aside where that changes nothing else."""
        wanted = min(self.marks.reserve_bytes, int(RESERVE_SHARE * room.size))
        held = self._reserve.bytes
        if room.full or held > 2 * wanted:
            self._reserve.release()
        elif wanted > 2 * held:  # what a pool calls its size changes all the time
            rest = Room(room.size, room.free + held - wanted, room.inodes, room.free_inodes)
            if judge(rest, int(needed * EASE), self.marks, Level.NORMAL) <= Level.PRUNING:
                self._reserve.take(wanted)

    def _tell(self, before: Level, text: str) -> None:
        """History; what holds now is in the word."""
        log.info("%s: %s", self.level.word, text)
        with spared(self.paths.state):
            if self.level >= Level.NOT_CLAIMING:
                self.ledger.event("daemon", "disk_low", text, "alert", state=self.level.word)
            elif before >= Level.NOT_CLAIMING:
                self.ledger.event("daemon", "disk_ok", f"There is room again: {text}", state=self.level.word)


class InBackground:
    """Work of the house that may take a while, one piece at a time, in a thread; asked meanwhile, it is left out."""

    def __init__(self, paths: RealmPaths, work: Callable[[int], object]):
        self._paths, self._work = paths, work
        self._thread = ThreadPoolExecutor(1, "housekeeping", initializer=_step_back)
        self._begun: Future | None = None

    def __call__(self, room: int = 0) -> None:
        """Have it done for `room` bytes. What went wrong the last time is raised here, unless the disk was full."""
        if self._begun is not None and not self._begun.done():
            return
        problem = self._begun.exception() if self._begun else None
        self._begun = None
        if problem is not None and not is_no_space(problem, self._paths.state):
            raise problem
        self._begun = self._thread.submit(self._work, room)


def _step_back() -> None:
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
