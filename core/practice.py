"""What an idle hero practises: which levels in which shares, and rows for them. It knows no realm, no queue and no model.

Most rows are of a skill's frontier; some of the frontiers of other skills, which would be forgotten otherwise while they are
half known; some of the level below, a few of the one above, and some of all levels that were mastered. A prompt that the
hero was given before is left out as long as others are found; closed worlds come round again of necessity.
"""

import random
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from itertools import islice
from typing import Any

from core.skills import skill
from core.standing import Standing

OTHERS, BELOW, NEXT, REVISION = 0.25, 0.05, 0.05, 0.15  # shares of a quest; the frontier has the rest
MOST_OF_A_KIND = 0.5  # of a level that has several
PEEKED = 64  # rows that show whether it has
STALE = 12  # prompts that came twice, after which a level has hardly any others
LOOKED_THROUGH = 8  # times as many rows as are wanted, to find some that are new
DRAWN = 512  # rows of a closed world that are drawn together, none of them twice
REVISED = 8  # levels that a quest's revision is shared by

Row = dict[str, Any]
Level = tuple[str, int]


def mixture(
    standing: Standing, level: Level, others: Mapping[Level, float], rows: int, rng: random.Random
) -> dict[Level, int]:
    """How many of `rows` go to each level when `level` is practised. `others`: the frontiers of other skills, with
    their weights by that of this one."""
    name, number = level
    shares: Counter[Level] = Counter()
    for share, near in ((BELOW, number - 1), (NEXT, number + 1)):
        if near in skill(name).levels:
            shares[name, near] += round(share * rows)
    wanted = {other: min(1.0, weight) for other, weight in others.items()}
    for other, weight in wanted.items():
        shares[other] += round(OTHERS * rows * weight / max(1.0, sum(wanted.values())))
    known = [(each, one) for each in sorted(standing.mastered) for one in standing.levels(each) if (each, one) != level]
    chosen = rng.sample(known, min(REVISED, len(known)))
    for each in chosen:
        shares[each] += round(REVISION * rows / len(chosen))
    shares[level] += rows - shares.total()
    return shares


def rows_of(name: str, level: int, count: int, rng: random.Random, known: Container[str]) -> list[Row]:
    """`count` rows of a level: prompts that are not `known`, none twice, before any comes again. Of a closed world, which
    has to be known whole, prompts come as exams ask them, again and again."""
    if level < skill(name).open_from:
        return _of_closed_worlds(name, level, count, rng)
    found, passed_over = _distinct(name, level, count, rng.randrange(2**31), known)
    found += _mixed(name, iter(passed_over), count - len(found), [])
    world = list(found)
    while world and len(found) < count:
        rng.shuffle(world)
        found += world[: count - len(found)]
    return found


def _of_closed_worlds(name: str, level: int, count: int, rng: random.Random) -> list[Row]:
    """Rows of the closed worlds from `level` to the last, of each twice as many as of the one below: they are small, they
    hold one another's problems, and one is learned by the way where a larger one is."""
    worlds = range(level, skill(name).open_from)
    rows: list[Row] = []
    while len(rows) < count:
        (each,) = rng.choices(worlds, [2**place for place in range(len(worlds))])
        rows += skill(name).quest_rows(each, rng.randrange(2**31), DRAWN)
    return rows[:count]


def prompt_of(row: Row) -> str:
    return row["messages"][0]["content"]


def _distinct(name: str, level: int, count: int, seed: int, known: Container[str]) -> tuple[list[Row], list[Row]]:
    """At most `count` rows with different prompts that are not `known`, and those that were passed over on the way.

    A level is looked through once and not to its end, so that one of which all is known holds nobody up.
    """
    passed_over: list[Row] = []
    rows = _until_hardly_any_is_new(skill(name).quest_rows(level, seed, LOOKED_THROUGH * count))
    return _mixed(name, _without(known, rows, passed_over), count, passed_over), passed_over


def _without(known: Container[str], rows: Iterator[Row], passed_over: list[Row]) -> Iterator[Row]:
    for row in rows:
        if prompt_of(row) in known:
            passed_over.append(row)
        else:
            yield row


def _mixed(name: str, rows: Iterator[Row], count: int, passed_over: list[Row]) -> list[Row]:
    """The first `count` of `rows`, no kind of them more than its share where there are several."""
    kind = skill(name).kind
    found = list(islice(rows, min(PEEKED, count)))
    if len({kind(prompt_of(row)) for row in found}) == 1 or count <= PEEKED:
        return found + list(islice(rows, count - len(found)))
    most, counts = MOST_OF_A_KIND * count, Counter(kind(prompt_of(row)) for row in found)
    for row in rows:
        if len(found) == count:
            break
        if counts[kind(prompt_of(row))] < most:
            counts[kind(prompt_of(row))] += 1
            found.append(row)
        else:
            passed_over.append(row)
    return found


def _until_hardly_any_is_new(rows: Iterator[Row]) -> Iterator[Row]:
    """A generator repeats itself only after it has looked long for something else."""
    seen: set[str] = set()
    stale = 0
    for row in rows:
        if prompt_of(row) not in seen:
            seen.add(prompt_of(row))
            yield row
        elif (stale := stale + 1) == STALE:
            return
