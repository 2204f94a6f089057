"""An agent alive for somebody who only looks: nothing is spent, kept or locked. It knows not what is looked for."""

import contextlib
from pathlib import Path

from core.arena.agent import Agent
from core.arena.data import Alphabet, Samples, key_of, read_text
from core.arena.league import Arena
from core.errors import UserError


def look(arena: Arena, name: str | None, data: Path | None) -> tuple[Agent, Samples]:
    """The agent as it is now, and the samples of its text, or of `data`. Raises UserError."""
    for _ in range(20):
        book = arena.read()
        record = book.agent(name)
        samples = arena.samples(record.state) if data is None else _given(data, record.state.letters, record.name)
        with contextlib.suppress(FileNotFoundError):  # a newer state took its place meanwhile
            return Agent(record, arena.paths.arena_agent(record.name)), samples
    raise UserError(f"the weights of {record.name} are gone; `load` a saved state")


def _given(data: Path, letters: str, name: str) -> Samples:
    content = read_text(data)
    samples = Samples(content, key_of(content), data.name)
    if strange := Alphabet(letters).strange(samples.letters):
        raise UserError(f"--data {data}: {name} has never seen {' '.join(strange[:10])!r}; give a text that it knows")
    return samples
