"""The idle hero: when nothing waits it writes its own quests from skills, through the inbox like everybody else.

They have low priority and last a minute or less, so that a dropped file never waits long. Which level they practise follows
from the exams that the newest weights have passed. It stops when all is mastered, and where practice has become in vain.
"""

import random
from typing import Any

import orjson

from core import lore
from core.broken_record import set_aside_if_broken
from core.checkpoints import pointed
from core.config import Config
from core.floor import floor_of
from core.hero import hero_of
from core.inbox import drop
from core.jobs import job
from core.ledger import Ledger
from core.paths import RealmPaths
from core.practice import Level, Row, mixture, prompt_of, rows_of
from core.progress import standing_of
from core.prompt_memory import PromptMemory
from core.quest import IDLE
from core.skills import skill
from core.standing import Standing, practised

STARTER_ROWS, FEWEST_ROWS, MOST_ROWS = 512, 128, 4096
SECONDS = 40.0
STRAINED = 4  # battles of a skill in a row, all in overload and none the better for it, that lead one level back
IN_VAIN = 8  # as many lead to rest
LEARNING = 0.9  # of its loss so many battles ago: what has fallen below is getting better
RESTING = "idle_hero_rests_{}"  # the mark of why a hero rests
BACK = "idle_hero_back_{}_{}"  # and of the level that it went back to, by hero and skill


