"""The idle hero: when nothing waits it writes its own quests from skills, through the inbox like everybody else.

They have low priority and last a minute or less, so that a dropped file never waits long.
"""

import random

import orjson

from core.config import Config
from core.inbox import drop
from core.jobs import job
from core.ledger import Ledger
from core.paths import RealmPaths
from core.skills import skill

ORIGIN = "idle"
STARTER_ROWS, FEWEST_ROWS, MOST_ROWS = 512, 128, 4096
SECONDS = 30.0


class HeroLoop:
    """Writes one quest a call of `write`; `turn` calls it after a pause of quiet."""

    def __init__(self, paths: RealmPaths, config: Config, ledger: Ledger):
        self.paths, self.config, self.ledger = paths, config, ledger
        self._quiet_since: float | None = None

    def turn(self, now: float, quiet: bool) -> bool:
        """Write a quest if it has been `quiet` long enough; the very first one comes at once."""
        if not (quiet and self.config.idle_generation.enabled and any(self.config.skill_priorities.values())):
            self._quiet_since = None
            return False
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        written = self._written()
        if written and now - self._quiet_since < self.config.idle_generation.pause_seconds:
            return False
        self._quiet_since = None
        self.write(written)
        return True

    def _written(self) -> int:
        return self.ledger.one("SELECT COUNT(*) AS n FROM quests WHERE origin=?", (ORIGIN,))["n"]

    def write(self, number: int) -> None:
        """Write quest `number` of this realm's own."""
        chooser = random.Random(f"{self.config.seed}/{number}")
        names = sorted(self.config.skill_priorities)
        chosen = skill(chooser.choices(names, [self.config.skill_priorities[name] for name in names])[0])
        level = min(self.config.idle_generation.level, max(chosen.levels))
        rows = chosen.quest_rows(level, chooser.randrange(2**31), self._rows(number))
        name = (
            f"starter_{chosen.name}_level{level}" if number == 0 else f"train_{chosen.name}_level{level}_{number:05d}"
        )
        sidecar = {"skill": chosen.name, "origin": ORIGIN, "priority": "low"}
        with job(self.ledger, "generation", "daemon", name), drop(self.paths, name, "low", sidecar) as file:
            for row in rows:
                file.write(orjson.dumps(row) + b"\n")

    def _rows(self, number: int) -> int:
        """As many rows as the last battle's pace trains in `SECONDS`."""
        last = self.ledger.one(
            "SELECT battles.seconds, quests.rows FROM battles JOIN quests ON quests.id = battles.quest "
            "WHERE battles.state='done' AND quests.origin=? ORDER BY battles.id DESC LIMIT 1",
            (ORIGIN,),
        )
        if number == 0 or not last or not last["seconds"]:
            return STARTER_ROWS
        return int(min(MOST_ROWS, max(FEWEST_ROWS, SECONDS * last["rows"] / last["seconds"])))
