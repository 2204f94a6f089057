"""What the hero will see of a file: rows as tokens, what of them is learned, what was cut. For `quest preview` and the pages.

It reads a page of rows from any place of a file, however large, and never more. It knows nothing about quests' states.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import UserError
from core.formats import BadRow, Form, detect, dressed
from core.formats import form as form_named
from core.quest_file import lines_of, parse, to_row
from core.regular_file import open_regular
from core.rendering import Renderer, Sequence
from core.rows import Row, thinking

DETECT_ROWS = 100
PAGE_BYTES = 2 << 20  # lines of a page, but for its first one
LONGEST_CHARACTER = 8  # tokens that a tokenizer may need for one character
BEFORE_TRAINED = 16


def preview(
    path: Path,
    columns: dict[str, str],
    renderer: Renderer,
    rows: int,
    form: str | None = None,
    at: int = 0,
    line: int = 0,
    most_tokens: int | None = None,
    profile: str = "none",
    learned: str = "assistant",
) -> dict[str, Any]:
    """`rows` rows from byte `at` on, which stands behind line `line`; `next`: where to go on. Raises UserError, OSError.

    `form`: its name, where it is known; `profile`: how answers are dressed; `learned`: what of a row is trained. Of a sequence
    with more than `most_tokens`, beginning, end and the first learned tokens are shown.
    """
    with open_regular(path) as file:
        known = dressed(form_named(form) if form else _form_at_the_beginning(file, columns), profile, learned)
        file.seek(at)
        shown, size, goes_on = [], 0, True
        for number, text, problem in lines_of(file, line):
            values = problem or parse(text)
            row = values if isinstance(values, BadRow) else to_row(known, values, columns)
            shown.append({"line": number, "at": at, "before": line, **_shown(renderer, row, most_tokens)})
            size, goes_on = size + len(text), problem is None  # a line without an end is not read to its end
            at, line = file.tell(), number
            if len(shown) >= rows or size >= PAGE_BYTES or not goes_on:
                break
        more = goes_on and file.read(1) != b""
    return {"form": known.name, "profile": profile, "rows": shown, "next": {"at": at, "line": line} if more else None}


def _form_at_the_beginning(file, columns: dict[str, str]) -> Form:
    head = [problem or parse(text) for _, text, problem in islice(lines_of(file, 0), DETECT_ROWS)]
    return detect([values for values in head if not isinstance(values, BadRow)], columns)


def _shown(renderer: Renderer, row: Row | BadRow, most_tokens: int | None) -> dict[str, Any]:
    """The row's sequences, or its problem."""
    rendered = row if isinstance(row, BadRow) else renderer.render([row])[0]
    if isinstance(rendered, BadRow):
        return {"problem": str(rendered), "thinking": None, "sequences": []}
    chosen = "chosen" if rendered.rejected else None
    sides = [(sequence, chosen) for sequence in rendered.sequences]
    sides += [(sequence, "rejected") for sequence in rendered.rejected]
    told = [{"side": side, **_sequence(renderer, sequence, most_tokens)} for sequence, side in sides]
    return {"problem": None, "thinking": thinking(row), "sequences": told}


def _sequence(renderer: Renderer, sequence: Sequence, most_tokens: int | None) -> dict[str, Any]:
    before, after = sequence.cut
    return {
        "tokens": len(sequence.input_ids),
        "trained_tokens": int(sequence.trained.sum()),
        "cut_before": before,
        "cut_after": after,
        "runs": list(_runs(renderer, sequence, most_tokens)),
    }


def _runs(renderer: Renderer, sequence: Sequence, most_tokens: int | None) -> Iterator[dict[str, Any]]:
    """Stretches that are learned or not: text and tokens (text, whether it is a control token); or how many are not shown."""
    told = 0
    for begin, end in _windows(sequence.trained, most_tokens):
        if begin > told:
            yield {"not_shown": begin - told}
        pairs = zip(sequence.input_ids[begin:end].tolist(), sequence.trained[begin:end].tolist(), strict=True)
        for trained, run in groupby(pairs, key=lambda pair: pair[1]):
            tokens = list(_tokens(renderer, [token for token, _ in run]))
            yield {"text": "".join(text for text, _ in tokens), "trained": trained, "tokens": tokens}
        told = end
    if told < len(sequence.input_ids):
        yield {"not_shown": len(sequence.input_ids) - told}


def _windows(trained: np.ndarray, most: int | None) -> Iterator[tuple[int, int]]:
    """What is shown: everything, or the beginning, what is around the first learned token, and the end."""
    count = len(trained)
    if most is None or count <= most:
        yield 0, count
        return
    third, told = most // 3, 0
    first = max(0, int(trained.argmax()) - BEFORE_TRAINED)
    for begin in sorted({0, min(first, count - third), count - third}):
        begin, end = max(begin, told), begin + third
        if begin < end:
            yield begin, end
            told = end


def _tokens(renderer: Renderer, ids: list[int]) -> Iterator[tuple[str, bool]]:
    """Each token's text; those that make one character only together are one."""
    waiting: list[int] = []
    for token in ids:
        waiting.append(token)
        text = renderer.decode(waiting)
        if not text.endswith("\ufffd") or len(waiting) == LONGEST_CHARACTER:
            yield text, token in renderer.control_ids
            waiting = []
    if waiting:
        yield renderer.decode(waiting), False


def plain_runs(sequences: Iterable[dict[str, Any]]) -> list[list[tuple[str, bool]]]:
    """For each sequence of a row its text, in runs that are learned or not."""
    return [[(run["text"], run["trained"]) for run in sequence["runs"]] for sequence in sequences]


def rendered_runs(renderer: Renderer, row: Row) -> list[list[tuple[str, bool]]]:
    """`plain_runs` of one row. Raises UserError where it cannot be rendered."""
    shown = _shown(renderer, row, None)
    if shown["problem"]:
        raise UserError(shown["problem"])
    return plain_runs(shown["sequences"])
