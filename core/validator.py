"""Judges a quest file before it is trained: bytes, JSON, form, fields, roles, token lengths, copies of rows.

It streams: memory does not grow with the file. Rows are rendered as the trainer will see them, all of them in a file
up to `EXACT_BYTES`, an even sample of a larger one, and the report says which. It knows nothing about queues.
"""

import hashlib
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from core.corrections import asking, is_sparring
from core.errors import UserError
from core.file_kinds import HEAD_BYTES, other_kind
from core.formats import BadRow, Form, detect, dressed
from core.quest import Settings
from core.quest_file import chunks, parse, read_lines, to_row
from core.rendering import Renderer
from core.rows import Row, prompts_of, thinking
from core.schools import school_for
from core.skills import evaluated_by
from core.teacher import check_settings
from core.token_lengths import histogram

EXACT_BYTES = 64 << 20
SAMPLE_ROWS = 20_000
SAMPLE_BYTES = 64 << 20
LISTED_ERRORS = 100
REMEMBERED_ROWS = 2_000_000
DETECT_ROWS = 100
CHUNK_ROWS = 512


@dataclass
class Tally:
    """What was counted so far."""

    rows: int = 0
    bad_rows: int = 0
    kept_for_evaluation: list[tuple[int, str]] = field(default_factory=list)
    truncated: int = 0
    lengths: array = field(default_factory=lambda: array("Q"))
    whole: array = field(default_factory=lambda: array("Q"))  # lengths before anything was cut
    trained_tokens: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    keys: array = field(default_factory=lambda: array("Q"))
    thinking: Counter[str] = field(default_factory=Counter)

    @property
    def copies(self) -> int:
        """Rows that repeat another, among the first `REMEMBERED_ROWS`."""
        return len(self.keys) - len(np.unique(np.array(self.keys, np.uint64)))


class SetAside:
    """The bad rows, byte for byte, in a file made when the first one comes."""

    def __init__(self, path: Path | None):
        self.path = path
        self._file = None

    def add(self, line: bytes) -> None:
        if self.path:
            self._file = self._file or open(self.path, "wb")
            self._file.write(line + b"\n")

    def close(self, keep: bool) -> None:
        if self._file:
            self._file.close()
            if not keep:
                self.path.unlink()


