"""The live monitor: curves over the steps, the newest answers, the machine."""

from typing import Any

from fastapi import Request

from monitoring.servers.tavern import charts, views
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm

RANGES = {"200": ("last 200", 200), "2000": ("last 2,000", 2000), "all": ("all steps", None)}


def _curves(realm: Realm, request: Request) -> dict[str, Any]:
    chosen = request.query_params.get("range", "2000")
    chosen = chosen if chosen in RANGES else "2000"
    curves = realm.metrics.curves(recent=RANGES[chosen][1])
    marks = battle_marks(realm, curves)
    drawn = [charts.chart(curves, kind, marks) for kind in charts.KINDS.values()]
    return {"charts": [drawn[0], charts.validation_chart(curves), *drawn[1:]], "ranges": RANGES, "chosen": chosen}


def battle_marks(realm: Realm, curves) -> list[tuple[int, str]]:
    """Where the newest battles among these steps began."""
    if not curves:
        return []
    rows = realm.ledger.all(
        "SELECT start_step, stem FROM battles JOIN quests ON quests.id = battles.quest "
        "WHERE hero=? AND start_step BETWEEN ? AND ? ORDER BY battles.id DESC LIMIT 40",
        (realm.config.hero.name, curves.first[0], curves.last[-1]),
    )
    return [(row["start_step"] + 1, row["stem"]) for row in rows]


def previews(realm: Realm, _: Request) -> dict[str, Any]:
    return {"previews": views.previews(realm)}


def _machine(realm: Realm, _: Request) -> dict[str, Any]:
    return {"gpus": realm.status()["gpus"], "services": views.services(realm), "cpus": realm.machine()["cpus"]}


PAGE = Page(
    "/live",
    "Live",
    "live.html",
    {
        "curves": Part("curves.html", "steps", _curves),
        "previews": Part("previews.html", "previews", previews),
        "machine": Part("machine.html", "services", _machine),
    },
)
