"""The Temple: how battles are judged, and what is known of those that were fought."""

from monitoring.servers.tavern import verdict_views
from monitoring.servers.tavern.pages.parts import Page, Part

PAGE = Page(
    "/temple",
    "Temple",
    "temple.html",
    {"temple": Part("temple.html", "events", lambda realm, _: {"temple": verdict_views.temple(realm)})},
)
