"""A newborn hero's one battle, fought once for each way to roll, the twin first: the same rows, the same steps.

`python -m training.bench.entrants.dice_life TASK.json RESULT.json` trains by the product's own trainer and plan.
"""

from pathlib import Path
from typing import Any

import torch

from core.battle import BattlePlan
from core.dice_config import Dice
from core.forge.attention import ATTENTION
from core.forge.evaluate import Evaluation
from core.forge.hatch import micro_hero
from core.forge.step_facts import StepFacts
from core.paths import BUNDLED_TOKENIZER
from core.prepare import prepare
from core.quest import Settings
from core.rendering import Renderer
from core.train import HeroTrainer
from training.bench.entrants.life import lead


class Watch:
    """The observer: the loss of every step and what it was scaled by; it asks for no answers."""

    stop_ids = None

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.scales: list[float] = []

    def after_step(self, facts: StepFacts) -> bool:
        self.losses.append(facts.loss.item())
        self.scales += [roll["factor"] for roll in facts.rolls] or [1.0]
        return False

    def validated(self, global_step: int, evaluation: Evaluation) -> None: ...
    def answered(self, *given: Any) -> None: ...
    def save(self, global_step: int, step: int) -> None: ...


def fought(task: dict[str, Any], plan: BattlePlan) -> dict[str, Any]:
    """One life. `moved`: share of the steps whose roll let the update through with its own sign."""
    model = micro_hero(task["seed"])
    model.set_attn_implementation(ATTENTION)
    trainer = HeroTrainer(model, Path(task["root"]) / "scratch")
    torch.manual_seed(task["seed"])
    watch = Watch()
    trainer.fight(plan, 0, task["rate"], watch)
    return {
        "held_out": trainer.held_out_loss(plan),
        "losses": watch.losses,
        "mean_scale": sum(watch.scales) / len(watch.scales),
        "moved": sum(scale > 0 for scale in watch.scales) / len(watch.scales),
    }


def live(task: dict[str, Any]) -> dict[str, Any]:
    """Every way through the same quest."""
    settings, quest = Settings(**task["settings"]), task["quest"]
    renderer = Renderer.load(BUNDLED_TOKENIZER, settings.max_length)
    prepared = prepare(Path(quest["path"]), task["form"], settings, renderer, Path(task["root"]) / "rows")
    found, steps = {}, 0
    for name, dice in task["ways"].items():
        plan = BattlePlan(prepared, settings.model_copy(update={"dice": Dice(**dice)}), quest["sha256"])
        found[name], steps = fought(task, plan), plan.total_steps
    return {"ways": found, "steps": steps}


if __name__ == "__main__":
    lead(live)
