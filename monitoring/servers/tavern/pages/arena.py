"""The arena, which has not been built: what it will be, and what comes closest to it today."""

from monitoring.servers.tavern.pages.parts import Page

PAGE = Page("/arena", "Arena", "arena.html", {})
