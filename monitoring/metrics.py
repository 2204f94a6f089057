"""Curves for charts from state/metrics.db, made small by the database; it writes nothing and draws nothing.

A curve is a list of buckets of equal width in steps, each with minimum, maximum and mean, so no peak is lost. Wide
buckets come from the sums that the trainer keeps per block of steps: a million steps cost as much as a few thousand.
"""

import sqlite3
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import accumulate, pairwise
from pathlib import Path

from core.steps import BLOCK, PARTS, SERIES, open_read_only

_RAW = ", ".join(
    f"{value} AS {name}_min, {value} AS {name}_max, ({value}) * {weight} AS {name}_sum, "
    f"IIF({value} IS NULL, 0, {weight}) AS {name}_weight"
    for name, (value, weight) in SERIES.items()
)
_STEPS = f"SELECT quest, step AS first, step AS last, {_RAW} FROM steps WHERE hero=? AND step BETWEEN ? AND ?"
_BLOCKS = f"SELECT quest, first, last, {', '.join(PARTS)} FROM blocks WHERE hero=? AND block BETWEEN ? AND ?"
_OF_BUCKET = "MIN({0}_min), MAX({0}_max), SUM({0}_sum) / NULLIF(SUM({0}_weight), 0)"


@dataclass
class Curve:
    """One series; the i-th entries belong to the i-th bucket, None where nothing was measured."""

    min: list[float | None] = field(default_factory=list)
    max: list[float | None] = field(default_factory=list)
    mean: list[float | None] = field(default_factory=list)
    smooth: list[float | None] = field(default_factory=list)


@dataclass
class Curves:
    """All that was measured between two steps. `first`, `last`, `quests`: each bucket's ends and its newest quest.

    `gap`: what each held-out loss lies above the smoothed training loss of its bucket; it grows where rows are learned by
    heart (core/overfitting.py, which compares with more than this, raises the alarm). None where the two are of different quests.
    """

    quest: int | None = None
    width: int = 1
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)
    quests: list[int] = field(default_factory=list)
    series: dict[str, Curve] = field(default_factory=lambda: {name: Curve() for name in SERIES})
    validation_steps: list[int] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    gap: list[float | None] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.first)

    def since(self, step: int) -> "Curves":
        """The same, with steps counted from `step`."""
        counted = {
            name: [each - step for each in getattr(self, name)] for name in ("first", "last", "validation_steps")
        }
        return replace(self, **counted)

    def rounded(self, digits: int = 6) -> "Curves":
        """With as many digits as a picture needs: a third of the bytes."""
        series = {name: Curve(*(_rounded(getattr(curve, part.name), digits) for part in fields(Curve)))
                  for name, curve in self.series.items()}  # fmt: skip
        dots = {name: _rounded(getattr(self, name), digits) for name in ("validation", "gap")}
        return replace(self, series=series, **dots)


class Metrics:
    """Reads one hero's record of steps at `path`, which may not exist yet, may be written to, or may vanish."""

    def __init__(self, path: Path, hero: str):
        self.path, self.hero = path, hero

    @contextmanager
    def _reading(self) -> Iterator["_Reading | None"]:
        connection = open_read_only(self.path)
        if connection is None:
            yield None
            return
        with closing(connection):
            row = connection.execute("SELECT id FROM heroes WHERE name=?", (self.hero,)).fetchone()
            yield _Reading(connection, row[0]) if row else None

    def span(self, quest: int | None = None) -> tuple[int, int] | None:
        """The first and the last recorded step, of one quest or of all; None where there is none."""
        try:
            with self._reading() as reading:
                return reading.span(quest) if reading else None
        except sqlite3.Error:  # not a database yet, or a journal that only its writer may roll back
            return None

    def tokens(self) -> int:
        """Tokens of all recorded steps."""
        try:
            with self._reading() as reading:
                return reading.tokens() if reading else 0
        except sqlite3.Error:
            return 0

    def curves(
        self,
        first: int | None = None,
        last: int | None = None,
        recent: int | None = None,
        quest: int | None = None,
        buckets: int = 240,
        series: Collection[str] = tuple(SERIES),
    ) -> Curves:
        """From step `first` to `last` (default: all; `recent`: the newest), in at most `buckets`; all `series` or some."""
        try:
            with self._reading() as reading:
                span = reading.span(quest) if reading else None
                if span is None:
                    return Curves(quest)
                low = max(span[0], first if first is not None else span[0])
                high = min(span[1], last if last is not None else span[1])
                low = max(low, high - recent + 1) if recent else low
                return reading.curves(low, high, quest, buckets, series) if low <= high else Curves(quest)
        except sqlite3.Error:
            return Curves(quest)


