"""The prompts that a hero was ever given to practise, as hashes of eight bytes on disk. Lost, it only lets some come again.

Whoever opens it first looks whether it is whole (core/broken_record.py), for nothing waits for the disk here.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from core.ledger import connect


class PromptMemory:
    """Of one hero; `in` asks, `add` keeps. A prompt in 10^13 is taken for another."""

    def __init__(self, path: Path, hero: str):
        self._hero, self._connection = hero, connect(path, durable=False)
        self._connection.execute("CREATE TABLE IF NOT EXISTS prompts (hash INTEGER PRIMARY KEY)")

    def __contains__(self, prompt: object) -> bool:
        found = self._connection.execute("SELECT 1 FROM prompts WHERE hash=?", (self._hash(str(prompt)),))
        return found.fetchone() is not None

    def add(self, prompts: Iterable[str]) -> None:
        self._connection.execute("BEGIN")
        values = ((self._hash(prompt),) for prompt in prompts)
        self._connection.executemany("INSERT OR IGNORE INTO prompts VALUES (?)", values)
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()

    def _hash(self, prompt: str) -> int:
        digest = hashlib.blake2b(f"{self._hero}\n{prompt}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big", signed=True)
