"""What a battle shows of its dice: the last rolls, the monster, experience, and what the ledger hears. It rolls nothing.

Rolls themselves are on record step by step, as `roll` and `roll_scale`; the ledger hears of what is rare.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

SHOWN = 12
TOLD = ("encounter", "slain", "level_up", "healing_word", "divine_intervention")


class Rolls:
    """One battle's."""

    def __init__(self) -> None:
        self._last: deque[dict[str, Any]] = deque(maxlen=SHOWN)
        self._standing: dict[str, Any] = {}

    def take_in(self, step: int, rolls: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        """The turns of one step, as core/dice/game.facts has them; what of them the ledger is told."""
        for roll in rolls:
            shown = {name: roll[name] for name in ("natural", "total", "dc", "sides", "outcome", "scale", "discarded")}
            self._last.appendleft({"step": step, **shown, "said": [each["text"] for each in roll["happenings"]]})
            self._standing = {"monster": roll["monster"], "experience": roll["experience"]}
        return [each for roll in rolls for each in roll["happenings"] if each["code"] in TOLD]

    @property
    def shown(self) -> dict[str, Any] | None:
        """The last rolls, newest first, and how the game stands; None where nothing was rolled."""
        return {"rolls": list(self._last), **self._standing} if self._last else None
