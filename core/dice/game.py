"""The game of one training: each turn rolls, and character, monster and experience have their say. It knows no model.

What becomes of a Turn is hand.py's matter. All that a game remembers is in `state_dict`, which is JSON.
"""

from typing import Any

from core.dice.abilities import LONG_REST, SHORT_REST, Character, Stance
from core.dice.characters import character
from core.dice.dice import EDGES, Chance, judge, throw
from core.dice.experience import ExperienceSystem
from core.dice.monsters import Monster, appears, monster_of
from core.dice.rules import Rules, rules_named
from core.dice.turn import Turn
from core.dice_config import Dice, modifier_of, reach_problem, sides_of
from core.errors import UserError


class Game:
    """Between two turns it waits for the next `play`. `monster`: the one that is fought, if there is one."""

    def __init__(
        self,
        rules: Rules,
        sides: int = 20,
        dc: int = 15,
        modifier: int = 0,
        edge: int = 0,
        character: Character | None = None,
        experience: ExperienceSystem | None = None,
        encounter_chance: float = 0.0,
    ):
        self.rules, self.sides, self.dc, self.modifier, self.edge = rules, sides, dc, modifier, edge
        self.character, self.experience, self.encounter_chance = character, experience, encounter_chance
        self.monster: Monster | None = None
        self.turns = 0

    @classmethod
    def of(cls, dice: Dice) -> "Game":
        """As config.json or a sidecar says. Raises UserError where nothing but the natural maximum could succeed."""
        if problem := reach_problem(dice):
            raise UserError(problem)
        return cls(
            rules_named(dice.rules),
            sides_of(dice.die),
            dice.difficulty,
            modifier_of(dice.intelligence),
            EDGES[dice.advantage],
            character(dice.character_class, dice.level),
            ExperienceSystem() if dice.use_xp_system else None,
            dice.encounter_chance,
        )

    @property
    def needs_loss(self) -> bool:
        return self.character is not None and self.character.needs_loss

    @property
    def level(self) -> int:
        return self.experience.level if self.experience else 1

    def play(self, chance: Chance, loss: float | None = None) -> Turn:
        """One turn. `loss`: of the step or mini-batch, before the roll; a character may ask for it (`needs_loss`)."""
        self.turns += 1
        self._rest()
        met = self._meets(chance)
        turn = self._rolled(chance)
        if met:
            turn.tell("encounter", f"A {self.monster.name} of level {self.monster.level} appears.")
        turn.scale = self.rules.scale(turn.outcome, turn.roll, turn.dc)
        if self.character:
            self.character.shape(turn, chance, loss)
        earned = self._gather(turn)
        if self.monster:
            self._fight(turn, earned)
        return turn

    def saves(self) -> bool:
        """The loss is no number, so nothing is rolled: whether the weights kept last are put back."""
        return self.character is not None and self.character.saves()

    def forget(self) -> None:
        """Other rows are trained from here on; whoever carries the turns out forgets the weights that he kept."""
        if self.character:
            self.character.forget()

    @property
    def haunting(self) -> int | None:
        """The seed of what a monster does to the weights in the next turn; None where none touches them."""
        if self.monster is None or not self.monster.haunts:
            return None
        return self.monster.seed + self.turns

    def _rest(self) -> None:
        if self.character and self.turns > 1:
            past = self.turns - 1
            if past % LONG_REST == 0:
                self.character.rest("long")
            elif past % SHORT_REST == 0:
                self.character.rest("short")

    def _meets(self, chance: Chance) -> bool:
        if self.monster is not None or self.encounter_chance == 0 or chance.share() >= self.encounter_chance:
            return False
        self.monster = appears(chance, self.level)
        return True

    def _rolled(self, chance: Chance) -> Turn:
        stance = self.character.stance() if self.character else Stance()
        edge = self.edge + stance.edge  # one of each and the die is thrown plainly
        modifier = self.modifier + stance.bonus + (self.experience.bonus if self.experience else 0)
        roll = throw(chance, self.sides, edge, modifier)
        dc = self.dc + stance.dc
        turn = Turn(self.turns, roll, dc, judge(roll, dc))

        def again(bonus: int) -> None:
            turn.roll = throw(chance, self.sides, edge, modifier + bonus)
            turn.outcome = judge(turn.roll, dc)

        if self.character:
            self.character.answer(turn, again)
        return turn

    def _gather(self, turn: Turn) -> int:
        """The turn's experience; how much it was."""
        if self.experience is None:
            return 0
        before = self.experience.points
        self._rise(turn, self.experience.reward(turn.outcome))
        return self.experience.points - before

    def _rise(self, turn: Turn, levels: int) -> None:
        for _ in range(levels):
            if self.character:
                self.character.rise()
        if levels:
            turn.tell(
                "level_up", f"Level {self.experience.level} is reached, {self.experience.bonus:+d} to every roll."
            )

    def _fight(self, turn: Turn, earned: int) -> None:
        monster = self.monster
        monster.act(turn)
        monster.earned += earned
        monster.suffer(turn)
        if monster.slain:
            self.monster = None
            turn.tell("slain", f"The {monster.name} is slain.")
            if self.experience:
                self._rise(turn, self.experience.gain(monster.earned))

    def state_dict(self) -> dict[str, Any]:
        return {
            "turns": self.turns,
            "character": self.character and self.character.state_dict(),
            "experience": self.experience and self.experience.state_dict(),
            "monster": self.monster and self.monster.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as `state_dict` said. Raises ValueError where it is the state of another kind of game."""
        for part in ("character", "experience"):
            if (getattr(self, part) is None) != (state[part] is None):
                raise ValueError(
                    f"one of the two games has {'an' if part == 'experience' else 'a'} {part}, the other has none"
                )
        self.turns = state["turns"]
        if self.character:
            self.character.load_state_dict(state["character"])
        if self.experience:
            self.experience.load_state_dict(state["experience"])
        self.monster = state["monster"] and monster_of(state["monster"])


def facts(game: Game, turn: Turn) -> dict[str, Any]:
    """A turn as it is shown and logged."""
    monster, rank = game.monster, game.experience
    return {
        "natural": turn.roll.natural,
        "total": turn.roll.total,
        "sides": turn.roll.sides,
        "dc": turn.dc,
        "outcome": str(turn.outcome),
        "scale": turn.scale,
        "discarded": turn.discarded,
        "factor": turn.factor,
        "rate_factor": turn.rate_factor,
        "monster": monster and {"name": monster.name, "hit_points": monster.hit_points, "of": monster.most_hit_points},
        "experience": rank and {"points": rank.points, "level": rank.level},
        "happenings": [{"code": each.code, "text": each.text} for each in turn.happenings],
    }
