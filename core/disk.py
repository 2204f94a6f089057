"""How much room there is on the realm's disk, and what is to be done about it. It decides nothing and frees nothing.

The disk manager's word (state/disk.json) remembers; what can be seen now needs no memory. `level` is the worse of both,
so that neither a manager that is down nor a word that found no room does harm.
"""

import time
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

from core.checkpoints import STATE_FILES, Manifest, pointed, read
from core.durable import read_json, write_json
from core.errors import CheckpointError
from core.paths import RealmPaths
from core.room import Room

GIB = 1 << 30
FRESH_WEIGHTS = 3  # a checkpoint with AdamW's moments in weights; a hero that was just born has none yet
STALE_SECONDS = 30.0  # a word older than that is nobody's


class Level(IntEnum):
    """What a realm does about its disk; each does what those before it do, too."""

    NORMAL = 0
    PRUNING = 1  # old checkpoints go
    NOT_CLAIMING = 2  # no quest is taken from the inbox or begun
    PAUSED = 3  # the battle waits, nothing is saved

    @property
    def word(self) -> str:
        return "ok" if self is Level.NORMAL else self.name.lower()


def need_of(tip: Manifest) -> int:
    """Bytes that must be free before the next checkpoint: twice its size, a tenth more, and a margin of at most 1 GiB."""
    size = tip.bytes * (1 if STATE_FILES[0] in tip.files else FRESH_WEIGHTS)
    return int(2.2 * size) + min(GIB, max(size, GIB >> 5))


def need(paths: RealmPaths) -> int:
    """`need_of` the tip; of a hero that is not born yet it is not known."""
    try:
        return need_of(read(paths.vault / (pointed(paths.tip) or "none")))
    except CheckpointError:
        return GIB >> 5


@dataclass(frozen=True)
class Word:
    """What the disk manager said: level, since when (seconds since the epoch), and why, for people."""

    level: Level
    since: float
    text: str


def say(paths: RealmPaths, word: Word) -> None:
    """Replace the manager's word. Raises OSError."""
    write_json(paths.disk_word, {"time": time.time(), **asdict(word)}, durable=False)


def heard(paths: RealmPaths) -> Word | None:
    """The manager's word, unless there is none or it is old."""
    values = read_json(paths.disk_word, {})
    if abs(time.time() - values.pop("time", 0.0)) > STALE_SECONDS:
        return None
    return Word(Level(values["level"]), values["since"], values["text"])


def level(paths: RealmPaths, needed: int) -> Level:
    """How it stands with the disk now, for somebody who wants to write a checkpoint that needs so much."""
    word = heard(paths)
    return max(word.level if word else Level.NORMAL, _seen(Room.of(paths.root), needed))


def _seen(room: Room, needed: int) -> Level:
    return Level.NORMAL if room.holds(needed) else Level.PAUSED


def about(paths: RealmPaths) -> dict[str, Any]:
    """The disk as `status` shows it: state, why and what to do, since when."""
    room, needed = Room.of(paths.root), need(paths)
    word, seen = heard(paths), _seen(Room.of(paths.root), needed)
    if word is None or word.level < seen:
        word = Word(seen, time.time(), words(room, seen, needed))
    facts = {"state": word.level.word, "text": word.text, "since": word.since}
    return {"free_bytes": room.free, "used_percent": round(100 * max(room.used, room.used_inodes), 1), **facts}


DONE = {
    Level.PRUNING: "Old checkpoints go.",
    Level.NOT_CLAIMING: "No new quest is begun; files wait in the inbox.",
    Level.PAUSED: "The hero waits where it is and loses nothing.",
}


def words(room: Room, level: Level, needed: int) -> str:
    """Why the level is what it is, what follows, and the remedy."""
    if level is Level.NORMAL:
        return f"{size_text(room.free)} are free."
    if room.inodes and (room.used_inodes > room.used or not room.holds(0)):
        why = f"{room.used_inodes:.0%} of the disk's inodes are in use, {room.free_inodes:,} are left."
        remedy = "Delete files"
    else:
        why = (
            f"{room.used:.0%} of the disk is in use, {size_text(room.free)} are left; "
            f"the next checkpoint wants {size_text(needed)}."
        )
        remedy = "Free space"
    after = "" if level is Level.PRUNING else f" {remedy} on this disk; training goes on by itself."
    return f"{why} {DONE[level]}{after}"


def size_text(count: float) -> str:
    """Bytes in decimal units, as disks are sold."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"
