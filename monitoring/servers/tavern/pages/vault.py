"""The Vault's page: every checkpoint, newest first."""

from monitoring.servers.tavern import boards
from monitoring.servers.tavern.pages.parts import Page, Part

PAGE = Page(
    "/vault",
    "Vault",
    "vault.html",
    {"vault": Part("vault.html", "events", lambda realm, _: {"checkpoints": boards.vault(realm)})},
)
