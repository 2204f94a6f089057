"""The schools: ways to learn, which of them teach today, and what rows each takes."""

from monitoring.servers.tavern import school_views
from monitoring.servers.tavern.pages.parts import Page, Part

PAGE = Page(
    "/schools",
    "Schools",
    "schools.html",
    {"schools": Part("schools.html", "events", lambda realm, _: {"schools": school_views.schools(realm)})},
)
