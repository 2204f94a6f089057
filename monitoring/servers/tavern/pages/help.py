"""The page of troubles: one entry for every alert, end of a service and finding of `doctor`; alerts link to it."""

from monitoring.servers.tavern import manner
from monitoring.servers.tavern.help import ADDRESS, troubleshooting
from monitoring.servers.tavern.pages.parts import Page, Part

PAGE = Page(
    ADDRESS,
    "Help",
    "help.html",
    {"help": Part("help.html", "", lambda realm, _: {"text": troubleshooting(manner.current().plain)[0]})},
    menu=False,
)
