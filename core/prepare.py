"""A quest's rows as token arrays on disk, ready to be mapped into memory; it knows nothing about training or torch.

Prepared folders are a cache named by everything that went into them: content, form, tokenizer, template, length, seed.
So they can be made ahead of the battle by whoever has time, deleted at any moment, and found again after a restart.

    tokens.bin    uint16 or uint32, all sequences one after the other
    trained.bin   bool, whether the token is learned
    ends.bin      int64, where each sequence ends in tokens.bin
    rows.bin      int64, one pair a row: line number in the file, number of its first sequence
    keys.bin      uint64, seeded hash of each row's bytes, which decides what is held out
    values.bin    float32, of rows with a verdict: their reward, or 1 for a good answer and -1 for a bad one
    groups.bin    uint64, of rows with a reward: hash of what was asked, the same for answers to the same prompt
    tasks.bin     JSON, of problems: what is needed to mark an answer
    task_ends.bin int64, where each of these ends in tasks.bin
    meta.json     counts and dtype
"""

import contextlib
import errno
import gc
import hashlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from core.durable import read_json, sync_file, sync_folder, write_json
from core.errors import UserError
from core.formats import BadRow, Form, dressed
from core.formats import form as form_named
from core.graders import Task
from core.quest import Settings
from core.quest_file import chunks, read_rows
from core.rendering import Rendered, Renderer
from core.room import Room
from core.rows import Problem, Row, Verdict
from core.teacher_answers import TeacherAnswers

CHUNK_ROWS = 512
BLOCK_ROWS = 1 << 18
FORMAT = 1


