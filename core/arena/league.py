"""The arena on disk: its book, its lock, its texts. It knows what is remembered, not how agents learn; no torch.

The book (state/arena/arena.json, replaced in one instant) is the commit point: a file of weights is written beside it
first and never changed, and counts from the moment that the book names it. So a kill leaves the state before or the state after,
and saving a state is one more name for its file. Whoever changes anything holds the lock; readers need none.
"""

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import orjson
from safetensors import safe_open

from core.arena import scores
from core.arena.data import NAMES, Samples, bundled, key_of, read_text
from core.arena.energy import FULL
from core.arena.records import Record, State
from core.durable import sweep, sync_folder, write_bytes
from core.errors import RealmBusy, UserError, nearest
from core.full_disk import spared
from core.logs import visible
from core.paths import RealmPaths
from core.realm_lock import locked

PATIENCE_SECONDS, LOOK_SECONDS = 30.0, 0.05
MOST_BATTLES = 200  # kept on record; Elo and wins count all


@dataclass
class Book:
    """`energy`: what the player has; `rests`: how often it was filled up; `champion`: who took the crown last; `fought`: how
    many battles there were."""

    energy: float = FULL
    rests: int = 0
    current: str | None = None
    champion: str | None = None
    fought: int = 0
    agents: dict[str, Record] = field(default_factory=dict)
    battles: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, values: dict[str, Any]) -> "Book":
        agents = {name: Record.read(record) for name, record in values["agents"].items()}
        return cls(**{**values, "agents": agents})

    def agent(self, name: str | None = None) -> Record:
        """The agent of that name; None means the current one. Raises UserError."""
        if name is None and self.current is None:
            raise UserError("there is no agent yet; `create_agent Tiny 16 1 2` makes one")
        name = self.current if name is None else name
        if name not in self.agents:
            known = (
                f"Known: {', '.join(self.agents)}" if self.agents else "`create_agent Tiny 16 1 2` makes the first one."
            )
            raise UserError(f"there is no agent {name[:40]!r}{nearest(name, self.agents) or '.'} {known}")
        return self.agents[name]

    def spend(self, record: Record, amount: float) -> None:
        """Off the player's energy, and on the agent's bill."""
        self.energy = max(0.0, self.energy - amount)
        record.spent += amount

    def refill(self, amount: float) -> float:
        """What of `amount` there was room for."""
        before, self.energy = self.energy, min(FULL, self.energy + amount)
        return self.energy - before

    def leaderboard(self) -> list[dict[str, Any]]:
        """The agents, the most score for each energy first."""
        records = sorted(
            self.agents.values(),
            key=lambda one: (-scores.efficiency(one.state.score, one.spent), -one.elo, one.name),
        )
        return [
            {"rank": rank, **record.facts(), "energy": record.spent, "champion": record.name == self.champion}
            for rank, record in enumerate(records, 1)
        ]