def validate_file(
    path: Path,
    settings: Settings,
    renderer: Renderer,
    bad_rows: Path | None = None,
    alive: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The report on `path`: verdict `accepted` or `rejected`, reason, form, school, counts, token lengths, errors by line.

    Bad rows of an accepted file are copied to `bad_rows`; `alive` is called after every chunk of rows. Never raises for
    what the file holds.
    """
    hasher = hashlib.sha256()
    tally, aside = Tally(), SetAside(bad_rows)
    size = path.stat().st_size
    lines = read_lines(path, hasher)
    head = next(chunks(lines, DETECT_ROWS), [])
    if head and head[0][2]:
        return _not_read(path, size, head[0], tally)
    stride = 1 if size <= EXACT_BYTES else max(1, _count_lines(path) // SAMPLE_ROWS, size // SAMPLE_BYTES)
    form, school, reason = form_of(head, settings)
    for chunk in chunks(chain(head, lines), CHUNK_ROWS):
        judge(chunk, form, settings, renderer if school else None, stride, tally, aside)
        alive()
    verdict = reason or _verdict(tally, settings)
    if verdict and tally.bad_rows and (kind := _kind(path)):
        verdict = kind
        tally.errors.clear()  # they would speak of rows where there are none
    aside.close(keep=verdict is None)
    return report_of(path, form, school, verdict, stride, size, hasher.hexdigest(), tally, settings.max_length)


def _not_read(path: Path, size: int, first: tuple[int, bytes, BadRow], tally: Tally) -> dict[str, Any]:
    """The report on a file whose first line is too long to be a row: the rest of it is not read."""
    number, line, problem = first
    _count_bad(number, line, problem, tally, SetAside(None))
    why = _kind(path) or f"line {number} {problem.reason} and comes before any row; the file is read no further"
    return report_of(path, None, None, why, 1, size, None, tally, 0)


def _kind(path: Path) -> str | None:
    with open(path, "rb") as file:
        return other_kind(file.read(HEAD_BYTES))


def _count_lines(path: Path) -> int:
    """Lines of a large file, guessed from the mean of its first 8 MiB."""
    with open(path, "rb") as file:
        beginning = file.read(8 << 20)
    return int(path.stat().st_size / len(beginning) * max(1, beginning.count(b"\n")))


def form_of(head: list, settings: Settings) -> tuple[Form | None, str | None, str | None]:
    """The file's form, the school that teaches it, and why it cannot be trained, if it cannot."""
    parsed = [(number, problem or parse(line)) for number, line, problem in head]
    samples = [row for _, row in parsed if isinstance(row, dict)]
    if not head:
        return None, None, "the file holds no rows"
    if not samples:
        number, problem = parsed[0]
        return (
            None,
            None,
            f"no line of the beginning is a JSON object, as JSON Lines has one a line; line {number} {problem.reason}",
        )
    form = None
    try:
        whisper = settings.schools.whisper
        form = detect(samples, settings.columns, asked=settings.school == "whisper" and whisper.url is not None)
        school = school_for(form.name, settings.school)
        if school == "whisper":
            check_settings(whisper, form.name)
        sparring = is_sparring({"school": school, "form": form.name})
        return asking(form) if sparring else dressed(form, settings.profile, settings.learned), school, None
    except UserError as problem:
        return form, None, str(problem)


def judge(
    chunk: list,
    form: Form | None,
    settings: Settings,
    renderer: Renderer | None,
    stride: int,
    tally: Tally,
    aside: SetAside,
) -> None:
    """Judge a chunk of lines: each is counted as a row or a bad row. Without a `renderer` tokens are not looked at."""
    results: list = []
    for number, line, problem in chunk:
        values = problem or parse(line)
        row = values if isinstance(values, BadRow) or form is None else to_row(form, values, settings.columns)
        results.append([number, line, row])
    if form and renderer:
        wanted = [entry for entry in results if not isinstance(entry[2], BadRow) and entry[0] % stride == 0]
        for entry, rendered in zip(wanted, renderer.render([entry[2] for entry in wanted]), strict=True):
            if isinstance(rendered, BadRow):
                entry[2] = rendered
            else:
                _measure(rendered, tally)
    for number, line, row in results:
        if not isinstance(row, BadRow) and form is not None:
            row = _unless_kept(number, row, tally)
        if isinstance(row, BadRow):
            _count_bad(number, line, row, tally, aside)
        else:
            tally.rows += 1
            tally.thinking.update(filter(None, [thinking(row)]))
            if len(tally.keys) < REMEMBERED_ROWS:
                tally.keys.frombytes(hashlib.blake2b(line, digest_size=8).digest())


def _unless_kept(number: int, row: Row, tally: Tally) -> Row | BadRow:
    """`row`, or what is wrong with it where a skill keeps one of its prompts for evaluations."""
    for prompt in prompts_of(row):
        if name := evaluated_by(prompt):
            tally.kept_for_evaluation.append((number, name))
            why = (
                f"is an evaluation problem of the skill {name}; a hero that has seen it could not be measured any more"
            )
            return BadRow("prompt", why, prompt, "drop the row; `skill sample` gives problems to train on")
    return row


def _measure(rendered, tally: Tally) -> None:
    sequences = rendered.every
    length = sum(len(sequence.input_ids) for sequence in sequences)
    tally.lengths.append(length)
    tally.whole.append(length + sum(sum(sequence.cut) for sequence in sequences))
    tally.trained_tokens += sum(int(sequence.trained.sum()) for sequence in sequences)
    tally.truncated += any(sequence.truncated for sequence in sequences)


def _count_bad(number: int, line: bytes, problem: BadRow, tally: Tally, aside: SetAside) -> None:
    tally.bad_rows += 1
    aside.add(line)
    if len(tally.errors) < LISTED_ERRORS:
        tally.errors.append(
            {
                "line": number,
                "field": problem.field,
                "reason": problem.reason,
                "value": problem.value,
                "remedy": problem.remedy,
            }
        )


def _verdict(tally: Tally, settings: Settings) -> str | None:
    """Why the file is rejected, or None."""
    if kept := tally.kept_for_evaluation:
        where = ", ".join(str(number) for number, _ in kept[:10]) + (" …" if len(kept) > 10 else "")
        names = ", ".join(sorted({name for _, name in kept}))
        return f"{len(kept):,} rows are evaluation problems of {names}, which no hero may be trained on: drop lines {where}"
    total = tally.rows + tally.bad_rows
    if tally.bad_rows > settings.max_bad_rows * total:
        allowed, first = int(settings.max_bad_rows * total), tally.errors[0]
        where = f"line {first['line']}" if first["field"] == "line" else f"line {first['line']}, {first['field']}:"
        return (
            f"{tally.bad_rows:,} of {total:,} rows {'is' if tally.bad_rows == 1 else 'are'} bad; max_bad_rows = "
            f"{settings.max_bad_rows:g} allows {allowed:,}. The first: {where} {first['reason']}"
        )
    if not tally.rows:
        return "the file holds no rows"
    return None


def _warnings(tally: Tally) -> Iterator[str]:
    """What is trained as it stands, though it may not be what is wanted."""
    if len(tally.thinking) > 1 or "mixed" in tally.thinking:
        learned = tally.thinking["learned"] + tally.thinking["mixed"]
        yield (
            f"{learned:,} of {tally.thinking.total():,} rows have reasoning: those learn to think, the others to answer with "
            "thinking switched off. A hero asked to think may learn both; else give each its own file."
        )


def report_of(
    path: Path,
    form: Form | None,
    school: str | None,
    reason: str | None,
    stride: int,
    size: int,
    sha256: str | None,
    tally: Tally,
    max_length: int,
) -> dict[str, Any]:
    ordered, tokens = np.sort(np.array(tally.lengths, np.int64)), None
    if count := len(ordered):
        low, median, p95, high = ordered[[0, count // 2, int(0.95 * (count - 1)), -1]].tolist()
        total = int(ordered.sum())
        tokens = {
            "exact": stride == 1,
            "rows_measured": count,
            "min": low,
            "median": median,
            "p95": p95,
            "max": high,
            "mean": total / count,
            "total": round(total * tally.rows / count),
            "trained_mean": tally.trained_tokens / count,
            "truncated_rows": tally.truncated,
            "histogram": histogram(np.array(tally.whole, np.int64), max_length),
        }
    return {
        "file": path.name,
        "verdict": "rejected" if reason else "accepted",
        "reason": reason,
        "form": form.name if form else None,
        "school": school or (form.school if form else None),
        "bytes": size,
        "sha256": sha256,
        "rows": tally.rows,
        "bad_rows": tally.bad_rows,
        "copies": tally.copies,
        "thinking": dict(tally.thinking),
        "warnings": list(_warnings(tally)),
        "tokens": tokens,
        "errors": tally.errors,
        "errors_listed": len(tally.errors),
    }
