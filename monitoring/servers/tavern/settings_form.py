"""What a visitor has typed into the settings page: which fields that changes, what is wrong with it, and how it looks as a diff.

A form says of each field what it showed (`was.FIELD`), so that only what was typed counts, whatever the file says by now.
"""

import difflib
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from core.config import Config, explain
from core.config_edit import UNSET, changed, mistakes
from core.errors import UserError
from core.hero_profile import laid_over
from monitoring.servers.tavern.security import Refusal
from monitoring.servers.tavern.settings_text import effect, known, parsed, shown_text, text_of, value_at, why_locked
from monitoring.servers.tavern.settings_views import redacted

FIELDS = 1000
WAS = "was."
OWN = ("seen", "step")


@dataclass(frozen=True)
class Draft:
    """Typed texts by field, those that differ from what the form showed; `seen`: the file it was made from; `step`: review
    or save."""

    texts: dict[str, str]
    seen: str
    step: str

    @classmethod
    def of(cls, body: str) -> "Draft":
        """Raises Refusal where a field is not known or may not be changed here."""
        try:
            given = dict(parse_qsl(body, keep_blank_values=True, max_num_fields=FIELDS))
        except ValueError:
            raise Refusal(400, "wrong_form", f"The form has more than {FIELDS} fields.") from None
        typed = {name: _plain(text) for name, text in given.items() if name not in OWN and not name.startswith(WAS)}
        texts = {name: text for name, text in typed.items() if text != _plain(given.get(WAS + name, "\0"))}
        for name in texts:
            _check_may_change(name)
        return cls(texts, given.get("seen", ""), given.get("step", "review"))

    @property
    def changes(self) -> dict[str, Any]:
        """Fields with their new values, UNSET where the default is to count."""
        return {name: parsed(name, text) if text else UNSET for name, text in self.texts.items()}

    def mistakes(self, values: Any) -> dict[str, str]:
        """What would be wrong with the file, by field."""
        return mistakes(changed(values, self.changes))

    def config(self, values: Any) -> Config:
        return laid_over(Config.model_validate(changed(values, self.changes), strict=True))

    def lines(self, values: Any) -> list[dict[str, Any]]:
        """Every field that would change: old and new, and when it counts."""
        return [
            {
                "name": name,
                "old": _told(name, text_of(value_at(values, name))),
                "new": _told(name, text),
                "text": text,
                "was": text_of(value_at(values, name)),
                "effect": effect(name),
            }
            for name, text in self.texts.items()
        ]

    def diff(self, values: Any) -> list[dict[str, str]]:
        """The file's lines before and after, without its secrets; `kind` is old, new or same."""
        before, after = (redacted(each).splitlines() for each in (values, changed(values, self.changes)))
        kinds = {"-": "old", "+": "new", " ": "same"}
        return [{"kind": kinds[line[0]], "text": line[2:]} for line in difflib.ndiff(before, after) if line[0] in kinds]


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").strip()


def _told(name: str, text: str) -> str:
    """A text as it is shown: nothing is the default."""
    return shown_text(name, text) if text else f"default ({text_of(explain(name)['default']) or 'none'})"


def _check_may_change(name: str) -> None:
    try:
        known(name)
    except UserError as problem:
        raise Refusal(422, "no_field", str(problem)) from None
    if why := why_locked(name):
        raise Refusal(403, "locked", f"{name} is changed in config.json only. {why}")
