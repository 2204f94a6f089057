"""When the whole queue will be done: an estimate in seconds from the ledger and the status. It knows no words and no pages.

The bytes that wait are multiplied by the seconds that the battles of late took for a byte, since rows are of any length and
tokens are only counted when a quest is prepared.
"""

import time
from typing import Any

from core.ledger import Ledger
from core.paths import PRIORITIES

LATELY = 20  # battles that tell the pace
KEPT_SECONDS = 5.0


class QueueEstimate:
    """Asked often, it looks into the ledger when the queue has changed, or after a while."""

    def __init__(self, hero: str):
        self._hero = hero
        self._key: Any = None
        self._asked, self._waiting = 0.0, 0.0

    def seconds(self, status: dict[str, Any], ledger: Ledger) -> float | None:
        """What is left of the battle, and all that waits; None where there is nothing yet to judge by."""
        battle = status["battle"]
        left = battle.get("eta_seconds") if battle else 0.0
        waiting = self._of_waiting(status, ledger)
        return None if left is None or waiting is None else left + waiting

    def _of_waiting(self, status: dict[str, Any], ledger: Ledger) -> float | None:
        queue, battle = status["queue"], status["battle"] or {}
        if not any(queue[priority] for priority in PRIORITIES):
            return 0.0
        key = (*queue.values(), battle.get("quest_id"))
        if key != self._key or time.monotonic() - self._asked > KEPT_SECONDS:
            self._key, self._asked, self._waiting = key, time.monotonic(), self._from_ledger(ledger)
        return self._waiting

    def _from_ledger(self, ledger: Ledger) -> float | None:
        pace = ledger.one(
            "SELECT SUM(seconds) AS seconds, SUM(bytes) AS bytes FROM (SELECT seconds, bytes FROM battles "
            "JOIN quests ON quests.id = battles.quest WHERE battles.hero=? AND battles.state='done' AND bytes > 0 AND seconds > 0 "
            "ORDER BY battles.id DESC LIMIT ?)",
            (self._hero, LATELY),
        )
        waiting = ledger.one("SELECT SUM(bytes) AS bytes FROM quests WHERE state='queued'")["bytes"]
        return waiting * pace["seconds"] / pace["bytes"] if waiting and pace["bytes"] else None
