"""Dice for any `transformers.Trainer`: a callback that rolls for each step's gradients, a mixin that rolls for each loss.

`Trainer(…, callbacks=[DiceCallback(…)])`, or `class Mine(DiceMixin, Trainer)` with `dice=…`. What the game remembers is
saved beside each of the Trainer's checkpoints and comes back with `resume_from_checkpoint`. It knows nothing of battles.
"""

import math
import warnings
from pathlib import Path
from typing import Any

import orjson
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

from core.dice.chance import TorchChance
from core.dice.game import Game, facts
from core.dice.hand import Hand
from core.dice.turn import Turn
from core.dice_config import Dice
from core.errors import UserError
from core.forge.state import give_tensors, take_tensors

VALUES, TENSORS = "dice.json", "dice.safetensors"
STEPS_IN_BACKWARD = ("lomo", "adalomo")


class DiceCallback(TrainerCallback):
    """Rolls for the gradients of each optimizer step, after clipping; `history` has the turns, as facts.

    `dice`: what config.json's section says; `seed`: of a stream of its own, else rolls follow torch's.
    """

    sees_losses = False

    def __init__(self, dice: Dice | None = None, seed: int | None = None):
        self.dice = dice or Dice(enabled=True)
        self.game, self.chance = Game.of(self.dice), TorchChance(seed)
        self.history: list[dict[str, Any]] = []
        self.hand: Hand | None = None
        self.resumed_from: Path | None = None  # known to the mixin; a callback looks in the output directory
        self._turns: list[Turn] = []
        self._losses: list[float] = []

    # What transformers' loop tells

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self._refuse(args)
        kept = {}
        if self.hand:
            self.hand.lift()  # the training before may have been interrupted in a step
            kept = self.hand.kept
        self.hand = Hand(model, getattr(optimizer, "optimizer", optimizer))
        self.hand.kept = kept
        if state.global_step:
            usual = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            self._resume(self.resumed_from or usual, args.device)

    def _refuse(self, args: TrainingArguments) -> None:
        """Raises UserError for what cannot be rolled."""
        if not self.sees_losses and self.dice.mode == "per_mini_batch":
            raise UserError("mode per_mini_batch scales losses, which no callback sees: use DiceMixin")
        if not self.sees_losses and self.game.needs_loss:
            raise UserError("a cleric heals by the loss, which no callback sees: use DiceMixin")
        if args.optim in STEPS_IN_BACKWARD:
            raise UserError(f"optim = {args.optim!r} steps in the backward pass: there is no gradient to roll for")
        if args.fp16 and not args.max_grad_norm:
            raise UserError(
                "max_grad_norm = 0 leaves fp16 gradients scaled: set it above 0, so that they can be rolled for"
            )

    def on_step_begin(self, args, state, control, **kwargs):
        self._turns, self._losses, self._before = [], [], self.game.state_dict()
        self.hand.haunt(self.game.haunting)

    def on_pre_optimizer_step(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.hand.lift()
        scaled = self.dice.mode == "per_mini_batch"
        loss = sum(self._losses) / len(self._losses) if self._losses else None
        lost = loss is not None and not math.isfinite(loss)
        if lost or not self.hand.norm().isfinite():  # neither rolled for nor taken
            self.game.load_state_dict(self._before)
            if lost and self.hand.kept and self.game.saves():
                self.hand.restore()
            self.hand.drop()
            self._turns = []
        elif not scaled:
            self._turns = [self.game.play(self.chance, loss)]
        self._steps = self.hand.before_step(self._turns, scaled)
        self.history += [facts(self.game, turn) | {"step": state.global_step + 1} for turn in self._turns]

    def on_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        for _ in range(self._steps - 1):
            getattr(optimizer, "optimizer", optimizer).step()
        self.hand.after_step()

    def on_save(self, args, state, control, **kwargs):
        self._write(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")

    # One mini-batch, for the mixin

    def roll_for(self, loss: torch.Tensor) -> torch.Tensor:
        """`loss`, whose gradient the roll scales; its value stays the true one. The gradient of a discarded one is 0, which a
        GradScaler has to see; where all of a step are discarded, `before_step` drops it."""
        self._losses.append(float(loss.detach()))
        if self.dice.mode != "per_mini_batch" or not math.isfinite(self._losses[-1]):
            return loss
        turn = self.game.play(self.chance, self._losses[-1])
        self._turns.append(turn)
        return _ScaledGradient.apply(loss, turn.factor)

    # Checkpoints

    def _write(self, folder: Path) -> None:
        tensors: dict[str, torch.Tensor] = {}
        parts = {"chance": self.chance.state_dict(), "kept": self.hand.kept}
        values = {
            "dice": self.dice.model_dump(),
            "game": self.game.state_dict(),
            "parts": take_tensors(parts, "dice", tensors),
            "history": self.history,
        }
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, folder / TENSORS)
        (folder / VALUES).write_bytes(orjson.dumps(values))

    def _resume(self, folder: Path, device: torch.device) -> None:
        """Go on with the game of this checkpoint; with a new one where it was saved without dice."""
        if not (folder / VALUES).is_file():
            warnings.warn(f"{folder} was saved without dice: the game begins afresh", stacklevel=2)
            self.game, self.history, self.hand.kept = Game.of(self.dice), [], {}
            return
        self._read(folder, device)

    def _read(self, folder: Path, device: torch.device) -> None:
        mine = self.dice.model_dump()
        try:
            tensors = load_file(folder / TENSORS)
            values = orjson.loads((folder / VALUES).read_bytes())
            parts = give_tensors(values["parts"], tensors)
            if other := [f"{name} = {value!r}" for name, value in values["dice"].items() if mine.get(name) != value]:
                raise UserError(f"{folder}: was rolled with other dice: {', '.join(other)}")
            self.game.load_state_dict(values["game"])
        except (OSError, KeyError, ValueError, SafetensorError) as problem:
            raise UserError(f"{folder}: its dice cannot be read: {problem}") from problem
        self.chance.load_state_dict(parts["chance"])
        self.hand.kept = {name: tensor.to(device) for name, tensor in parts["kept"].items()}
        self.history = values["history"]


class DiceMixin:
    """Beside a Trainer: `class Mine(DiceMixin, Trainer)`. Every mode and class; reported losses stay the true ones."""

    def __init__(self, *args: Any, dice: Dice | None = None, dice_seed: int | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.dice = DiceCallback(dice, dice_seed)
        self.dice.sees_losses = True
        self.add_callback(self.dice)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        folder = resume_from_checkpoint
        if folder is True:
            folder = get_last_checkpoint(self.args.output_dir)
        self.dice.resumed_from = Path(folder) if folder else None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def compute_loss(self, model: torch.nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        found = super().compute_loss(model, inputs, *args, **kwargs)
        if not model.training:  # an evaluation is not rolled for
            return found
        return (self.dice.roll_for(found[0]), *found[1:]) if isinstance(found, tuple) else self.dice.roll_for(found)


class _ScaledGradient(torch.autograd.Function):
    """The same number, with another gradient."""

    @staticmethod
    def forward(ctx: Any, loss: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.factor = factor
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient * ctx.factor, None
