"""Lessons in which the hero goes on from the prompts of its rows in its own words, in a share of the steps.

Whoever imitates only what others wrote never learns what to do after its own mistakes (Agarwal et al. 2024, "On-Policy Distillation
of Language Models"). It knows no loss.
"""

from math import floor

from core.battle import BattlePlan
from core.forge.answers import dice, prompt_of, said, spoken
from core.forge.lesson import FileLessons, Learner, Lesson, Newest
from core.forge.step_facts import Mean


class OwnWords(FileLessons):
    """`share`: of the steps, evenly; `most`: tokens of an answer. A row without a prompt stays as it is."""

    def __init__(self, plan: BattlePlan, learner: Learner, share: float, most: int):
        super().__init__(plan)
        self._learner, self._share, self._most, self._newest = learner, share, most, Newest()

    def at(self, step: int) -> Lesson:
        own = floor((step + 1) * self._share) > floor(step * self._share)
        return self._newest.of(step, self._spoken) if own else super().at(step)

    def _spoken(self, step: int) -> Lesson:
        plan, rows = self._plan, self._plan.rows_of(step)
        prompts = {row: prompt for row in rows if len(prompt := prompt_of(plan, row))}
        stream = dice(plan, step)
        answers = (
            said(self._learner, list(prompts.values()), plan.words.stop_ids, self._most, stream) if prompts else []
        )
        sequences = [spoken(prompt, answer) for prompt, answer in zip(prompts.values(), answers, strict=True)]
        sequences += plan.sequences_of([row for row in rows if row not in prompts])
        sequences += plan.replay.sequences(step) if plan.replay else []
        told = {"answer_tokens": Mean(float(sum(map(len, answers))), len(answers))} if answers else {}
        return Lesson(sequences, told=told)
