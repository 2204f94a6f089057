"""How many tokens a hero's passes may have since memory ran out, kept on disk; it knows nothing about why it did.

A limit holds from the global step it was found at, so that steps before it, trained again after a crash, are grouped as
they were, and the weights come out the same.
"""

from collections.abc import Callable
from pathlib import Path

from core.durable import read_json, write_json


class PackLimits:
    """The limits of one hero. `told(step, tokens)` hears of each new one."""

    def __init__(self, path: Path | None = None, hero: str = "", told: Callable[[int, int], None] | None = None):
        self.path, self.hero, self.told = path, hero, told
        known = read_json(path, {}) if path else {}
        self._known: list[tuple[int, int]] = [(step, tokens) for step, tokens in known.get(hero, [])]

    def at(self, global_step: int) -> int | None:
        """Tokens of a pass at most in the step that leads to `global_step`; None without a limit."""
        return min((tokens for step, tokens in self._known if step <= global_step), default=None)

    def add(self, global_step: int, tokens: int) -> None:
        """From the step that leads to `global_step` on, passes have at most `tokens`; it is on disk on return."""
        self._known.append((global_step, tokens))
        if self.path:
            write_json(self.path, {**read_json(self.path, {}), self.hero: self._known})
        if self.told:
            self.told(global_step, tokens)