class HeroLoop:
    """Writes one quest a call of `write`; `turn` calls it after a pause of quiet."""

    def __init__(self, paths: RealmPaths, config: Config, ledger: Ledger):
        self.paths, self.config, self.ledger = paths, config, ledger
        self._hero = config.hero.name
        self._wanted = practised(config.skill_priorities)
        self._quiet_since: float | None = None
        self._written: int | None = None
        self._memory_is_whole = False

    def turn(self, now: float, quiet: bool) -> bool:
        """Write a quest if it has been `quiet` long enough; the very first one comes at once. True when one was written."""
        if not (quiet and self.config.idle_generation.enabled and self._wanted):
            self._quiet_since = None
            return False
        self._quiet_since = now if self._quiet_since is None else self._quiet_since
        if self._written is None:
            count = "SELECT COUNT(*) AS n FROM quests WHERE hero=? AND origin=?"
            self._written = self.ledger.one(count, (self._hero, IDLE))["n"]
        if self._written and now - self._quiet_since < self.config.idle_generation.pause_seconds:
            return False
        if self._another_is_awake():
            return False
        self._quiet_since = None
        wrote = self.write(self._written)
        self._written += wrote
        return wrote

    def _another_is_awake(self) -> bool:
        """Whether the tip is still that of the hero who was switched off: how far this one has come is not known then."""
        tip = pointed(self.paths.tip)
        return tip is not None and hero_of(self.paths, tip) not in (self._hero, None)

    def write(self, number: int) -> bool:
        """Write quest `number` of this hero's own, unless there is nothing to be gained by one."""
        chooser = random.Random(f"{self.config.seed}/{number}")
        standing = standing_of(self.paths, self._hero)
        weights = self._worth_practising(standing)
        if not weights:
            return False
        name = chooser.choices(list(weights), list(weights.values()))[0]
        level = self._level(standing, name)
        self._tell_of_level(name, level, self._frontier(standing, name))
        title = f"starter_{name}_level{level}" if number == 0 else f"train_{name}_level{level}_{number:05d}"
        seed = chooser.randrange(2**31)  # else the same problems of a closed world would be held out every time
        sidecar = {"skill": name, "origin": IDLE, "hero": self._hero, "priority": "low", "seed": seed}
        own = self.config.idle_generation
        sidecar |= {"batch_size": own.batch_size, "cooldown_share": own.cooldown_share}
        with job(self.ledger, "generation", "daemon", title), drop(self.paths, title, "low", sidecar) as file:
            others = {
                (each, self._level(standing, each)): weight / weights[name]
                for each, weight in weights.items()
                if each != name
            }
            shares = mixture(standing, (name, level), others, self._count(number), chooser)
            for row in self._rows(shares, chooser):
                file.write(orjson.dumps(row) + b"\n")
        return True

    def _rows(self, shares: dict[Level, int], rng: random.Random) -> list[Row]:
        if not self._memory_is_whole:
            set_aside_if_broken(self.paths.prompts)
            self._memory_is_whole = True
        memory = PromptMemory(self.paths.prompts, self._hero)
        try:
            rows: list[Row] = []
            for (name, level), share in shares.items():
                rows += rows_of(name, level, share, rng, memory)
            memory.add(map(prompt_of, rows))
            return rows
        finally:
            memory.close()

    def _count(self, number: int) -> int:
        """As many rows as the last battle's pace trains in `SECONDS`."""
        last = self.ledger.one(
            "SELECT battles.seconds, quests.rows FROM battles JOIN quests ON quests.id = battles.quest "
            "WHERE battles.state='done' AND battles.hero=? AND quests.origin=? ORDER BY battles.id DESC LIMIT 1",
            (self._hero, IDLE),
        )
        if number == 0 or not last or not last["seconds"]:
            return STARTER_ROWS
        return int(min(MOST_ROWS, max(FEWEST_ROWS, SECONDS * last["rows"] / last["seconds"])))

    # Where practice leads

    def _worth_practising(self, standing: Standing) -> dict[str, float]:
        """The weights of skills by which something can be gained; none where the hero had better rest, which is told once.

        A skill in which the hero is further ahead counts for less, so that easy ones do not take all the time.
        """
        unmastered = {
            name: weight / (1 + len(standing.levels(name)))
            for name, weight in self._wanted.items()
            if self._frontier(standing, name)
        }
        worth = {name: weight for name, weight in unmastered.items() if self._strained(name) < IN_VAIN}
        why = None if worth else "overload" if unmastered else "maxed_out"
        mark = RESTING.format(self._hero)
        if why != self.ledger.mark(mark):
            self.ledger.set_mark(mark, why)
            if why:
                self._tell(why, ", ".join(unmastered or self._wanted))
        return worth

    def _tell(self, why: str, names: str) -> None:
        if why == "maxed_out":
            text = (
                f"{self._hero} has mastered every level of {names}: it is maxed out, and practises no more by itself."
            )
            self.ledger.event("daemon", "maxed_out", text)
        else:
            text = (
                f"{self._hero} rests: in {names} its held-out loss is far above what it reaches elsewhere, and {IN_VAIN} battles "
                "have not lowered it. Give it other skills (skill_priorities) or quests of your own; it goes on after those."
            )
            self.ledger.event("daemon", "overload", text, "warning")

    def _frontier(self, standing: Standing, name: str) -> int | None:
        return standing.frontier(name, self.config.idle_generation.level)

    def _level(self, standing: Standing, name: str) -> int:
        """The frontier; one level back where the hero is overloaded."""
        level = self._frontier(standing, name)
        overloaded = self._strained(name) >= STRAINED and level - 1 in skill(name).levels
        return level - 1 if overloaded else level

    def _tell_of_level(self, name: str, level: int, frontier: int) -> None:
        """That it went one level back in a skill, once."""
        mark, back = BACK.format(self._hero, name), level if level < frontier else None
        if back == self.ledger.mark(mark):
            return
        self.ledger.set_mark(mark, back)
        if back is not None:
            text = (
                f"{STRAINED} battles of {name} at level {frontier} were overload and changed nothing: one level back."
            )
            self.ledger.event("daemon", "level_back", text, skill=name, skill_level=back)

    def _strained(self, name: str) -> int:
        """How many of the hero's last battles in a skill were in overload without its getting better; 0 where the newest was
        not, or where others were fought meanwhile than those the idle hero wrote."""
        rows = self._battles(name)
        floors = {school: floor_of(self.ledger, self._hero, school) for school in {row["school"] for row in rows}}
        strained = 0
        for row, before in zip(rows, rows[STRAINED:] + [None] * STRAINED, strict=False):
            zone = lore.zone(lore.strain(row["validation_loss"], floors[row["school"]]))
            better = before and row["validation_loss"] < LEARNING * before["validation_loss"]
            if zone != "overload" or better or row["origin"] != IDLE:
                break
            strained += 1
        return strained

    def _battles(self, name: str) -> list[dict[str, Any]]:
        """The newest battles in a skill that were fought to their end and measured."""
        return self.ledger.all(
            "SELECT battles.school, battles.validation_loss, quests.origin FROM battles JOIN quests ON quests.id=battles.quest "
            "WHERE battles.state='done' AND battles.validation_loss IS NOT NULL AND battles.hero=? "
            "AND (UPPER(quests.skill)=? OR quests.origin<>?) ORDER BY battles.id DESC LIMIT ?",
            (self._hero, name, IDLE, IN_VAIN + STRAINED),
        )