class Arena:
    """The arena of one realm. `patience`: seconds for which it is waited for whoever else changes it."""

    def __init__(self, paths: RealmPaths, patience: float = PATIENCE_SECONDS):
        self.paths, self._patience = paths, patience

    def read(self) -> Book:
        """The book as it is. Raises UserError where it cannot be read."""
        try:
            return Book.read(orjson.loads(self.paths.arena_book.read_bytes()))
        except FileNotFoundError:
            return Book()
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as problem:
            raise UserError(
                f"{self.paths.arena_book} cannot be read ({problem}); move it away to begin a new arena"
            ) from None

    @contextlib.contextmanager
    def alone(self, doing: str, waits: Callable[[str], None] = lambda who: None) -> Iterator[Book]:
        """The book, which nobody else changes meanwhile; `commit` writes it. `waits` is told once who is waited for. Raises
        RealmBusy after that patience."""
        try:
            self.paths.arena.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise UserError(
                f"the arena cannot be kept in {self.paths.arena}: {problem.strerror}. Give another --root."
            ) from None
        with open(self.paths.arena_lock, "a+", encoding="utf-8") as file:
            self._wait(file, waits)
            file.truncate(0)
            file.write(f"{doing} (pid {os.getpid()})")
            file.flush()
            try:
                yield self.read()
            finally:
                file.truncate(0)

    @property
    def holder(self) -> str:
        """Who changes it right now and what for; nobody: an empty string."""
        try:
            with open(self.paths.arena_lock, encoding="utf-8") as file:
                return "" if locked(file, fcntl.LOCK_SH) else file.read(200) or "another process"
        except FileNotFoundError:
            return ""

    def _wait(self, file, waits: Callable[[str], None]) -> None:
        deadline, told = time.monotonic() + self._patience, False
        while not locked(file, fcntl.LOCK_EX):
            file.seek(0)
            who = file.read(200) or "another process"
            if time.monotonic() > deadline:
                raise RealmBusy(f"the arena is in use: {who}; try again when that is done")
            if not told and time.monotonic() > deadline - self._patience + 1:
                waits(who)
                told = True
            time.sleep(LOOK_SECONDS)

    def commit(self, book: Book) -> None:
        """Make `book` what is remembered, and remove the files that it names no more."""
        values = {**asdict(book), "battles": book.battles[-MOST_BATTLES:]}
        write_bytes(self.paths.arena_book, orjson.dumps(values, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        sweep(self.paths.arena)
        for record in book.agents.values():
            folder = self.paths.arena_agent(record.name)
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.name not in record.files:
                    path.unlink(missing_ok=True)

    def write_state(self, record: Record, step: int, content: bytes) -> str:
        """Put weights down durably under a name that nothing else has; it counts when the book names it."""
        folder = self.paths.arena_agent(record.name)
        if not folder.is_dir():
            folder.mkdir(parents=True)
            sync_folder(folder.parent)
        name = f"{step:08d}-{secrets.token_hex(4)}.safetensors"
        write_bytes(folder / name, content)
        return name

    def past(self, name: str | None) -> tuple[Record, list[float], list[float]]:
        """An agent, and of each step of its life the loss and the gradient's norm."""
        for _ in range(20):
            record = self.read().agent(name)
            if record.state.file is None:
                return record, [], []
            path = self.paths.arena_agent(record.name) / record.state.file
            with contextlib.suppress(FileNotFoundError), safe_open(path, "numpy") as opened:  # a newer one may come
                return record, opened.get_tensor("past.loss").tolist(), opened.get_tensor("past.norm").tolist()
        raise UserError(f"the weights of {record.name} are gone; `load` a saved state")

    def adopt(self, file: Path) -> Samples:
        """The samples of a player's text, of which a copy is kept, so that an agent can go on whatever becomes of the file.
        Raises UserError."""
        content = read_text(file)
        key = key_of(content)
        samples = _samples(content, key, visible(file.name[:80]))
        if not (self.paths.arena_texts / key).is_file():
            self.paths.arena_texts.mkdir(exist_ok=True)
            write_bytes(self.paths.arena_texts / key, content)
        return samples

    def samples(self, state: State) -> Samples:
        """The samples of the text that `state` learns. Raises UserError where its copy is gone."""
        if state.data == NAMES:
            return bundled()
        try:
            content = (self.paths.arena_texts / state.data).read_bytes()
        except FileNotFoundError:
            raise UserError(
                f"the text {state.title} is gone from {self.paths.arena_texts}; give it again with --data FILE"
            ) from None
        return _samples(content, state.data, state.title)

    def tell(self, facts: dict[str, Any]) -> None:
        """Let readers know how far a piece of work is; `facts` has its kind, `training` or `battle`."""
        with spared(self.paths.arena):
            write_bytes(self.paths.arena_now(facts["kind"]), orjson.dumps(facts | {"pid": os.getpid()}), durable=False)

    def told(self, kind: str) -> dict[str, Any]:
        """How far the newest work of this kind is, with `live`: whether it is still done."""
        try:
            facts = orjson.loads(self.paths.arena_now(kind).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {}
        return facts | {"live": facts["phase"] != "done" and f"(pid {facts['pid']})" in self.holder}


@lru_cache(maxsize=4)
def _samples(content: bytes, key: str, title: str) -> Samples:
    return Samples(content, key, title)
