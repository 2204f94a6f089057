"""What a running battle looks at: its held-out rows and a few of their prompts, when its budget of time allows it.

It knows nothing about models; who looks asks what is due and says when it happens.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from core.battle import BattlePlan
from core.forge.lesson import Lesson
from core.previews import most_tokens, questions
from core.time_budget import TimeBudget

BEFORE_SHARE = (
    0.25  # of the tokens to train; a loss before the first step costs a third of this at most, and 2 % as a rule
)
FORWARD_SHARE = 0.5  # of a training step, with room to spare, as long as no evaluation was ever timed
FIRST_PREVIEW_SECONDS = 0.3  # a guess as long as no preview was ever timed; its deadline keeps it within the budget
LAST_PREVIEW_SECONDS = 0.15  # the last preview of a short battle, which its budget does not cover


class Looks:
    """One battle's. `held_out`: its rows that are not trained; `rates`: what looking cost so far, kept from battle to
    battle; `room`: tokens of a pass at most; `asking`: whether anybody wants answers."""

    def __init__(
        self, plan: BattlePlan, held_out: Lesson, rates: dict[str, float], share: float, room: int, asking: bool
    ):
        sequences = held_out.sequences
        self.packs = held_out.packs(room, plan.settings.packing)
        self.questions = questions(plan) if asking else []
        self._tokens = sum(len(tokens) for tokens, _ in sequences) + held_out.said
        self._to_train = plan.tokens
        self._any = bool(held_out.said or sum(len(pack.labels_N) for pack in self.packs))
        self._budget, self._trained_tokens = TimeBudget(rates, share), 0

    def trained(self, seconds: float, tokens: int) -> None:
        """One more optimizer step."""
        self._budget.train(seconds)
        self._trained_tokens += tokens

    @property
    def cheap_before(self) -> bool:
        """Whether the battle is so long that nobody minds an evaluation before its first step."""
        return self._any and self._tokens <= BEFORE_SHARE * self._to_train

    def validation_due(self, last: bool) -> bool:
        guess = FORWARD_SHARE * self._tokens * self._budget.trained / max(1, self._trained_tokens)
        return self._any and (last or self._budget.affords("validation", self._tokens, guess))

    def validating(self) -> AbstractContextManager[None]:
        return self._budget.spending("validation", self._tokens)

    def preview_due(self, last: bool) -> bool:
        if not self.questions:
            return False
        return last or self._budget.affords("preview", most_tokens(self.questions), FIRST_PREVIEW_SECONDS)

    @contextmanager
    def previewing(self, last: bool) -> Iterator[Callable[[], bool]]:
        """Gives a function that says when the time for the answers is over."""
        deadline = time.perf_counter() + max(LAST_PREVIEW_SECONDS if last else 0.0, self._budget.left)
        with self._budget.spending("preview", most_tokens(self.questions)):
            yield lambda: time.perf_counter() >= deadline
