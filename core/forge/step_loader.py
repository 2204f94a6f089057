"""The batches of a battle: the rows of each optimizer step, packed into as few passes as there is room for.

It knows what a plan says and how wide a pass may be, and nothing about models.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from core.battle import BattlePlan
from core.forge.lesson import FileLessons, Lessons
from core.forge.packing import Pack
from core.forge.step_facts import Mean

EVERYTHING = 1 << 40  # tokens of a pass that must hold all rows of a step


@dataclass(frozen=True)
class StepBatch:
    """The packs of one optimizer step, and what they hold in all. `step`: its number in the plan; `told`, `loss`: as in a Lesson."""

    packs: list[Pack]
    labels: int
    tokens: int
    step: int = 0
    told: Mapping[str, Mean] = field(default_factory=dict)
    loss: float | None = None


class StepLoader:
    """The batches of a plan from step `first` on; it starts there at no cost.

    `room(step)`: tokens of a pass at most in that step, where the plan's own are too many. `lessons`: what a step's rows
    are, the file's own as they are by default.
    """

    def __init__(
        self,
        plan: BattlePlan,
        first: int,
        room: Callable[[int], int] | None = None,
        lessons: Lessons | None = None,
    ):
        self.plan, self.first, self.lessons = plan, first, lessons or FileLessons(plan)
        self.room = room or (lambda step: plan.settings.pack_tokens or EVERYTHING)

    def __len__(self) -> int:
        return self.plan.total_steps - self.first

    def __iter__(self) -> Iterator[StepBatch]:
        for step in range(self.first, self.plan.total_steps):
            yield self.batch(step)

    def batch(self, step: int) -> StepBatch:
        """The rows of `step` in as few passes as there is room for."""
        room = self.room(step)
        lesson = self.lessons.at(step)
        packs = lesson.packs(room, self.plan.settings.packing or room == EVERYTHING)
        labels, tokens = sum(len(pack.labels_N) for pack in packs), sum(len(pack.tokens_T) for pack in packs)
        return StepBatch(packs, labels, tokens, step, lesson.told, lesson.loss)
