"""Which curves a page shows: the whole record, one battle, or two battles laid over each other. It draws nothing.

A choice is read from the address of the page, so that a reload, a link and a browser without JavaScript see the same. What
makes no sense there is passed over.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from monitoring.metrics import Curves
from monitoring.servers.tavern.realm import Realm

RANGES = {"200": ("last 200", 200), "2000": ("last 2,000", 2000), "all": ("all steps", None)}
OFFERED = 60


@dataclass(frozen=True)
class Track:
    """Steps `first` to `last` of the record, counted from `shift`; of one quest, if it is a battle's."""

    name: str
    quest: int | None = None
    shift: int = 0
    first: int | None = None
    last: int | None = None

    def curves(self, realm: Realm, view: "View", buckets: int, series: Collection[str]) -> Curves:
        """What lies in the view, in the track's own steps."""
        low = self.first if view.first is None else max(self.first or 0, view.first + self.shift)
        high = self.last if view.last is None else min(self.last or view.last + self.shift, view.last + self.shift)
        return realm.metrics.curves(low, high, view.recent, self.quest, buckets, series).since(self.shift)

    def ends(self, realm: Realm) -> tuple[int, int]:
        first, last = realm.metrics.span(self.quest) or (self.shift, self.shift)
        return max(first, self.first or first) - self.shift, min(last, self.last or last) - self.shift


@dataclass(frozen=True)
class View:
    """What is looked at: the newest `recent` steps, or those from `first` to `last`, or all (None)."""

    recent: int | None = None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Choice:
    """`battles` can be chosen; `battle` and `beside` are; `range` is a key of RANGES, where no battle is chosen."""

    tracks: tuple[Track, ...]
    view: View
    range: str | None
    battles: list[dict[str, Any]]
    battle: int | None = None
    beside: int | None = None

    def told(self, realm: Realm) -> dict[str, Any]:
        """For static/curves.js; `span`: the first and the last step of all tracks."""
        ends = [track.ends(realm) for track in self.tracks]
        span = [min(first for first, _ in ends), max(last for _, last in ends)]
        return {"tracks": [asdict(track) for track in self.tracks], "view": asdict(self.view), "span": span}


def chosen(realm: Realm, query: Mapping[str, str]) -> Choice:
    battles = _battles(realm, [whole for name in ("battle", "beside") if (whole := _whole(query, name)) is not None])
    known = {battle["id"]: battle for battle in battles}
    battle, beside = known.get(_whole(query, "battle")), known.get(_whole(query, "beside"))
    battle, beside = battle or beside, beside if battle and beside and battle["id"] != beside["id"] else None
    first, last = _whole(query, "first"), _whole(query, "last")
    zoomed = first is not None and last is not None and first < last
    span = {"first": first, "last": last} if zoomed else {}
    if battle:
        tracks = tuple(_track(each) for each in (battle, beside) if each)
        return Choice(tracks, View(**span), None, battles, battle["id"], beside["id"] if beside else None)
    asked = query.get("range", "2000")
    asked = asked if asked in RANGES else "2000"
    view = View(**span) if zoomed else View(RANGES[asked][1])
    return Choice((Track("all battles"),), view, asked, battles)


def newest(steps: int) -> Choice:
    """The last steps of the record."""
    return Choice((Track("all battles"),), View(steps), None, [])


def _track(battle: dict[str, Any]) -> Track:
    start = battle["start_step"]
    return Track(battle["stem"], battle["quest"], start, start + 1, start + battle["total_steps"])


def _battles(realm: Realm, wanted: list[int]) -> list[dict[str, Any]]:
    """The newest battles of this hero, and those that are `wanted`, newest first."""
    marks = ",".join("?" * len(wanted))
    newest = "SELECT id FROM battles WHERE hero=? ORDER BY id DESC LIMIT ?"
    hero = realm.config.hero.name
    return realm.ledger.all(
        "SELECT battles.id, quest, start_step, total_steps, battles.state, COALESCE(stem, 'quest ' || quest) AS stem "
        "FROM battles LEFT JOIN quests ON quests.id = quest "
        f"WHERE battles.hero=? AND (battles.id IN ({newest}) OR battles.id IN ({marks})) ORDER BY battles.id DESC",
        (hero, hero, OFFERED, *wanted),
    )


def _whole(query: Mapping[str, str], name: str) -> int | None:
    given = query.get(name, "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
