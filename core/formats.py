"""From a line of JSON to one normal row: parse it, tell its file's form, read it; knows nothing about tokens.

`strict_json` takes JSON as RFC 8259 has it and no more; of duplicate keys the last wins, as everywhere. A byte order
mark before the first line is the reader's to strip.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import orjson

from core.errors import UserError, nearest
from core.profiles import dress
from core.row_forms import ASKED, FORMS, Form
from core.rows import MAX_DEPTH, BadRow, Conversation, Preference, Problem, Row, Verdict, check_depth, learning

__all__ = ["ASKED", "FORMS", "MAX_LINE_BYTES", "BadRow", "Conversation", "Form", "Preference", "Problem", "Row", "Verdict",
           "detect", "dressed", "form", "read", "strict_json"]  # fmt: skip

MAX_LINE_BYTES = 8 << 20
SAMPLE_ROWS = 100
ONE_OBJECT = "write one {…} a line"
_REMEDIES = {  # for what the parser says
    "unexpected end": "the row is cut off: write it whole, or drop it",
    "infinity": "write a number below 1e308, or null",
    "depth limit": "flatten it",
    "control character": "escape it, like \\n or \\u0000",
    "surrogate": "write the character itself, as UTF-8",
    "string key": "write names and texts in double quotes",
}


def strict_json(line: bytes) -> dict[str, Any]:
    """The object on `line`. Raises BadRow with the column, or the byte where the line is not UTF-8."""
    if len(line) > MAX_LINE_BYTES:
        raise BadRow("line", f"is longer than {MAX_LINE_BYTES >> 20} MiB", None, "split the row")
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as problem:
        raise _broken(line, problem) from None
    if not isinstance(row, dict):
        raise BadRow("line", "is not a JSON object", row, ONE_OBJECT)
    if line.count(b"{") + line.count(b"[") > MAX_DEPTH:  # brackets, also those inside strings, bound the depth
        check_depth(row, "line")
    return row


def detect(rows: Iterable[Any], columns: Mapping[str, str] | None = None, asked: bool = False) -> Form:
    """The form that most first rows have, on a tie the earlier in `FORMS`. UserError names the fields if none fits. `asked`:
    whether prompts alone will do, because somebody answers them."""
    votes: Counter[int] = Counter()
    fields: Counter[str] = Counter()
    given: set[str] = set()
    for row in (row for _, row in zip(range(SAMPLE_ROWS), rows, strict=False) if isinstance(row, dict)):
        keys = _telling_fields(rename(row, columns))
        fields.update(sorted(keys))
        given.update(row)
        votes.update([next((place for place, form in enumerate(FORMS) if form.matches(keys)), len(FORMS))])
    if not votes:
        raise UserError(f"no row is a JSON object; {ONE_OBJECT}")
    known = [place for place in votes if place < len(FORMS)]
    if not known and asked and ASKED.matches(fields.keys()):
        return ASKED
    if not known:
        raise UserError(_no_form(fields, [name for name in columns or () if name not in given]))
    return FORMS[min(known, key=lambda place: (-votes[place], place))]


def form(name: str) -> Form:
    """The form of that name, as a report or a quest's card gives it."""
    return next(form for form in (*FORMS, ASKED) if form.name == name)


def read(form: Form, row: Any, columns: Mapping[str, str] | None = None) -> Row:
    """One parsed row in the normal form. Raises BadRow naming the field."""
    if not isinstance(row, dict):
        raise BadRow("line", "is not a JSON object", row, ONE_OBJECT)
    row = rename(row, columns)
    keys = {key for key, value in row.items() if value is not None}
    if not form.matches(keys):
        other = next((other.name for other in FORMS if other.matches(keys)), None)
        advice = f", this row is {other}: give it its own file" if other else ": add the field, or drop the row"
        remedy = f"the file's form is {form.name}{advice}"
        raise BadRow(form.missing(keys)[0], "is missing", None, remedy)
    if form.school == "scribe" and row.get("label") is False:
        raise BadRow("label", "is false, and such rows are never imitated", False, "give labelled rows their own file")
    return form.read(row)


def dressed(form: Form, profile: str, learned: str = "assistant") -> Form:
    """`form`, whose rows are dressed as `profile` has it, and trained on what is to be `learned` of them."""
    if profile == "none" and learned == "assistant":
        return form
    return replace(form, read=lambda values: learning(dress(form.read(values), profile), learned))


def rename(row: dict[str, Any], columns: Mapping[str, str] | None) -> dict[str, Any]:
    """The row under the realm's field names; a mapped column wins over one that has the name already."""
    if not columns:
        return row
    kept = {key: value for key, value in row.items() if key not in columns}
    return kept | {ours: row[theirs] for theirs, ours in columns.items() if theirs in row}


def _telling_fields(row: dict[str, Any]) -> set[str]:
    """Fields that say something about the form: exporters write null for absent ones, and a label may be a topic."""
    return {key for key, value in row.items() if value is not None and (key != "label" or value in (True, False))}


def _rename_advice(absent: list[str]) -> str:
    named = ", ".join(name[:40] for name in absent[:12])
    return (
        f"`columns` names {named}, which no row has." if absent else 'Rename fields with `columns`, {"theirs": "ours"}.'
    )


def _no_form(fields: Counter[str], absent: list[str]) -> str:
    found = [name if len(name) <= 40 else f"{name[:39]}…" for name, _ in fields.most_common(12)]
    close = min(FORMS, key=lambda form: (len(form.missing(fields.keys())), -max(map(len, form.needs))))
    missing = close.missing(fields.keys())
    hint = next((f" (like {name!r})" for name in found if nearest(name, missing)), "")
    return (
        f"rows of no known form: fields {', '.join(found) or 'none'}; the nearest form is {close.name}, "
        f"which also needs {', '.join(missing)}{hint}. {_rename_advice(absent)} "
        f"Forms: {', '.join(form.name for form in FORMS)}"
    )


def _broken(line: bytes, problem: orjson.JSONDecodeError) -> BadRow:
    try:
        shown = line.decode()
    except UnicodeDecodeError as wrong:
        around = line[max(wrong.start - 20, 0) : wrong.start + 20]
        return BadRow("line", f"is not UTF-8 at byte {wrong.start + 1}", around, "save the file as UTF-8")
    if not line.strip():
        return BadRow("line", "is empty")
    place = max(problem.pos - 20, 0)
    no_number = shown[problem.pos :].lstrip("-").startswith(("NaN", "Infinity", "nfinity", "aN"))
    remedy = next((remedy for part, remedy in _REMEDIES.items() if part in problem.msg), ONE_OBJECT)
    remedy = "NaN and Infinity are not JSON: write null, or drop the row" if no_number else remedy
    return BadRow("line", f"is not JSON: {problem.msg} at column {problem.pos + 1}", shown[place : place + 60], remedy)
