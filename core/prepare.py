"""A quest's rows as token arrays on disk, ready to be mapped into memory; it knows nothing about training or torch.

Prepared folders are a cache named by everything that went into them: content, form, tokenizer, template, length, seed.
So they can be made ahead of the battle by whoever has time, deleted at any moment, and found again after a restart.

    tokens.bin    uint16 or uint32, all sequences one after the other
    trained.bin   bool, whether the token is learned
    ends.bin      int64, where each sequence ends in tokens.bin
    rows.bin      int64, one pair a row: line number in the file, number of its first sequence
    keys.bin      uint64, seeded hash of each row's bytes, which decides what is held out
    meta.json     counts and dtype
"""

import contextlib
import errno
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import orjson

from core.durable import read_json, sync_file, sync_folder, write_json
from core.formats import BadRow
from core.formats import form as form_named
from core.quest import Settings
from core.quest_file import chunks, read_rows
from core.rendering import Renderer

CHUNK_ROWS = 512
FORMAT = 1


def cache_name(quest_sha256: str, form: str, settings: Settings, renderer: Renderer) -> str:
    """The folder name that stands for exactly these rows rendered in exactly this way."""
    parts = (
        FORMAT,
        quest_sha256,
        form,
        settings.school,
        sorted(settings.columns.items()),
        settings.seed,
        renderer.fingerprint,
    )
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:24]


@dataclass(frozen=True)
class Prepared:
    """A quest as arrays. Row numbers count the good rows from 0; `sequence(i)` is one token array with its mask."""

    folder: Path

    @cached_property
    def meta(self) -> dict:
        return read_json(self.folder / "meta.json")

    @cached_property
    def _tokens(self) -> np.ndarray:
        return _mapped(self.folder / "tokens.bin", np.dtype(self.meta["dtype"]))

    @cached_property
    def _trained(self) -> np.ndarray:
        return _mapped(self.folder / "trained.bin", np.dtype(np.bool_))

    @cached_property
    def _ends(self) -> np.ndarray:
        return _mapped(self.folder / "ends.bin", np.dtype(np.int64))

    @cached_property
    def _rows(self) -> np.ndarray:
        return _mapped(self.folder / "rows.bin", np.dtype(np.int64)).reshape(-1, 2)

    @cached_property
    def keys(self) -> np.ndarray:
        """Of every row, a hash of its bytes and the seed."""
        return _mapped(self.folder / "keys.bin", np.dtype(np.uint64))

    def __len__(self) -> int:
        return self.meta["rows"]

    def line(self, row: int) -> int:
        """The line of the quest file that `row` came from."""
        return int(self._rows[row, 0])

    def sequences(self, row: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(tokens, trained) of each sequence of `row`, both one-dimensional and of equal length."""
        first = int(self._rows[row, 1])
        last = int(self._rows[row + 1, 1]) if row + 1 < len(self._rows) else len(self._ends)
        return [self._sequence(number) for number in range(first, last)]

    def _sequence(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        begin = int(self._ends[number - 1]) if number else 0
        end = int(self._ends[number])
        return self._tokens[begin:end], self._trained[begin:end]

    def split(self, fraction: float, most: int) -> tuple[np.ndarray, np.ndarray]:
        """(training rows, held-out rows), ascending row numbers.

        The rows with the smallest keys are held out, with all their copies, so that no held-out row is ever trained.
        """
        wanted = min(most, int(len(self.keys) * fraction))
        if fraction > 0 and len(self.keys) >= 10:
            wanted = max(wanted, 1)
        distinct, copies = np.unique(self.keys, return_counts=True)
        chosen, count = [], 0
        for key, number in zip(distinct[: 4 * wanted], copies[: 4 * wanted], strict=True):
            if count + number <= wanted:
                chosen.append(key)
                count += number
        held = np.isin(self.keys, np.array(chosen, dtype=np.uint64))
        return np.flatnonzero(~held), np.flatnonzero(held)


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def prepare(
    path: Path,
    form: str,
    settings: Settings,
    renderer: Renderer,
    folder: Path,
    alive: Callable[[], None] = lambda: None,
) -> Prepared:
    """Tokenise the good rows of `path` into `folder`, streaming; a folder that is there already is simply opened.

    `alive` is called after every chunk of rows. Memory does not grow with the file, but for 24 bytes a row.
    """
    if (folder / "meta.json").is_file():
        return Prepared(folder)
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    building.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as stack:
            writer = _Writer(building, renderer.vocab_size, settings.seed, stack)
            for chunk in chunks(read_rows(path, form_named(form), settings.columns), CHUNK_ROWS):
                good = [(number, line, row) for number, line, row in chunk if not isinstance(row, BadRow)]
                rendered = renderer.render([row for _, _, row in good])
                for (number, line, _), result in zip(good, rendered, strict=True):
                    if not isinstance(result, BadRow):
                        writer.add(number, line, result.sequences)
                alive()
        for file in building.iterdir():  # else a power cut could leave the name and no bytes
            sync_file(file)
        write_json(building / "meta.json", writer.meta())
        _publish(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Prepared(folder)


def _publish(building: Path, folder: Path) -> None:
    """Give the folder its name; somebody who was quicker made the same bytes."""
    try:
        os.rename(building, folder)
        sync_folder(folder.parent)
    except OSError as problem:
        if problem.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise


class _Writer:
    """Appends rows to the array files."""

    def __init__(self, folder: Path, vocabulary: int, seed: int, stack: contextlib.ExitStack):
        names = ("tokens", "trained", "ends", "rows", "keys")
        self._files = {name: stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in names}
        self._dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
        self._salt = str(seed).encode()
        self._rows = self._sequences = self._tokens = self._learned = 0

    def add(self, number: int, line: bytes, sequences: Iterable) -> None:
        self._write("rows", np.array([number, self._sequences], dtype=np.int64))
        self._files["keys"].write(hashlib.blake2b(line, digest_size=8, key=self._salt).digest())
        for sequence in sequences:
            self._write("tokens", sequence.input_ids.astype(self._dtype))
            self._write("trained", sequence.trained)
            self._tokens += len(sequence.input_ids)
            self._learned += int(sequence.trained.sum())
            self._write("ends", np.array([self._tokens], dtype=np.int64))
            self._sequences += 1
        self._rows += 1

    def _write(self, name: str, array: np.ndarray) -> None:
        self._files[name].write(array.tobytes())

    def meta(self) -> dict:
        return {
            "format": FORMAT,
            "rows": self._rows,
            "sequences": self._sequences,
            "tokens": self._tokens,
            "trained_tokens": self._learned,
            "dtype": self._dtype.name,
        }
