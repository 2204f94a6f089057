"""The two tongues of the pages: templates read through the dictionary, and the words that change by the second."""

import re
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from core import lore
from core.schools import SCHOOLS
from monitoring.servers.tavern.words import number

STATES = {  # the realm's state, in its own words and in plain ones
    "battle": ("In battle", "Training"),
    "idle": ("At rest", "Idle"),
    "preparing": ("Preparing", "Preparing"),
    "sparring": ("Sparring", "Answering"),
    "saving": ("Saving", "Saving"),
    "paused": ("Paused", "Paused"),
    "loading": ("Waking", "Loading"),
    "starting": ("Waking", "Starting"),
    "blocked": ("Blocked", "Blocked"),
    "silent": ("Silent", "Not responding"),
    "stopped": ("Asleep", "Stopped"),
    "failed": ("Given up", "Failed"),
}

# Between these lies text: what Jinja does, what is typed as it stands, and tags, whatever Jinja does inside them.
_MARKUP = re.compile(r"({%.*?%}|{{.*?}}|{#.*?#}|<(code|pre|kbd)\b.*?</\2>|<(?:{%.*?%}|{{.*?}}|[^>{]|{)*>)", re.DOTALL)
_SPOKEN = re.compile(r'(?<= )(aria-label|title|placeholder|alt|data-label)="([^"]*)"')


class PlainLoader(FileSystemLoader):
    """The same templates in the plain tongue: their text, and what a screen reader says of them, goes through the dictionary."""

    def get_source(self, environment: Environment, template: str) -> tuple:
        source, *rest = super().get_source(environment, template)
        return plain_template(source), *rest


def plain_template(source: str) -> str:
    """Text between tags is translated, what Jinja and programs read is not."""
    told, place = [], 0
    for markup in _MARKUP.finditer(source):
        told += [lore.plain(source[place : markup.start()]), _plain_tag(markup[0])]
        place = markup.end()
    return "".join([*told, lore.plain(source[place:])])


def _plain_tag(markup: str) -> str:
    if not markup.startswith("<") or markup.startswith("<code"):
        return markup
    return _SPOKEN.sub(lambda spoken: f'{spoken[1]}="{_plain_value(spoken[2])}"', markup)


def _plain_value(value: str) -> str:
    return value if "{" in value else lore.plain(value)


def plain(text: str) -> str:
    """The filter `spoken` of the plain tongue: for texts that come from Python."""
    return Markup(lore.plain(text)) if isinstance(text, Markup) else lore.plain(text)


def method(school: str) -> str:
    """A school's name in the plain tongue: what the field calls its loss."""
    return SCHOOLS[school].method if school in SCHOOLS else school


def state_words(state: str) -> str:
    return STATES.get(state, (state, state))[0]


def plain_now(state: str, hero: dict[str, Any]) -> dict[str, str]:
    """The words of `views.now` that the plain tongue says differently."""
    return {"state": STATES.get(state, (state, state))[1], "hero.title": f"{number(hero['global_step'])} steps"}


def told(now: dict[str, Any], in_plain: bool) -> dict[str, Any]:
    """`views.now` with its texts in one tongue."""
    return now | {"text": now["text"] | now["plain"]} if in_plain else now
