"""What a hero has kept, level by level and checkpoint by checkpoint, as the fields of a table. It reads nothing.

A field tells of the last time that a level was asked within its column; where a life is longer than the table is wide,
a column is several checkpoints.
"""

from collections.abc import Iterable
from typing import Any

from monitoring.servers.tavern.words import number, percent

COLUMNS = 24
SHADES = 10  # of a field: classes `shade-0` to `shade-10` of the style sheet


def heat(rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """`rows`: exams and canaries of any skills as the ledger has them, oldest first within a skill.

    Answers the steps that the columns end at, and a line for each level with a field for each column, None where it
    was not asked there.
    """
    rows = list(rows)
    ends = _columns(sorted({row["step"] for row in rows}))
    lines: dict[tuple[str, int], list[dict[str, Any] | None]] = {}
    for row in rows:
        line = lines.setdefault((row["skill"], row["level"]), [None] * len(ends))
        line[next(place for place, end in enumerate(ends) if row["step"] <= end)] = _field(row)
    return {
        "ends": [number(end) for end in ends],
        "lines": [{"skill": name, "level": level, "fields": fields} for (name, level), fields in sorted(lines.items())],
    }


def _columns(steps: list[int]) -> list[int]:
    """The last step of each column; as many steps that were asked at in each, give or take one."""
    count = min(COLUMNS, len(steps))
    return [steps[len(steps) * (place + 1) // count - 1] for place in range(count)]


def _field(row: dict[str, Any]) -> dict[str, Any]:
    share = row["right"] / row["asked"]
    told = f"{row['skill']} level {row['level']}, step {number(row['step'])}: {row['right']} of {row['asked']} right"
    return {"shade": round(SHADES * share), "share": percent(share), "told": told}
