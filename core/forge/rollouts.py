"""Lessons that the hero writes itself: it answers the prompts of a step, the answers are marked and compared.

What is drawn follows from seed, quest, step and the weights alone, so a battle that goes on after a kill goes on the same.
It knows no loss.
"""

import logging
from collections.abc import Sequence

import numpy as np

from core.advantages import compared
from core.battle import BattlePlan
from core.forge.answers import dice, prompt_of, said, spoken
from core.forge.evaluate import Evaluation
from core.forge.generate import Answer
from core.forge.lesson import Learner, Lesson, Newest
from core.forge.packing import Beside
from core.forge.references import logps_of
from core.forge.step_facts import Mean
from core.graders import GraderFailed, mark
from core.school_config import ChampionSettings

log = logging.getLogger(__name__)


class Rollouts:
    """The lessons of a plan whose rows are problems. The learner's companion, if it has one, is the parent."""

    def __init__(self, plan: BattlePlan, settings: ChampionSettings, learner: Learner):
        self._plan, self._settings, self._learner = plan, settings, learner
        self._warned, self._newest = False, Newest()

    def at(self, step: int) -> Lesson:
        return self._newest.of(step, self._drawn)

    def _drawn(self, step: int) -> Lesson:
        settings, rows = self._settings, self._plan.rows_of(step)
        asked = [row for row in rows for _ in range(settings.num_generations)]
        prompts = [prompt_of(self._plan, row) for row in asked]
        answers = said(self._learner, prompts, self._plan.words.stop_ids, settings.max_new_tokens,
                       dice(self._plan, step), settings.temperature)  # fmt: skip
        rewards_A, problems = self._marks(asked, answers)
        if len(problems) == len(asked):
            raise GraderFailed(f"none of the {len(asked)} answers of a step could be marked; {problems[0]}")
        found = compared(rewards_A, np.repeat(np.arange(len(rows)), settings.num_generations), settings.scale_rewards)
        kept = np.flatnonzero(~found.alike_R).tolist()
        sequences = [spoken(prompts[place], answers[place]) for place in kept]
        stops = self._plan.words.stop_ids
        told = {
            "reward": Mean(float(rewards_A.sum()), len(asked)),
            "reward_std": Mean(float(found.spread_G.sum()), len(rows)),
            "degenerate": Mean(float(found.alike_G.sum()), len(rows)),
            "answer_tokens": Mean(float(sum(map(len, answers))), len(asked)),
            "cut_short": Mean(float(sum(answer[-1] not in stops for answer in answers)), len(asked)),
        } | ({"not_marked": Mean(float(len(problems)), len(asked))} if problems else {})
        beside = self._beside(sequences, [float(found.advantages_R[place]) for place in kept])
        return Lesson(sequences, beside, told=told, loss=1.0 - float(rewards_A.mean()))

    def held_out(self) -> Lesson:
        rows = self._plan.held_out_rows.tolist()
        return Lesson(self._plan.sequences_of(rows), said=len(rows) * self._settings.max_new_tokens)

    def evaluate(self) -> Evaluation | None:
        """The likeliest answers to prompts that are not trained: `accuracy` is their mean reward, `loss` what lacks to 1."""
        rows = self._plan.held_out_rows.tolist()
        if not rows:
            return None
        prompts = [prompt_of(self._plan, row) for row in rows]
        answers = said(self._learner, prompts, self._plan.words.stop_ids, self._settings.max_new_tokens)
        rewards_A, _ = self._marks(rows, answers)
        lacking_A = 1.0 - rewards_A
        return Evaluation(float(lacking_A.mean()), float(rewards_A.mean()), len(rows), lacking_A)

    def _marks(self, rows: Sequence[int], answers: Sequence[Answer]) -> tuple[np.ndarray, list[str]]:
        """The reward of each answer, and what was wrong with those that could not be marked: they get 0."""
        rewards_A, problems = np.zeros(len(rows)), []
        for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            text = self._plan.words.decode(answer, specials=False)
            self._learner.alive()  # a grader may be slow
            try:
                rewards_A[place] = mark(self._plan.prepared.task(row), text)
            except GraderFailed as problem:
                problems.append(f"line {self._plan.prepared.line(row)}: {problem}")
        if problems and not self._warned:
            self._warned = True
            log.warning("%d of %d answers could not be marked and count 0; %s", len(problems), len(rows), problems[0])
        return rewards_A, problems

    def _beside(self, sequences: list[tuple[np.ndarray, np.ndarray]], advantages: list[float]) -> list[Beside]:
        beside: list[Beside] = [{"advantage": advantage} for advantage in advantages]
        parent = self._learner.companion
        if parent is None or not sequences:
            return beside
        with self._learner.context():
            known = logps_of(parent, sequences, self._settings.temperature)
        return [{**own, "reference": logps} for own, logps in zip(beside, known, strict=True)]
