"""The six classes and their twelve abilities. Each ability's text says to the number what it does; the code does that.

They shape turns and know neither models nor optimizers. *Tier*: 1, and 1 more from levels 5, 9, 13 and 17 on.
"""

import copy

from core.dice.abilities import SECOND_ABILITY, Ability, Again, Character, Stance
from core.dice.dice import Chance, Outcome
from core.dice.turn import Turn
from core.errors import UserError, nearest

BAD = (Outcome.FAILURE, Outcome.CRITICAL_FAILURE)


class Wizard(Character):
    """Works on the learning rate."""

    name = "wizard"
    RECOVERY = Ability(
        "Arcane Recovery",
        "After two failures in a row the learning rate of the next 5 turns is multiplied by 1.25 + 0.25 tier. Tier charges, long rest.",
        "long",
        lambda tier: tier,
    )
    MASTERY = Ability(
        "Spell Mastery",
        "The learning rate of every success is multiplied by 1 + 0.05 tier.",
        from_level=SECOND_ABILITY,
    )
    abilities = (RECOVERY, MASTERY)
    TURNS = 5

    def shape(self, turn: Turn, chance: Chance, loss: float | None) -> None:
        if self.own.get("recovering", 0) > 0:
            self.own["recovering"] -= 1
            turn.rate_factor *= 1.25 + 0.25 * self.tier
        if turn.outcome.succeeds and self.knows(self.MASTERY):
            turn.rate_factor *= 1 + 0.05 * self.tier
        self.own["failed"] = 0 if turn.outcome.succeeds else self.own.get("failed", 0) + 1
        if self.own["failed"] >= 2 and not self.own.get("recovering") and self.spend(self.RECOVERY):
            self.own |= {"failed": 0, "recovering": self.TURNS}
            turn.tell("arcane_recovery", f"Arcane Recovery: the learning rate is raised for {self.TURNS} turns.")


