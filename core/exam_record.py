"""The ledger's rows of exams: written from the manifest of the checkpoint that they were held for, read for pages.

A checkpoint that is recorded again, after a crash or because its training was repeated, gives each row once. It holds no exam.
"""

from typing import Any, Protocol

from core.ledger import Ledger
from core.mastery import Score

NEWEST = 20  # rows of a level among which its last score is looked for
TOLD = {  # outcome of an exam: its event
    "mastered": ("level_up", "info", "is mastered"),
    "lost": ("level_lost", "warning", "is lost and counts as unmastered again"),
}


class Saved(Protocol):
    """What is needed of a manifest."""

    hero: str
    campaign: str
    step: int
    quest: int | None
    created: float
    exams: list[dict[str, Any]]
    branch: str | None
    id: str


def record_exams(ledger: Ledger, saved: Saved) -> None:
    """Tell the ledger what was asked of a checkpoint's weights, and of levels that were won or lost by it. What was asked on
    a branch stays in its manifest, for the hero was never there."""
    if saved.branch or not saved.exams or ledger.one("SELECT 1 FROM exams WHERE checkpoint=?", (saved.id,)):
        return
    where = {name: getattr(saved, name) for name in ("hero", "campaign", "quest", "step", "created")}
    with ledger.together():
        for seq, exam in enumerate(saved.exams):
            ledger.add("exams", checkpoint=saved.id, seq=seq, **where, **exam)
            if exam["outcome"]:
                _tell(ledger, saved, exam)


def _tell(ledger: Ledger, saved: Saved, exam: dict[str, Any]) -> None:
    code, level, what = TOLD[exam["outcome"]]
    text = f"{saved.hero}: {exam['skill']} level {exam['level']} {what}: {told(Score(exam['right'], exam['asked']))}."
    facts = {"skill": exam["skill"], "skill_level": exam["level"], "checkpoint": saved.id, "quest": saved.quest}
    ledger.event("trainer", code, text, level, **facts)


def told(score: Score) -> str:
    """A score with its 95 % interval, as people read it."""
    low, high = score.interval()
    return f"{score.right} of {score.asked} fresh problems right ({100 * low:.1f} to {100 * high:.1f} %)"


def curve(ledger: Ledger, hero: str, skill: str, limit: int = 400) -> list[dict[str, Any]]:
    """The newest exams and canaries of a skill, oldest first."""
    rows = ledger.all(
        "SELECT checkpoint, step, level, right, asked, look, kind, outcome, created FROM exams "
        "WHERE hero=? AND skill=? ORDER BY id DESC LIMIT ?",
        (hero, skill, limit),
    )
    return rows[::-1]


def newest(ledger: Ledger, hero: str, skill: str, level: int) -> list[dict[str, Any]]:
    """The last rows of a level, newest first: that of an exam that was held to its end before that of its canaries."""
    return ledger.all(
        "SELECT checkpoint, step, right, asked, kind FROM exams WHERE hero=? AND skill=? AND level=? ORDER BY id DESC LIMIT ?",
        (hero, skill, level, NEWEST),
    )