@dataclass(frozen=True)
class _Reading:
    """An open record, and the number that its hero has in it."""

    connection: sqlite3.Connection
    hero: int

    def span(self, quest: int | None) -> tuple[int, int] | None:
        where, values = ("AND quest=?", [quest]) if quest is not None else ("", [])
        query = "SELECT {}(step) FROM steps WHERE hero=? " + where
        ends = [self.connection.execute(query.format(end), [self.hero, *values]) for end in ("MIN", "MAX")]
        low, high = (cursor.fetchone()[0] for cursor in ends)
        return None if low is None else (low, high)

    def tokens(self) -> int:
        query = "SELECT COALESCE(SUM(tokens_per_second_sum), 0) FROM blocks WHERE hero=?"  # each times its seconds
        return round(self.connection.execute(query, (self.hero,)).fetchone()[0])

    def curves(self, first: int, last: int, quest: int | None, buckets: int, series: Collection[str]) -> Curves:
        width = -(-(last - first + 1) // buckets)
        source, values, origin, width = self._source(first, last, quest, width)
        curves = Curves(quest, width, series={name: Curve() for name in series})
        wanted = "".join(f", {_OF_BUCKET.format(name)}" for name in series)
        for row in self.connection.execute(
            f"SELECT MIN(first), MAX(last), MAX(quest){wanted} FROM ({source}) "
            f"GROUP BY (first - {origin}) / {width} ORDER BY 1",
            values,
        ):
            curves.first.append(row[0])
            curves.last.append(row[1])
            curves.quests.append(row[2])
            for place, curve in enumerate(curves.series.values()):
                for part, value in zip((curve.min, curve.max, curve.mean), row[3 + 3 * place :], strict=False):
                    part.append(value)
        for curve in curves.series.values():
            curve.smooth = smooth(curve.mean, curves.quests)
        self._held_out(curves, first, last, origin)
        return curves

    def _held_out(self, curves: Curves, first: int, last: int, origin: int) -> None:
        """A quest's first look at its held-out rows belongs to the step before its first."""
        of_quest, values = (" AND quest=?", [first - 1, last, curves.quest])
        if curves.quest is None:
            of_quest, values = "", [first, last]
        trend = curves.series["loss"].smooth if "loss" in curves.series else []
        owners = zip(((step - origin) // curves.width for step in curves.first), curves.quests, trend, strict=False)
        training = {bucket: (quest, loss) for bucket, quest, loss in owners}
        for step, quest, loss in self.connection.execute(
            f"SELECT MAX(step), quest, loss FROM validations WHERE hero=? AND step BETWEEN ? AND ?{of_quest} "
            f"GROUP BY (step - {origin}) / {curves.width} ORDER BY 1",
            [self.hero, *values],
        ):
            owner, trained = training.get((step - origin) // curves.width, (None, None))
            curves.validation_steps.append(step)
            curves.validation.append(loss)
            curves.gap.append(loss - trained if owner == quest and trained is not None else None)

    def _source(self, first: int, last: int, quest: int | None, width: int) -> tuple[str, list[int], int, int]:
        """The rows to sum up (a query and its values), the step where buckets begin, their width (whole blocks if wide)."""
        of_quest, with_quest = (" AND quest=?", [quest]) if quest is not None else ("", [])
        if width < BLOCK:
            return _STEPS + of_quest, [self.hero, first, last, *with_quest], first, width
        begin, end = -(-first // BLOCK), (last + 1) // BLOCK  # the blocks that lie wholly inside
        pieces = [(_STEPS, first, begin * BLOCK - 1), (_BLOCKS, begin, end - 1), (_STEPS, end * BLOCK, last)]
        pieces = [(query + of_quest, [self.hero, low, high, *with_quest]) for query, low, high in pieces if low <= high]
        values = [value for _, bounds in pieces for value in bounds]
        query = " UNION ALL ".join(query for query, _ in pieces)
        return query, values, first // BLOCK * BLOCK, -(-width // BLOCK) * BLOCK


def _rounded(values: list[float | None], digits: int) -> list[float | None]:
    return [None if value is None else float(f"{value:.{digits}g}") for value in values]


def smooth(values: list[float | None], owners: list[int], reach: int = 8) -> list[float | None]:
    """Each value averaged with up to `reach` neighbours on either side, nearer ones counting more; gaps stay gaps.

    `owners`: the quest of each value; a longer stretch of one quest is not mixed with the next, so a jump stays a jump.
    """
    smoothed: list[float | None] = []
    for start, end in _stretches(owners, reach):
        own = values[start:end]
        sums = _triangle([value or 0.0 for value in own], reach)
        weights = _triangle([float(value is not None) for value in own], reach)
        smoothed += [None if value is None else total / weight
                     for value, total, weight in zip(own, sums, weights, strict=True)]  # fmt: skip
    return smoothed


def _triangle(values: list[float], reach: int) -> list[float]:
    """The sums of neighbours with weights that fall evenly from `reach` + 1: a sliding sum of sliding sums."""
    for _ in range(2):
        sums = [0.0] * (reach + 1) + list(accumulate([*values, *[0.0] * reach]))
        values = [end - begin for begin, end in zip(sums, sums[reach + 1 :], strict=False)]
    return values[reach : len(values) - reach]


def _stretches(owners: list[int], shortest: int) -> list[tuple[int, int]]:
    starts = [0]
    for place in range(1, len(owners)):
        if owners[place] != owners[place - 1] and place - starts[-1] >= shortest:
            starts.append(place)
    return list(pairwise([*starts, len(owners)]))
