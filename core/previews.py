"""Previews: which held-out prompts the hero answers while it trains, and its answers as words. It knows no model.

The choice follows from the rows' keys alone, so that the same prompts are answered all through the battle. A prompt is
what stands before the first trained token of a row, its expected answer the trained tokens that follow.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from core.battle import BattlePlan
from core.graders import GraderFailed, Task, mark
from core.rendering import Renderer
from core.skills import Problem, skill, skills
from core.skills.base import final_answer

QUESTIONS = 3
ANSWER_TOKENS, MARGIN_TOKENS = 64, 8
LONG_PROMPT = 256  # tokens; shorter ones are chosen first, since they are answered sooner
SHOWN_CHARACTERS = 600
_TURN = re.compile(r"<\|im_start\|>(?:user|tool)\n(.*?)(?=<\|im_end\|>|<\|im_start\|>|\Z)", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """A held-out prompt and the answer that the file gives, both in tokens. `row`: its number among the good rows; `task`: what
    marks an answer, where the file says so instead of giving one. `is_right`: whether the expected answer is known to be good."""

    row: int
    prompt: np.ndarray
    expected: np.ndarray
    task: Task | None = None
    is_right: bool = True


@dataclass(frozen=True)
class Preview:
    """One prompt answered. `score`: 1.0 for the expected answer, by the grader where the row or the quest has one, else by its
    words; None for an answer that was cut short, and where none is expected, since the file gives only rewarded ones."""

    prompt: str
    answer: str
    expected: str
    score: float | None


def questions(plan: BattlePlan, count: int = QUESTIONS) -> list[Question]:
    """The prompts of the held-out rows with the smallest keys, each different row once; none where nothing is held out.
    Those whose answer is labelled bad are passed over."""
    rows = [int(row) for row in plan.held_out_rows]
    if plan.form == "label":
        rows = [row for row in rows if plan.prepared.values[row] > 0]
    distinct = {int(plan.prepared.keys[row]): row for row in reversed(rows)}
    ask = partial(_problem, plan) if plan.form == "problem" else partial(_question, plan)
    found = [ask(distinct[key]) for key in sorted(distinct)]
    found.sort(key=lambda question: len(question.prompt) > LONG_PROMPT)
    return [question for question in found if question.task or len(question.expected)][:count]


def _problem(plan: BattlePlan, row: int) -> Question:
    tokens, _ = plan.prepared.sequences(row)[0]
    return Question(row, np.asarray(tokens, np.int64), np.empty(0, np.int64), plan.prepared.task(row))


def _question(plan: BattlePlan, row: int) -> Question:
    """Of a plain text, which has no prompt, the first half is one."""
    tokens, trained = plan.prepared.sequences(row)[0]
    first = int(trained.argmax()) or max(1, len(tokens) // 2)
    run = trained[first:]
    end = len(tokens) if run.all() else first + int(run.argmin())
    prompt, expected = (np.asarray(part, np.int64) for part in (tokens[:first], tokens[first:end]))
    return Question(row, prompt, expected, is_right=plan.form != "reward")


def most_tokens(asked: Sequence[Question]) -> int:
    """Tokens that the answers may have: a little more than the expected ones, within reason."""
    if any(question.task for question in asked):
        return ANSWER_TOKENS
    return min(ANSWER_TOKENS, MARGIN_TOKENS + max(len(question.expected) for question in asked))


def preview(question: Question, answer: Sequence[int], renderer: Renderer, skill_name: str | None) -> Preview:
    """The hero's `answer` in words, judged."""
    wanted = question.expected[:ANSWER_TOKENS].tolist()
    ended = bool(answer) and answer[-1] in renderer.stop_ids
    if question.task:
        return _marked(question, renderer.decode(answer, specials=False), ended, renderer)
    said, expected = (renderer.decode(tokens, specials=False).strip() for tokens in (answer, wanted))
    prompt, shown = _question_text(renderer.decode(question.prompt)), said if ended else f"{said} …"
    if not question.is_right:
        return Preview(prompt, shown, "", None)
    return Preview(
        prompt=prompt,
        answer=shown,
        expected=expected if len(wanted) == len(question.expected) else f"{expected} …",
        score=_score(skill_name, said, expected) if ended else _agreement(answer, wanted),
    )


def _marked(question: Question, said: str, ended: bool, renderer: Renderer) -> Preview:
    """An answer to a problem; the expected one is what its grader compares with."""
    try:
        score = mark(question.task, said) if ended else None
    except GraderFailed:
        score = None
    asked, said = _question_text(renderer.decode(question.prompt)), said.strip()
    return Preview(asked, said if ended else f"{said} …", question.task.answer, score)


def _agreement(answer: Sequence[int], wanted: Sequence[int]) -> float | None:
    """Of an answer that did not end: whether it is the expected one as far as that was shown."""
    return float(list(answer[: len(wanted)]) == wanted) if len(answer) >= len(wanted) else None


def _score(skill_name: str | None, said: str, expected: str) -> float:
    """By the skill's grader where it can judge by final answers, else whether the words are the same."""
    answer = final_answer(expected) if skill_name and skill_name.upper() in skills() else None
    return (
        float(said == expected) if answer is None else skill(skill_name).grade(Problem("", answer, 0, skill_name), said)
    )


def _question_text(prompt: str) -> str:
    """The last turn that is to be answered, without the marks of the template; a text's end where there are none."""
    turns = _TURN.findall(prompt)
    text = (turns[-1] if turns else prompt).strip()
    return text if len(text) <= SHOWN_CHARACTERS else "… " + text[-SHOWN_CHARACTERS:]
