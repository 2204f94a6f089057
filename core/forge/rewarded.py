"""Lessons of answers that others wrote and marked: each with its advantage over the others to the same prompt.

An answer whose like all have its reward teaches nothing and costs no pass. It knows no model and no loss.
"""

from dataclasses import replace

from core.advantages import compared
from core.battle import BattlePlan
from core.forge.lesson import FileLessons, Lesson
from core.forge.packing import Beside
from core.forge.step_facts import Mean


class RewardedLessons(FileLessons):
    """The parent's log-probabilities stand for those that the answers were written with."""

    def __init__(self, plan: BattlePlan, scale: str):
        super().__init__(plan)
        self._rewards_R = plan.prepared.values
        self._compared = compared(self._rewards_R, plan.prepared.groups, scale)

    def at(self, step: int) -> Lesson:
        rows = self._plan.rows_of(step)
        alike = [bool(self._compared.alike_R[row]) for row in rows]
        lesson = self._of([row for row, skipped in zip(rows, alike, strict=True) if not skipped])
        told = {"reward": self._rewards_R[rows].sum(dtype=float), "degenerate": sum(alike)}
        return replace(lesson, told={name: Mean(float(total), len(rows)) for name, total in told.items()})

    def held_out(self) -> Lesson:
        return self._of([row for row in self._plan.held_out_rows.tolist() if not self._compared.alike_R[row]])

    def _beside(self, row: int, number: int) -> Beside:
        known = self._plan.references.of(number)
        return {"old": known, "reference": known, "advantage": float(self._compared.advantages_R[row])}
