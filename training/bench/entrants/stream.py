"""A hero's life in short, once for each way to set the learning rate: a stream of quests, and what is kept of each.

`python -m training.bench.entrants.stream TASK.json RESULT.json` trains micro heroes by the product's own trainer and plans.
"""

import copy
from pathlib import Path
from typing import Any

import torch

from core.battle import BattlePlan
from core.cooldown_plan import mixed
from core.forge.attention import ATTENTION
from core.forge.evaluate import Evaluation
from core.forge.hatch import micro_hero
from core.forge.optimizers import OptimizerKind
from core.forge.schedule_free import OPTIM
from core.forge.step_facts import StepFacts
from core.learning_rate import Schedule, learning_rate_of, one_minus_sqrt
from core.optimizer_names import DEFAULT
from core.paths import BUNDLED_TOKENIZER
from core.prepare import prepare
from core.quest import Settings
from core.rendering import Renderer
from core.train import HeroTrainer
from training.bench.entrants.life import lead

EARLY_STEPS = 10


class Losses:
    """The observer: the training loss of every step; it asks for no answers."""

    stop_ids = None

    def __init__(self) -> None:
        self.steps: list[float] = []

    def after_step(self, facts: StepFacts) -> bool:
        self.steps.append(facts.loss.item())
        return False

    def validated(self, global_step: int, evaluation: Evaluation) -> None: ...
    def answered(self, *given: Any) -> None: ...
    def save(self, global_step: int, step: int) -> None: ...


class Life:
    """One hero from its birth on; `facts` are what the bench asks for. `rate`: the bench's, None for the realm's own."""

    def __init__(self, task: dict[str, Any], plans: list[BattlePlan], **options: Any):
        model = micro_hero(task["seed"])
        model.set_attn_implementation(ATTENTION)
        self.plans, self.rate = plans, options.get("rate", task["rate"])
        self.trainer = HeroTrainer(
            model, Path(task["root"]) / "scratch", kind=OptimizerKind(options.get("optim", DEFAULT))
        )
        torch.manual_seed(task["seed"])
        self.early: list[float] = []
        self.own: list[float] = []

    def fight(self, plan: BattlePlan, schedule: Schedule | None = None) -> None:
        losses = Losses()
        parameters = self.trainer.model.num_parameters()
        rate = self.rate or learning_rate_of(plan.settings, parameters, self.trainer.global_step)
        self.trainer.fight(plan, 0, rate, losses, schedule)
        self.early.append(sum(losses.steps[:EARLY_STEPS]) / len(losses.steps[:EARLY_STEPS]))
        self.own.append(self.trainer.held_out_loss(plan))

    def facts(self) -> dict[str, Any]:
        """Means over the quests, in nats; `early` without the first quest, where nothing is carried over."""
        final = [self.trainer.held_out_loss(plan) for plan in self.plans]
        mean = {"final": final, "own": self.own, "early": self.early[1:]}
        return {name: sum(values) / len(values) for name, values in mean.items() if values}

    def snapshot(self) -> tuple:
        trainer = self.trainer
        states = trainer.model.state_dict(), trainer.optimizer.state_dict(), self.early, self.own
        return trainer.global_step, torch.get_rng_state(), *copy.deepcopy(states)

    def restore(self, kept: tuple) -> None:
        trainer = self.trainer
        trainer.global_step, random_state, model, optimizer, self.early, self.own = copy.deepcopy(kept)
        trainer.model.load_state_dict(model)
        trainer.optimizer.load_state_dict(optimizer)
        torch.set_rng_state(random_state)


def plans_of(task: dict[str, Any], **changes: Any) -> list[BattlePlan]:
    """The stream's quests as battles."""
    settings = Settings(**(task["settings"] | changes))
    renderer = Renderer.load(BUNDLED_TOKENIZER, settings.max_length)
    plans = []
    for number, quest in enumerate(task["quests"]):
        folder = Path(task["root"]) / f"prepared-{number}"
        prepared = prepare(Path(quest["path"]), task["form"], settings, renderer, folder)
        plans.append(BattlePlan(prepared, settings, quest["sha256"]))
    return plans


def live(task: dict[str, Any]) -> dict[str, Any]:
    """Every way through the same quests. The last one's rows are where `cooldown` lets its rate fall."""
    plans, found = plans_of(task), {}
    hero = Life(task, plans)
    for plan in plans[:-1]:
        hero.fight(plan)
    before_last = hero.snapshot()
    hero.fight(plans[-1])
    found["constant"] = hero.facts()
    steps = round(task["branch_share"] * hero.trainer.global_step)
    hero.fight(mixed(reversed(list(enumerate(plans))), plans[-1].settings, steps), one_minus_sqrt(steps))
    found["branch"] = {"final": hero.facts()["final"]}
    hero.restore(before_last)
    hero.fight(plans[-1], one_minus_sqrt(plans[-1].total_steps))
    found["cooldown"] = hero.facts()
    found["reset"] = straight(Life(task, plans_of(task, optimizer_state="reset")))
    found["schedule_free"] = straight(Life(task, plans, optim=OPTIM))
    found["schedule_free_fast"] = straight(Life(task, plans, optim=OPTIM, rate=task["fast"] * task["rate"]))
    resting = plans_of(task, cooldown_share=task["rest"])
    found["rest"] = straight(Life(task, resting))
    found["realm"] = straight(Life(task, resting, rate=None))
    return {"ways": found, "steps": sum(plan.total_steps for plan in plans), "branch_steps": steps}


def straight(life: Life) -> dict[str, float]:
    for plan in life.plans:
        life.fight(plan)
    return life.facts()


if __name__ == "__main__":
    lead(live)