class Rogue(Character):
    """Boosts gradients where the die is kind."""

    name = "rogue"
    SNEAK = Ability(
        "Sneak Attack",
        "The gradient of a success that was rolled with advantage, or whose natural die is in the upper fifth, is multiplied by "
        "1 + (sum of (level + 1) // 2 six-sided dice) / 30.",
    )
    CUNNING = Ability(
        "Cunning Action",
        "A failure that is not critical counts as a success that just reaches the DC. Tier charges, short rest.",
        "short",
        lambda tier: tier,
        from_level=SECOND_ABILITY,
    )
    abilities = (SNEAK, CUNNING)

    def answer(self, turn: Turn, again: Again) -> None:
        if turn.outcome is Outcome.FAILURE and self.spend(self.CUNNING):
            turn.outcome = Outcome.SUCCESS
            turn.tell("cunning_action", "Cunning Action: the failure is dodged.")

    def shape(self, turn: Turn, chance: Chance, loss: float | None) -> None:
        roll = turn.roll
        if turn.outcome.succeeds and (roll.edge > 0 or roll.natural > 0.8 * roll.sides):
            pips = sum(chance.die(6) for _ in range((self.level + 1) // 2))
            turn.gradient_factor *= 1 + pips / 30
            turn.tell("sneak_attack", f"Sneak Attack: the gradient is multiplied by {1 + pips / 30:.2f}.")


class Fighter(Character):
    """Does things twice."""

    name = "fighter"
    WIND = Ability(
        "Second Wind",
        "A failure, critical or not, is rolled once more, with the tier added. Tier charges, short rest.",
        "short",
        lambda tier: tier,
    )
    SURGE = Ability(
        "Action Surge",
        "After a critical success the optimizer takes the step twice. Tier charges, short rest.",
        "short",
        lambda tier: tier,
        from_level=SECOND_ABILITY,
    )
    abilities = (WIND, SURGE)

    def answer(self, turn: Turn, again: Again) -> None:
        if turn.outcome in BAD and self.spend(self.WIND):
            first = turn.roll.natural
            again(self.tier)
            turn.tell("second_wind", f"Second Wind: a {first} is rolled again, and is a {turn.roll.natural}.")

    def shape(self, turn: Turn, chance: Chance, loss: float | None) -> None:
        if turn.outcome is Outcome.CRITICAL_SUCCESS and self.spend(self.SURGE):
            turn.steps += 1
            turn.tell("action_surge", "Action Surge: the step is taken twice.")


class Cleric(Character):
    """Keeps a copy of the weights, which costs their memory once more, and brings them back."""

    name = "cleric"
    WORD = Ability(
        "Healing Word",
        "Weights are kept at the first turn and at every 20th after it, unless the mean loss (memory 0.8) is above that of the "
        "weights kept last. Where it rises to 1.25 times that, the weights go back to them, in place of a step. "
        "Tier charges, short rest.",
        "short",
        lambda tier: tier,
    )
    INTERVENTION = Ability(
        "Divine Intervention",
        "A critical failure becomes a critical success; a loss that is no number brings the kept weights back. One charge, long rest.",
        "long",
        lambda tier: 1,
        from_level=SECOND_ABILITY,
    )
    abilities = (WORD, INTERVENTION)
    needs_loss = True
    EVERY, MEMORY, RISEN = 20, 0.8, 1.25

    def answer(self, turn: Turn, again: Again) -> None:
        if turn.outcome is Outcome.CRITICAL_FAILURE and self.spend(self.INTERVENTION):
            turn.outcome = Outcome.CRITICAL_SUCCESS
            turn.tell("divine_intervention", "Divine Intervention: a critical failure becomes a critical success.")

    def shape(self, turn: Turn, chance: Chance, loss: float | None) -> None:
        if loss is None:
            return
        own = self.own
        own["mean"] = loss if "mean" not in own else self.MEMORY * own["mean"] + (1 - self.MEMORY) * loss
        if "kept" in own and own["mean"] > self.RISEN * own["kept"] and self.spend(self.WORD):
            turn.restore = True
            turn.tell("healing_word", f"Healing Word: the weights go back to those of {own['age']:.0f} turns ago.")
            own |= {"mean": own["kept"], "age": 0}
            return
        own["age"] = own.get("age", 0) + 1
        if "kept" not in own or (own["age"] >= self.EVERY and own["mean"] <= own["kept"]):
            own |= {"kept": own["mean"], "age": 0}
            turn.keep = True

    def forget(self) -> None:
        for name in ("mean", "kept", "age"):
            self.own.pop(name, None)

    def saves(self) -> bool:
        return "kept" in self.own and self.spend(self.INTERVENTION)


class Barbarian(Character):
    """Strikes harder and misses more."""

    name = "barbarian"
    RAGE = Ability(
        "Rage",
        "A failure, critical or not, begins a rage of 10 turns: the gradient of successes is multiplied by 1.25 + 0.25 tier, the DC is 2 "
        "higher. Tier charges, long rest.",
        "long",
        lambda tier: tier,
    )
    RECKLESS = Ability(
        "Reckless Attack",
        "Raging, he rolls with advantage. A failure then counts twice, and the next turn is rolled with disadvantage.",
        from_level=SECOND_ABILITY,
    )
    abilities = (RAGE, RECKLESS)
    TURNS, HARDER = 10, 2

    @property
    def raging(self) -> bool:
        return self.own.get("raging", 0) > 0

    def stance(self) -> Stance:
        stumbles = self.own.get("stumbles", 0)
        reckless = self.raging and self.knows(self.RECKLESS)
        return Stance(edge=-1 if stumbles else int(reckless), dc=self.HARDER if self.raging else 0)

    def shape(self, turn: Turn, chance: Chance, loss: float | None) -> None:
        reckless = self.raging and self.knows(self.RECKLESS) and not self.own.get("stumbles")
        self.own["stumbles"] = 0
        if self.raging:
            self.own["raging"] -= 1
            if turn.outcome.succeeds:
                turn.gradient_factor *= 1.25 + 0.25 * self.tier
            elif reckless:
                turn.gradient_factor *= 2
                self.own["stumbles"] = 1
                turn.tell(
                    "reckless_attack", "Reckless Attack fails: it counts twice, and the next roll is at a disadvantage."
                )
        elif turn.outcome in BAD and self.spend(self.RAGE):
            self.own["raging"] = self.TURNS
            turn.tell("rage", f"Rage: for {self.TURNS} turns successes strike harder.")


class Paladin(Character):
    """Guards against the worst, and makes the most of the best."""

    name = "paladin"
    AURA = Ability("Aura of Protection", "The tier is added to every roll; no update is inverted by more than half.")
    SMITE = Ability(
        "Divine Smite",
        "The gradient of a critical success is doubled. Tier charges, short rest.",
        "short",
        lambda tier: tier,
        from_level=SECOND_ABILITY,
    )
    abilities = (AURA, SMITE)

    def stance(self) -> Stance:
        return Stance(bonus=self.tier)

    def shape(self, turn: Turn, chance: Chance, loss: float | None) -> None:
        turn.least_factor = -0.5
        if turn.outcome is Outcome.CRITICAL_SUCCESS and self.spend(self.SMITE):
            turn.gradient_factor *= 2
            turn.tell("divine_smite", "Divine Smite: the gradient is doubled.")


CLASSES = {kind.name: kind for kind in (Wizard, Rogue, Fighter, Cleric, Barbarian, Paladin)}


def character(kind: Character | type[Character] | str | None, level: int = 1) -> Character | None:
    """A character of this class, by name or itself; a copy of one that is made, so that each game has its own; none for None.

    Raises UserError.
    """
    if kind is None or isinstance(kind, Character):
        return copy.deepcopy(kind)
    if isinstance(kind, type) and issubclass(kind, Character):
        return kind(level)
    if not isinstance(kind, str):
        raise UserError(
            f"character_class = {kind!r}: must be None, one of {', '.join(CLASSES)}, a class or a character"
        )
    if kind not in CLASSES:
        raise UserError(
            f"character_class = {kind!r}: unknown{nearest(kind, CLASSES) or '.'} Known: {', '.join(CLASSES)}"
        )
    return CLASSES[kind](level)
