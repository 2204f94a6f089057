"""What a cooldown trains: rows of the quests that a checkpoint holds, newest first. Knows no torch and decides no rate.

Everything follows from the checkpoint's manifest and the files in recently_completed/, in an order of its own.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import numpy as np

from core.battle import BattlePlan
from core.checkpoints import Manifest, holds
from core.errors import UserError
from core.paths import RealmPaths
from core.prepare import cache_name, prepare
from core.quest import Quest, Settings, parse_name
from core.rendering import Renderer
from core.schools import COOLED, SCHOOLS

SHARE, MOST_STEPS = 0.1, 1000  # of the steps since birth; Hägele et al. find 10 to 20 % of a training to be enough
BREADTH = 8
NEVER = 1 << 30


@dataclass(frozen=True)
class JoinedRows:
    """The rows of several quests as if they were one's, numbered on; what a quest held out stays held out."""

    quests: tuple[BattlePlan, ...]

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(len(plan.prepared) for plan in self.quests)]

    def __len__(self) -> int:
        return self._starts[-1]

    def sequences(self, row: int) -> list[tuple[np.ndarray, np.ndarray]]:
        number = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.quests[number].prepared.sequences(row - self._starts[number])

    def held_out(self, fraction: float, most: int) -> np.ndarray:
        """The rows that each quest's own settings hold out; neither argument matters."""
        pairs = zip(self.quests, self._starts[:-1], strict=True)
        return np.concatenate([plan.held_out_rows + start for plan, start in pairs])


@dataclass(frozen=True)
class CooldownPlan(BattlePlan):
    """A battle of `steps` steps over the rows of several quests, again from the start when they are used up."""

    steps: int
    quest_ids: tuple[int, ...]

    @property
    def total_steps(self) -> int:
        return self.steps

    @property
    def tokens(self) -> float:
        """None is known to be: nothing that pays back only in a long battle is begun."""
        return 0.0


def usual_steps(manifest: Manifest) -> int:
    """How long a cooldown takes that nobody gave a length; no longer than once over the rows at hand, see `cooldown_plan`."""
    return min(max(round(SHARE * manifest.step), 1), MOST_STEPS) if manifest.step else 0


def cooldown_plan(
    paths: RealmPaths, manifest: Manifest, steps: int | None, alive: Callable[[], None] = lambda: None
) -> CooldownPlan:
    """A plan of `steps` steps, or of as many as are usual. Raises UserError where there is nothing to train."""
    if not manifest.step:
        raise UserError(f"{manifest.id} has not been trained yet; there is nothing to cool down")
    settings = Settings(**manifest.settings)
    if settings.school not in COOLED:
        taught = SCHOOLS[settings.school].title
        raise UserError(
            f"{manifest.id} was taught by the {taught} last; a cooldown imitates rows, and would take some of that back"
        )
    newest_first = (
        (quest.id, plan)
        for quest in _quests(paths, manifest)
        if (plan := _plan(paths, manifest, quest, settings.school, alive)) is not None
    )
    plan = mixed(newest_first, settings, steps or usual_steps(manifest))
    if plan is None:
        raise UserError(
            f"no quest that {manifest.id} has finished has its file in {paths.queued('recently_completed')}, "
            "so there are no rows to cool down on"
        )
    return plan if steps else replace(plan, steps=min(plan.steps, plan.steps_per_epoch))


def mixed(newest_first: Iterable[tuple[int, BattlePlan]], settings: Settings, steps: int) -> CooldownPlan | None:
    """`steps` steps over as many of the quests as hold `BREADTH` times the rows needed, shuffled together.

    Of the newest quest alone a hero would learn more, and forget the others for it. None where there is no row.
    """
    wanted, found = BREADTH * steps * settings.batch_size, {}
    for number, plan in newest_first:
        if plan.training_rows:
            found[number] = plan
        if sum(plan.training_rows for plan in found.values()) >= wanted:
            break
    if not found:
        return None
    content = hashlib.sha256("".join(plan.quest_sha256 for plan in found.values()).encode()).hexdigest()
    quiet = settings.model_copy(update={"eval_steps": NEVER, "save_steps": NEVER, "optimizer_state": "carry"})
    return CooldownPlan(JoinedRows(tuple(found.values())), quiet, content, steps, tuple(found))


def _quests(paths: RealmPaths, manifest: Manifest) -> list[Quest]:
    """The quests held, newest first, whose files are still there."""
    folder, state = paths.queued("recently_completed"), "recently_completed"
    named = [(parse_name(path), path) for path in folder.iterdir()]
    found = [Quest(name[1], name[0], state, path) for name, path in named if name and holds(manifest.trained, name[1])]
    return sorted(found, key=lambda quest: quest.id, reverse=True)


def _plan(
    paths: RealmPaths, manifest: Manifest, quest: Quest, school: str, alive: Callable[[], None]
) -> BattlePlan | None:
    """The plan of the quest's own battle, its rows prepared; None for another school's, and where its files are gone."""
    card, folder = quest.card, paths.vault / manifest.id
    if card.get("school") != school:
        return None
    settings = Settings(**card["settings"])
    renderer = Renderer.load(folder, settings.max_length)
    prepared: Path = paths.prepared / cache_name(card["sha256"], card["form"], settings, renderer)
    try:
        return BattlePlan(
            prepare(quest.path, card["form"], settings, renderer, prepared, alive), settings, card["sha256"]
        )
    except FileNotFoundError:
        return None
