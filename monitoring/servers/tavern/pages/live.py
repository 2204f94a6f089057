"""The live monitor: curves over the steps of all battles or of two laid over each other, the newest answers, the machine."""

from typing import Any

from fastapi import Request

from monitoring.metrics import Curves
from monitoring.servers.tavern import charts, tracks, views
from monitoring.servers.tavern.pages.parts import Page, Part
from monitoring.servers.tavern.realm import Realm

BUCKETS = 240
SHOWN_ALERTS = 5


def _curves(realm: Realm, request: Request) -> dict[str, Any]:
    choice = tracks.chosen(realm, request.query_params)
    return drawn(realm, choice, charts.KINDS) | {"choice": choice, "ranges": tracks.RANGES}


def _overlay(realm: Realm, request: Request) -> dict[str, Any]:
    return {"choice": tracks.chosen(realm, request.query_params)}


def drawn(realm: Realm, choice: tracks.Choice, kinds: tuple[charts.Kind, ...]) -> dict[str, Any]:
    """The charts of these kinds for the template, and what static/curves.js needs to go on from there."""
    series = {kind.series for kind in kinds if kind.series} | {"loss"}  # which the gap is measured from
    curves = [track.curves(realm, choice.view, BUCKETS, series) for track in choice.tracks]
    marks = _battle_marks(realm, curves[0]) if choice.battle is None else []
    return {"charts": [charts.chart(curves, kind, marks) for kind in kinds], "told": choice.told(realm)}


def _battle_marks(realm: Realm, curves: Curves) -> list[tuple[int, str]]:
    """Where the newest battles among these steps began."""
    if not curves:
        return []
    rows = realm.ledger.all(
        "SELECT start_step, stem FROM battles JOIN quests ON quests.id = battles.quest "
        "WHERE battles.hero=? AND start_step BETWEEN ? AND ? ORDER BY battles.id DESC LIMIT 40",
        (realm.config.hero.name, curves.first[0], curves.last[-1]),
    )
    return [(row["start_step"] + 1, row["stem"]) for row in rows]


def alerts(realm: Realm, _: Request) -> dict[str, Any]:
    every = views.alerts(realm)
    return {"alerts": every[:SHOWN_ALERTS], "more_alerts": len(every) - SHOWN_ALERTS}


def previews(realm: Realm, _: Request) -> dict[str, Any]:
    return {"previews": views.previews(realm)}


def _machine(realm: Realm, _: Request) -> dict[str, Any]:
    return {
        "gpus": realm.status()["gpus"],
        "services": views.services(realm),
        "cpus": realm.machine()["cpus"],
        "hour": charts.hour(realm.history.told()),
    }


PAGE = Page(
    "/live",
    "Live",
    "live.html",
    {
        "alerts": Part("alerts.html", "alerts", alerts),
        "curves": Part("curves.html", "steps", _curves),
        "overlay": Part("overlay.html", "battle", _overlay),
        "previews": Part("previews.html", "previews", previews),
        "machine": Part("machine.html", "services", _machine),
    },
)
