"""Dice in a battle: turns are rolled before the optimizer steps, and carried out on the hero. It knows no files and no pages.

Rolls come from a stream of their own that follows from seed, quest and step, so a killed battle rolls again what it
rolled. The game belongs to the weights as their moments do: checkpoints carry it (`take`, `load`), the next battle goes
on with it as long as its dice are the same. A step that the guard leaves out is not rolled, so a rolled battle waits on a GPU
for each step; looks are not rolled either.
"""

import hashlib
from typing import Any

import torch
from transformers import TrainerCallback

from core.battle import BattlePlan
from core.dice.chance import TorchChance
from core.dice.game import Game, facts
from core.dice.hand import Hand
from core.dice.turn import Turn
from core.dice_config import Dice
from core.errors import UserError
from core.forge.guard import LEFT_OUT
from core.forge.step_facts import Mean

KEPT = "dice.kept."
CANNOT_BE_PUT_BACK = (
    "dice.character_class = 'cleric' puts weights back, and schedule-free optimizers train others than those that are used; "
    "take another class or trainer.optim"
)
CANNOT_BE_ROLLED = (
    "dice.enabled: gradients are used within the backward pass here, so there is none to roll for; set memory.gradient_release "
    "to false or take another trainer.optim than lomo, or turn the dice off"
)


class Rolled(TrainerCallback):
    """Of a HeroTrainer, of which it is a part. `rolls`: the last step's turns as facts; `rate_factor`: of its learning rate."""

    def __init__(self, trainer: Any):
        self._trainer = trainer
        self.dice: Dice | None = None
        self.game: Game | None = None
        self.kept: dict[str, torch.Tensor] = {}
        self._quest: str | None = None  # in whose battle they were kept
        self._active = False
        self._rest_of_step()

    def _rest_of_step(self) -> None:
        self.rolls: list[dict[str, Any]] = []
        self.rate_factor, self._more_steps = 1.0, 0
        self._turns: list[Turn] = []
        self._before: dict[str, Any] | None = None

    def begin(self, plan: BattlePlan, first: int, cooldown: bool) -> None:
        """A battle begins, or goes on after `first` of its steps. Raises UserError where it cannot be rolled."""
        dice, trainer = plan.settings.dice, self._trainer
        self._rest_of_step()
        self._active = dice.enabled and not cooldown
        if first == 0 or plan.quest_sha256 != self._quest:  # another battle's weights would undo what it has taught
            self.kept, self._quest = {}, plan.quest_sha256
            if self.game:
                self.game.forget()
        if not self._active:
            return
        if trainer._in_one_pass or trainer.means.release:
            raise UserError(CANNOT_BE_ROLLED)
        if dice.character_class == "cleric" and trainer.kind.is_schedule_free:
            raise UserError(CANNOT_BE_PUT_BACK)
        if dice != self.dice:
            self.dice, self.game, self.kept = dice, Game.of(dice), {}
        self._plan, self._first = plan, first
        self.hand = Hand(trainer.model, getattr(trainer.optimizer, "optimizer", trainer.optimizer))
        self.hand.kept = self.kept

    def _chance(self, step: int) -> TorchChance:
        """What is rolled in `step` of the battle, counted from 0."""
        name = repr(("dice", self._plan.settings.seed, self._plan.quest_sha256, step)).encode()
        return TorchChance(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest()) >> 1)

    @property
    def _each_pass(self) -> bool:
        return self._active and self.dice.mode == "per_mini_batch"

    # The passes of a step

    def begin_passes(self, step: int) -> None:
        """The passes of `step` begin; once more, where memory ran out."""
        if self._each_pass:
            if self._before is not None:
                self.game.load_state_dict(self._before)
            self._before, self._turns, self._dice_of_step = self.game.state_dict(), [], self._chance(step)

    def weigh(self, loss: torch.Tensor) -> torch.Tensor | None:
        """The loss of a pass as its roll makes it count; None where nothing is to be learned from it."""
        if not self._each_pass or not loss.detach().isfinite():
            return loss
        turn = self.game.play(self._dice_of_step, self._loss(loss.detach()))
        self._turns.append(turn)
        return None if turn.discarded else loss * turn.factor

    @property
    def nothing(self) -> bool:
        """Whether the step has no gradient for all that its passes were rolled: the guard has nothing to learn from it."""
        return bool(self._turns) and not any(turn.factor for turn in self._turns)

    def _loss(self, loss: torch.Tensor) -> float | None:
        """Asked only if somebody wants to know: on a GPU it is waited for."""
        return float(loss) if self.game.needs_loss else None

    # What transformers' loop tells

    def on_step_begin(self, args, state, control, **kwargs):
        if self._active:
            self._rest_of_step()
            self.hand.haunt(self.game.haunting)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if not self._active:
            return
        trainer = self._trainer
        self.hand.lift()
        step = self._first + state.global_step - trainer._began
        if int(trainer.guard.flags) & LEFT_OUT or (trainer._empty and not self._turns):
            if self._before is not None:
                self.game.load_state_dict(self._before)
            self._turns = []
            return
        if not self._each_pass:
            self._turns = [self.game.play(self._chance(step), self._loss(trainer._step_loss))]
        self._more_steps = self.hand.before_step(self._turns, self._each_pass) - 1
        self.rate_factor = self.hand.rate_factor
        self._tell()

    def _tell(self) -> None:
        self.rolls = [facts(self.game, turn) for turn in self._turns]
        count = len(self._turns)
        self._trainer._told |= {
            "roll": Mean(float(sum(turn.roll.natural for turn in self._turns)), count),
            "roll_scale": Mean(float(sum(turn.factor for turn in self._turns)), count),
        }

    def on_optimizer_step(self, args, state, control, **kwargs):
        if self._active and self._turns:
            for _ in range(self._more_steps):
                self._trainer.optimizer.step()
            self.hand.after_step()

    # Checkpoints

    def take(self, tensors: dict[str, torch.Tensor]) -> dict[str, Any] | None:
        """What a checkpoint keeps of the game; its tensors go into `tensors`, not copies of them."""
        if self.game is None:
            return None
        tensors |= {KEPT + name: tensor for name, tensor in self.kept.items()}
        return {"dice": self.dice.model_dump(), "game": self.game.state_dict(), "quest": self._quest}

    def load(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Go on as `take` said."""
        self.dice = Dice(**values["dice"])
        self.game = Game.of(self.dice)
        self.game.load_state_dict(values["game"])
        self._quest = values.get("quest")
        device = self._trainer.args.device
        named = ((name.removeprefix(KEPT), tensor) for name, tensor in tensors.items() if name.startswith(KEPT))
        self.kept = {name: tensor.to(device, copy=True) for name, tensor in named}
