"""The room on a file system, in bytes and inodes; it knows nothing about what they are wanted for."""

import os
from dataclasses import dataclass
from pathlib import Path

NEEDED_INODES = 64  # of a checkpoint, a quest and its rows
SPARE_BYTES, SPARE_INODES = 1 << 20, 4  # with less free a disk is full


@dataclass(frozen=True)
class Room:
    """Bytes and inodes of a file system as a user without privileges has them; `inodes` is 0 where there is no limit."""

    size: int
    free: int
    inodes: int = 0
    free_inodes: int = 0

    @classmethod
    def of(cls, folder: Path) -> "Room":
        facts = os.statvfs(folder)
        used, free = (facts.f_blocks - facts.f_bfree) * facts.f_frsize, facts.f_bavail * facts.f_frsize
        return cls(used + free, free, facts.f_files - facts.f_ffree + facts.f_favail, facts.f_favail)

    @property
    def used(self) -> float:
        """Share of the bytes that is in use."""
        return 1 - self.free / self.size if self.size else 0.0

    @property
    def used_inodes(self) -> float:
        return 1 - self.free_inodes / self.inodes if self.inodes else 0.0

    def holds(self, wanted: float, inodes: float = NEEDED_INODES) -> bool:
        """Whether so much more fits in."""
        return self.free >= wanted and (not self.inodes or self.free_inodes >= inodes)

    @property
    def full(self) -> bool:
        return not self.holds(SPARE_BYTES, SPARE_INODES)
