"""What a teacher on a server answered to the rows of a quest: one JSON line each, in a file beside the quest. It asks nobody.

    {"line": 7, "content": "…", "reasoning_content": "…"}     to the row in line 7 of the quest; as they came
    {"rows": 100, "left_out": {"9": "…"}, "sha256": "…"}      the last one: nothing more is asked

Answers are kept before anything is trained on them, and read from here ever after: who is killed, goes back or tries again
asks nothing twice, and trains what he trained.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from core.durable import read_json, sync_folder
from core.errors import UserError
from core.profiles import dress
from core.quest import ANSWERS, Quest
from core.rows import BadRow, Conversation, Problem, Row, Turns, context, read_turns

SCHOOL = "whisper"
TAIL_BYTES = 1 << 16  # in which the last line begins
SHOWN = 20  # lines left out that are named


def is_asked(card: Mapping[str, Any]) -> bool:
    """Whether a teacher on a server has to answer the rows of the quest with this `card` before it can be trained."""
    return card.get("school") == SCHOOL and bool(card["settings"]["schools"]["whisper"].get("url"))


def is_ready(quest: Quest) -> bool:
    """Whether `quest` can be trained: it is answered, or has nobody to be asked. An idle trainer asks it of all that wait, many
    times a second, so a card is read once."""
    path = quest.companion(".quest.json")
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:  # cancelled, or moved, just now
        changed = None
    return not _asks(path, changed) or last_line(quest.companion(ANSWERS)) is not None


@lru_cache(maxsize=4096)
def _asks(card: Path, changed: int | None) -> bool:
    """`is_asked` of the card in this file as of that change."""
    return is_asked(read_json(card, {}))


def answers_to(quest: Quest) -> "TeacherAnswers | None":
    """The answers that are trained in place of the file's own; None where these are. Raises UserError where some are missing."""
    if not is_asked(quest.card):
        return None
    path = quest.companion(ANSWERS)
    if last_line(path) is None:
        raise UserError(
            f"{path.name} does not hold all answers of the teacher any more; the missing ones are asked for"
        )
    return TeacherAnswers(path)


def last_line(path: Path) -> dict[str, Any] | None:
    """What the file says of itself when it is whole; None where it is not."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            line = file.read().rpartition(b"\n")[0].rpartition(b"\n")[2]
    except FileNotFoundError:
        return None
    told = _parsed(line)
    return told if told and "sha256" in told else None


class TeacherAnswers:
    """The answers in a whole file, by the line of the row. `sha256`: of all, in the order of the lines."""

    def __init__(self, path: Path):
        self.path, told = path, last_line(path)
        self.sha256: str = told["sha256"]
        with open(path, "rb") as file:
            self._places = {line: place for line, place, _ in _records(file)}

    def taught(self, rows: Iterable[tuple[int, bytes, Row | BadRow]], profile: str) -> Iterator[tuple]:
        """`rows` (line number, bytes, row), each with the teacher's answer in place of its own, dressed as `profile` has it."""
        with open(self.path, "rb") as file:
            for number, line, row in rows:
                yield number, line, row if isinstance(row, BadRow) else self._taught(file, number, row, profile)

    def _taught(self, file: BinaryIO, number: int, row: Row, profile: str) -> Row | BadRow:
        if number not in self._places:
            return BadRow("answer", "of the teacher was left out")
        file.seek(self._places[number])
        try:
            return dress(answered(row, orjson.loads(file.readline())), profile)
        except BadRow as problem:
            return problem


@dataclass(frozen=True)
class Question:
    """What is asked: turns and tools, as the realm has them."""

    prompt: Turns
    tools: tuple[dict, ...] | None = None


def question_of(row: Row) -> Question:
    """The conversation up to its last answer; all of a prompt alone. Raises BadRow."""
    if isinstance(row, Problem):
        return Question(row.prompt, row.tools)
    if not isinstance(row, Conversation) or row.text is not None:
        raise BadRow("text", "asks nothing", None, "a teacher answers conversations; give texts to the Scribe")
    return Question(row.messages[:-1], row.tools)


def answered(row: Row, answer: Mapping[str, Any]) -> Conversation:
    """The question of `row` with this answer, which alone is trained. Raises BadRow."""
    asked = question_of(row)
    said = {"role": "assistant", **{key: answer[key] for key in ("content", "reasoning_content") if answer.get(key)}}
    return Conversation(tuple(read_turns([said], "answer", context(asked.prompt))), asked.tools)


class AnswerFile:
    """The file while it is written; what is there already is `known`, by line. To be closed."""

    def __init__(self, path: Path):
        self._file = open(path, "a+b")
        sync_folder(path.parent)
        self._file.seek(0)
        self.known, end = set(), 0
        for line, place, size in _records(self._file):
            self.known.add(line)
            end = place + size
        self._file.truncate(end)  # half a line of somebody who was killed

    def add(self, line: int, answer: Mapping[str, Any]) -> None:
        """Keep the answer to the row in `line`."""
        self._file.write(orjson.dumps({"line": line, **answer}) + b"\n")
        self._file.flush()
        self.known.add(line)

    def sync(self) -> None:
        """What was added is on disk from now on."""
        os.fsync(self._file.fileno())

    def finish(self, left_out: Mapping[int, str], **facts: Any) -> None:
        """All is asked; `left_out`: rows that are not trained, and why; `facts`: who answered."""
        named = {str(line): left_out[line] for line in sorted(left_out)[:SHOWN]}
        told = {"rows": len(self.known), "left_out": named, **facts, "sha256": self._sha256()}
        self.sync()
        self._file.write(orjson.dumps(told) + b"\n")
        self._file.flush()
        self.sync()

    def close(self) -> None:
        self._file.close()

    def _sha256(self) -> str:
        self._file.seek(0)
        places, hasher = sorted((line, place) for line, place, _ in _records(self._file)), hashlib.sha256()
        for _, place in places:
            self._file.seek(place)
            hasher.update(self._file.readline())
        return hasher.hexdigest()


def _records(file: BinaryIO) -> Iterator[tuple[int, int, int]]:
    """Line of the row, place and bytes of each whole answer, up to the first that is none."""
    place = 0
    while line := file.readline():
        told = _parsed(line) if line.endswith(b"\n") else None
        if told is None or "line" not in told:
            return
        yield told["line"], place, len(line)
        place += len(line)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        told = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return told if isinstance(told, dict) else None
