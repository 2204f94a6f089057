"""RollToTrain: the optimisation step of any PyTorch model, rolled for. It knows nothing of realms, quests and battles.

A model is called as model(**batch) and answers something with a `loss`. Rolls follow torch's global random stream unless
`seed` is given. Gradients are clipped before they are rolled for, so that clipping does not take a roll back.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from tqdm.auto import tqdm

from core import config_words
from core.dice import checkpoint
from core.dice.abilities import Character
from core.dice.batches import loss_of, prepared
from core.dice.chance import TorchChance
from core.dice.characters import character
from core.dice.game import Game, facts
from core.dice.hand import Hand
from core.dice.history import History
from core.dice.turn import Turn
from core.dice_config import Dice
from core.errors import UserError

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}
LEARNING_RATE = 5e-5  # of the optimizer that is made where none is given, as transformers' Trainer has it


class RollToTrain:
    """Trains `model` under the dice; `history` tells of every step, `game` is where the game stands."""

    def __init__(
        self,
        model: torch.nn.Module,
        tokenizer: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Any = None,
        *,
        intelligence: int = 10,
        dc: int | None = None,
        dice_type: str = "d20",
        rules: str = "gentle",
        advantage: str = "none",
        mode: str = "per_accumulation_step",
        accumulation_steps: int = 1,
        num_epochs: int = 1,
        character_class: Character | type[Character] | str | None = None,
        use_xp_system: bool = False,
        encounter_chance: float = 0.05,
        max_grad_norm: float | None = None,
        amp: Literal["bf16", "fp16"] | None = None,
        seed: int | None = None,
        progress: bool = True,
    ):
        """`optimizer`: AdamW where there is none; `scheduler`: steps after each optimizer step, ReduceLROnPlateau after each epoch.
        The rest is described in core/dice_config.py and, by class, in core/dice/characters.py. Raises UserError."""
        if accumulation_steps < 1 or num_epochs < 1:
            raise UserError(
                f"accumulation_steps = {accumulation_steps}, num_epochs = {num_epochs}: both must be 1 or more"
            )
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise UserError(f"max_grad_norm = {max_grad_norm}: must be above 0, or None for no clipping")
        if amp is not None and amp not in PRECISIONS:
            raise UserError(f"amp = {amp!r}: must be None or one of {', '.join(PRECISIONS)}")
        self.dice = _checked(
            enabled=True,
            rules=rules,
            mode=mode,
            die=dice_type,
            intelligence=intelligence,
            dc=dc,
            advantage=advantage,
            use_xp_system=use_xp_system,
            encounter_chance=encounter_chance,
        )
        self.game = Game.of(self.dice)
        self.game.character = character(character_class)
        self.model, self.tokenizer = model, tokenizer
        self.optimizer = optimizer or torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
        self.scheduler, self.accumulation_steps, self.num_epochs = scheduler, accumulation_steps, num_epochs
        self.max_grad_norm, self.progress = max_grad_norm, progress
        self.chance, self.hand, self.history = TorchChance(seed), Hand(model, self.optimizer), History()
        self.device = next(model.parameters()).device
        self._precision = amp and PRECISIONS[amp]
        self._scaler = torch.amp.GradScaler(self.device.type) if amp == "fp16" else None
        self._epoch, self._batches_done, self._epoch_began = 0, 0, None
        self._generators: list[torch.Generator] = []  # of the loader that was used last
        self._generators_at: list[torch.Tensor] = []  # where a checkpoint says that they were

    # Training

    def train(
        self,
        train_dataloader: Iterable[Mapping],
        eval_dataloader: Iterable[Mapping] | None = None,
        max_steps: int | None = None,
    ) -> History:
        """Train `num_epochs` epochs, or on from where a checkpoint was saved; `max_steps`: stop after so many optimizer steps of
        this call. A second call trains as many epochs again."""
        if max_steps is not None and max_steps < 1:
            raise UserError(f"max_steps = {max_steps}: must be 1 or more, or None for all")
        steps_left = math.inf if max_steps is None else max_steps
        last = self._epoch - self._epoch % self.num_epochs + self.num_epochs
        while self._epoch < last:
            done = self._batches_done
            for window in self._windows(train_dataloader):
                self._step(window)
                self._batches_done += len(window)
                steps_left -= 1
                if steps_left <= 0:
                    return self.history
            if self._batches_done == done == 0:
                raise UserError(
                    f"the data loader has no batch in epoch {self._epoch + 1}; a generator is used up after one"
                )
            self._end_epoch(eval_dataloader)
        return self.history

    def evaluate(self, dataloader: Iterable[Mapping]) -> float:
        """Mean loss over the batches; nothing is rolled for. Raises UserError where there is no batch."""
        losses, was_training = [], self.model.training
        self.model.eval()
        with torch.no_grad():
            for batch in dataloader:
                with self._autocast():
                    losses.append(float(loss_of(self.model, prepared(batch, self.tokenizer, self.device))))
        self.model.train(was_training)
        if not losses:
            raise UserError("the data loader for evaluation has no batch")
        return sum(losses) / len(losses)

    def _windows(self, loader: Iterable[Mapping]) -> Iterator[list[Mapping]]:
        """The batches of each optimizer step of the epoch; those that a checkpoint holds are passed over."""
        self._generators = checkpoint.generators(loader)
        if self._batches_done:
            now = checkpoint.streams()
            checkpoint.put_back(self._epoch_began, self._generators)
        else:
            for generator, state in zip(self._generators, self._generators_at, strict=False):
                generator.set_state(state)
            self._epoch_began = checkpoint.streams(self._generators)
        self._generators_at = []
        batches = iter(loader)
        if self._batches_done:
            for _ in islice(batches, self._batches_done):
                pass
            checkpoint.put_back(now)
        size = len(loader) if hasattr(loader, "__len__") else None
        title = f"Epoch {self._epoch + 1}"
        with tqdm(total=size, initial=self._batches_done, desc=title, disable=not self.progress) as bar:
            while window := list(islice(batches, self.accumulation_steps)):
                yield window
                bar.update(len(window))
                bar.set_postfix_str(self.history.last_words(), refresh=False)

    def _step(self, window: list[Mapping]) -> None:
        """One optimizer step: forward and backward of each mini-batch, the roll, what follows from it."""
        self.model.train()
        scaled = self.dice.mode == "per_mini_batch"
        before = self.game.state_dict()
        self.model.zero_grad()  # what was computed by others
        self.hand.haunt(self.game.haunting)
        try:
            passes = [self._pass(batch, len(window), scaled) for batch in window]
        finally:  # whoever interrupts this has clean weights
            self.hand.lift()
        loss = sum(each for each, _ in passes) / len(passes)
        turns = [turn for _, turn in passes if turn is not None]
        unscaled, norm = bool(self.hand.gradients), self._gradient_norm()
        if not (math.isfinite(loss) and math.isfinite(norm)):  # neither rolled for nor taken
            self.game.load_state_dict(before)
            if not math.isfinite(loss) and self.hand.kept and self.game.saves():
                self.hand.restore()
            self.hand.drop()
            turns = []
        elif not scaled:
            turns.append(self.game.play(self.chance, loss))
        rate = self._carry_out(turns, unscaled, scaled)
        self.optimizer.zero_grad()
        self.history.add(self._epoch, loss, [facts(self.game, turn) for turn in turns], rate, norm)

    def _pass(self, batch: Mapping, count: int, scaled: bool) -> tuple[float, Turn | None]:
        """Forward and backward of one mini-batch of `count`; its loss, and the turn that scaled it, if one did."""
        with self._autocast():
            loss = loss_of(self.model, prepared(batch, self.tokenizer, self.device))
        value, turn = float(loss.detach()), None
        if scaled:
            if not math.isfinite(value):
                return value, None
            turn = self.game.play(self.chance, value)
            if turn.discarded:
                return value, turn
        self._backward(loss * (turn.factor if turn else 1.0) / count)
        return value, turn

    def _backward(self, loss: torch.Tensor) -> None:
        (self._scaler.scale(loss) if self._scaler else loss).backward()

    def _gradient_norm(self) -> float:
        """The norm of the gradients before they are clipped."""
        if self._scaler and self.hand.gradients:
            self._scaler.unscale_(self.optimizer)
        norm = self.hand.norm()
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.hand.parameters, self.max_grad_norm, norm)
        return float(norm)

    def _carry_out(self, turns: list[Turn], unscaled: bool, scaled: bool) -> float:
        """Let the optimizer step as the turns say; the learning rate that it had. `unscaled`: by the scaler, if there is one."""
        with self.hand.step(turns, scaled) as steps:
            rate = float(self.optimizer.param_groups[0]["lr"])
            if self._scaler and unscaled:
                self._scaler.step(self.optimizer)
                self._scaler.update()
            else:
                self.optimizer.step()
            for _ in range(steps - 1):
                self.optimizer.step()
        if self.scheduler is not None and not self._waits_for_epochs:
            self.scheduler.step()
        return rate

    def _end_epoch(self, eval_dataloader: Iterable[Mapping] | None) -> None:
        held_out = None if eval_dataloader is None else self.evaluate(eval_dataloader)
        if held_out is not None:
            self.history.evaluated(self._epoch, held_out)
        if self._waits_for_epochs:
            self.scheduler.step(self.history.epoch_loss(self._epoch) if held_out is None else held_out)
        self._epoch, self._batches_done = self._epoch + 1, 0

    @property
    def _waits_for_epochs(self) -> bool:
        return isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)

    def _autocast(self) -> Any:
        return torch.autocast(self.device.type, self._precision) if self._precision else nullcontext()

    # What is kept

    def plot(self, path: str | Path) -> Path:
        """Draw the losses before and after the roll as an SVG."""
        return self.history.plot(Path(path))

    def save_checkpoint(self, path: str | Path) -> Path:
        """Write a folder with all that `load_checkpoint` needs to go on as if nothing had happened: safetensors and JSON."""
        folder = Path(path)
        state = {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler and self.scheduler.state_dict(),
            "scaler": self._scaler and self._scaler.state_dict(),
            "dice": self.dice.model_dump(),
            "game": self.game.state_dict(),
            "chance": self.chance.state_dict(),
            "kept": self.hand.kept,
            "history": self.history.state_dict(),
            "place": {"epoch": self._epoch, "batches": self._batches_done, "began": self._epoch_began},
            "generators": [each.get_state() for each in self._generators] or self._generators_at,
        }
        checkpoint.save(folder, self.model, self.tokenizer, state)
        return folder

    def load_checkpoint(self, path: str | Path) -> None:
        """Go on as `save_checkpoint` left it; model, optimizer, scheduler and dice are to be of the same kind. Raises UserError,
        with nothing changed where they are not."""
        state = checkpoint.read(Path(path))
        self._compare(Path(path), state)
        checkpoint.read_weights(Path(path), self.model)
        checkpoint.put_back(state["streams"])
        self.game.load_state_dict(state["game"])
        self.optimizer.load_state_dict(state["optimizer"])
        for part, name in ((self.scheduler, "scheduler"), (self._scaler, "scaler")):
            if part is not None:
                part.load_state_dict(state[name])
        self.chance.load_state_dict(state["chance"])
        self.hand.kept = {name: tensor.to(self.device) for name, tensor in state["kept"].items()}
        self.history = History.of(state["history"])
        place = state["place"]
        self._epoch, self._batches_done, self._epoch_began = place["epoch"], place["batches"], place["began"]
        self._generators, self._generators_at = [], state["generators"]

    def _compare(self, path: Path, state: dict[str, Any]) -> None:
        """Raises UserError where a checkpoint is of another trainer than this one."""
        mine = self.dice.model_dump()
        if other := [f"{name} = {value!r}" for name, value in state["dice"].items() if mine.get(name) != value]:
            raise UserError(f"{path}: was rolled with other dice: {', '.join(other)}")
        parts = {
            "scheduler": (self.scheduler is not None, state["scheduler"] is not None),
            "scaler (amp = 'fp16')": (self._scaler is not None, state["scaler"] is not None),
            "seed": ("stream" in self.chance.state_dict(), "stream" in state["chance"]),
        }
        for name, (here, there) in parts.items():
            if here != there:
                words = ("has one", "has none") if there else ("has none", "has one")
                raise UserError(f"{path}: {name}: the checkpoint {words[0]}, this trainer {words[1]}")
        groups = [
            [len(group["params"]) for group in each["param_groups"]]
            for each in (self.optimizer.state_dict(), state["optimizer"])
        ]
        try:
            copy.deepcopy(self.game).load_state_dict(state["game"])
            if groups[0] != groups[1]:
                raise ValueError(f"the optimizer's groups have {groups[0]} parameters here, {groups[1]} there")
        except (ValueError, KeyError) as problem:
            raise UserError(f"{path}: does not fit this trainer: {problem}") from problem


def _checked(**values: Any) -> Dice:
    try:
        return Dice.model_validate(values, strict=True)
    except ValidationError as problem:
        raise UserError("\n".join(config_words.mistake(Dice, error) for error in problem.errors())) from None