def cache_name(
    quest_sha256: str, form: str, settings: Settings, renderer: Renderer, answers: TeacherAnswers | None = None
) -> str:
    """The folder name that stands for exactly these rows, with these answers of a teacher, rendered in exactly this way."""
    parts = (
        FORMAT,
        quest_sha256,
        form,
        settings.school,
        sorted(settings.columns.items()),
        settings.seed,
        renderer.fingerprint,
        *([] if settings.profile == "none" else [settings.profile]),
        *([] if settings.learned == "assistant" else [settings.learned]),
        *([] if answers is None else [answers.sha256]),
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

    @cached_property
    def values(self) -> np.ndarray:
        """Of every row that has a verdict, in numbers."""
        return _mapped(self.folder / "values.bin", np.dtype(np.float32))

    @cached_property
    def groups(self) -> np.ndarray:
        """Of every row that has a reward, which others answer the same prompt."""
        return _mapped(self.folder / "groups.bin", np.dtype(np.uint64))

    @cached_property
    def _tasks(self) -> tuple[np.ndarray, np.ndarray]:
        return _mapped(self.folder / "tasks.bin", np.dtype(np.uint8)), _mapped(
            self.folder / "task_ends.bin", np.dtype(np.int64)
        )

    def task(self, row: int) -> Task:
        """What marks the answers to `row`, which is a problem."""
        text, ends = self._tasks
        return Task(**orjson.loads(text[int(ends[row - 1]) if row else 0 : int(ends[row])].tobytes()))

    def __len__(self) -> int:
        return self.meta["rows"]

    def line(self, row: int) -> int:
        """The line of the quest file that `row` came from."""
        return int(self._rows[row, 0])

    @cached_property
    def labels(self) -> np.ndarray:
        """How many tokens of each sequence are learned: the first never is, nothing stands before it."""
        if not len(self._ends):
            return np.empty(0, np.int64)
        starts = np.concatenate([[0], self._ends[:-1]])
        return np.add.reduceat(self._trained, starts, dtype=np.int64) - self._trained[starts]

    def numbers(self, row: int) -> range:
        """Which sequences are those of `row`."""
        last = int(self._rows[row + 1, 1]) if row + 1 < len(self._rows) else len(self._ends)
        return range(int(self._rows[row, 1]), last)

    def sequences(self, row: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """(tokens, trained) of each sequence of `row`, both one-dimensional and of equal length."""
        return [self.sequence(number) for number in self.numbers(row)]

    def sequence(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        begin = int(self._ends[number - 1]) if number else 0
        end = int(self._ends[number])
        return self._tokens[begin:end], self._trained[begin:end]

    def held_out(self, fraction: float, most: int) -> np.ndarray:
        """The rows with the smallest keys, with all their copies, so that no held-out row is ever trained; ascending."""
        wanted = min(most, int(len(self) * fraction))
        if fraction > 0 and len(self) >= 10:
            wanted = max(wanted, 1)
        smallest = np.empty(0, np.uint64)
        for _, keys in self._blocks_of_keys():
            keys = keys[keys < smallest[-1]] if len(smallest) == 4 * wanted > 0 else keys
            smallest = np.unique(np.concatenate([smallest, keys]))[: 4 * wanted]
        if not len(smallest):
            return np.empty(0, np.int64)
        near = [np.flatnonzero(keys <= smallest[-1]) + first for first, keys in self._blocks_of_keys()]
        rows = np.concatenate(near)
        keys = self.keys[rows]
        chosen, count = [], 0
        for key, copies in zip(*np.unique(keys, return_counts=True), strict=True):
            if count + copies <= wanted:
                chosen.append(key)
                count += copies
        return rows[np.isin(keys, np.array(chosen, dtype=np.uint64))]

    def _blocks_of_keys(self) -> Iterator[tuple[int, np.ndarray]]:
        for first in range(0, len(self.keys), BLOCK_ROWS):
            yield first, self.keys[first : first + BLOCK_ROWS]


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def prepare(
    path: Path,
    form: str,
    settings: Settings,
    renderer: Renderer,
    folder: Path,
    progress: Callable[[float], None] = lambda share: None,
    sha256: str | None = None,
    answers: TeacherAnswers | None = None,
) -> Prepared:
    """Tokenise the good rows of `path` into `folder`, streaming; a folder that is there already is simply opened.

    `progress` is told after every chunk of rows what share of the file is done, and may end the work by raising.
    Memory does not grow with the file. `sha256`: of the file's bytes as they were accepted; UserError for others. `answers`: a
    teacher's, in place of the file's own.
    """
    if (folder / "meta.json").is_file():
        return Prepared(folder)
    building = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.tmp")
    building.mkdir(parents=True)
    size, read, hasher = path.stat().st_size, 0, hashlib.sha256()
    try:
        if not Room.of(building).holds(size):  # tokens take about as much as text
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
        with contextlib.ExitStack() as stack:
            writer = _Writer(building, renderer.vocab_size, settings.seed, stack)
            rows = _rows(path, form_named(form), settings, hasher, answers)
            stack.enter_context(_collecting_seldom())
            for chunk in chunks(rows, CHUNK_ROWS):
                good = [entry for entry in chunk if not isinstance(entry[2], BadRow)]
                rendered = renderer.render(row for _, _, row in good)
                writer.add([(*entry, result) for entry, result in zip(good, rendered, strict=True)
                            if not isinstance(result, BadRow)])  # fmt: skip
                read += sum(len(line) + 1 for _, line, _ in chunk)
                gc.collect(0)
                progress(min(1.0, read / size))
        if sha256 not in (None, hasher.hexdigest()):
            raise UserError(f"{path.name}: was altered after it was accepted; drop it into inbox/ again as a new quest")
        for file in building.iterdir():  # else a power cut could leave the name and no bytes
            sync_file(file)
        write_json(building / "meta.json", writer.meta())
        _publish(building, folder)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return Prepared(folder)


def _rows(path: Path, form: Form, settings: Settings, hasher: Any, answers: TeacherAnswers | None) -> Iterator[tuple]:
    """Line number, bytes and row of every line, as it is trained; of the others what is wrong with them."""
    if answers is None:
        return read_rows(path, dressed(form, settings.profile, settings.learned), settings.columns, hasher)
    return answers.taught(read_rows(path, form, settings.columns, hasher), settings.profile)


@contextlib.contextmanager
def _collecting_seldom() -> Iterator[None]:
    """No garbage is looked for every few hundred objects, which takes a tenth of the time; the block does it itself."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


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
        names = ("tokens", "trained", "ends", "rows", "keys", "values", "groups", "tasks", "task_ends")
        self._files = {name: stack.enter_context(open(folder / f"{name}.bin", "wb")) for name in names}
        self._dtype = np.dtype(np.uint16 if vocabulary <= 1 << 16 else np.uint32)
        self._salt = str(seed).encode()
        self._rows = self._sequences = self._tokens = self._learned = self._told = 0

    def add(self, rows: list[tuple[int, bytes, Row, Rendered]]) -> None:
        """Line number, bytes, normal form and sequences of each row; of a preference the chosen one comes first."""
        sequences = [sequence for *_, rendered in rows for sequence in rendered.every]
        if not sequences:
            return
        firsts = self._sequences + np.cumsum([0, *(len(rendered.every) for *_, rendered in rows)])[:-1]
        ends = self._tokens + np.cumsum([len(sequence.input_ids) for sequence in sequences])
        trained = np.concatenate([sequence.trained for sequence in sequences])
        self._write("tokens", np.concatenate([sequence.input_ids for sequence in sequences]).astype(self._dtype))
        self._write("trained", trained)
        self._write("ends", ends)
        self._write("rows", np.stack([[number for number, *_ in rows], firsts], axis=1))
        for _, line, row, _ in rows:
            self._files["keys"].write(hashlib.blake2b(line, digest_size=8, key=self._salt).digest())
            self._write_beside(row)
        self._rows += len(rows)
        self._sequences += len(sequences)
        self._tokens = int(ends[-1])
        self._learned += int(trained.sum())

    def _write_beside(self, row: Row) -> None:
        """What a school has to know of a row beside its tokens."""
        if isinstance(row, Verdict):
            self._files["values"].write(np.float32(row.value).tobytes())
            if row.reward is not None:
                self._files["groups"].write(hashlib.blake2b(orjson.dumps(row.asked), digest_size=8).digest())
        elif isinstance(row, Problem):
            task = orjson.dumps(Task(row.prompt[-1]["content"], row.answer, row.skill, row.grader, row.level))
            self._files["tasks"].write(task)
            self._told += len(task)
            self._write("task_ends", np.array([self._told], np.int64))

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
