"""What the Mirror asks, when an answer is right, and the rows that a wrong one becomes. It knows no model and no queue.

A wrong answer becomes three rows of the form `correction`: `spot`, where it is called incorrect; `correct`, where it is asked
once more and the right one given; `confirm`, where the right answer to another question that was missed is given and called correct. So
each of those questions stands once beside either word, which the words of a question alone do not betray.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.formats import Form
from core.graders import OWN, GraderFailed, Task, mark
from core.profiles import undressed
from core.rows import BadRow, Conversation, Message, Problem, Row, Turns, context, is_trained
from core.skills.base import final_answer

SCHOOL, FORM = "mirror", "correction"
JUDGE = "Is that answer correct or incorrect? Answer with one word."
MEND = "That answer is incorrect. Once more:"
CORRECT, INCORRECT = "correct", "incorrect"
NOTHING = "(no answer)"
SHOWN = 200  # characters of a wrong answer at least, and twice as many as the right one has


def is_sparring(facts: Mapping[str, Any]) -> bool:
    """Whether a quest of this `school` and `form` is answered by the hero, not trained."""
    return facts.get("school") == SCHOOL and facts.get("form") != FORM


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and the right answer as it is taught. `task`: for the skill or grader that marks it, if one does."""

    prompt: Turns
    right: Message
    tools: tuple[dict, ...] | None = None
    task: Task | None = None

    @property
    def conversation(self) -> Conversation:
        """Both, of which the answer alone is trained."""
        return Conversation((*self.prompt, self.right), self.tools)

    def is_answered_by(self, said: str) -> bool:
        """By full marks; else by every letter but for space around them, or by the final answer. Raises GraderFailed."""
        said = _words(said)
        if self.task:
            return mark(self.task, said) == 1.0
        right = self.right["content"]
        return said == right.strip() or ((settled := final_answer(said)) is not None and settled == final_answer(right))


def asking(form: Form) -> Form:
    """`form`, of whose rows those are bad that the Mirror cannot ask."""

    def read(values: dict[str, Any]) -> Row:
        row = form.read(values)
        question_of(row)
        return row

    return replace(form, read=read)


def question_of(row: Row) -> Question:
    """Raises BadRow."""
    if isinstance(row, Problem):
        return _problem(row)
    *before, last = row.messages
    if not is_trained(last):
        raise BadRow("messages", "ends with an answer that has train: false, where the right one must stand")
    if last.get("tool_calls"):
        raise BadRow("messages", "ends with a tool call, which is not compared with another", None, "drop the row")
    return Question(context(before), last, row.tools)


def _problem(row: Problem) -> Question:
    task, right = (
        Task(row.prompt[-1]["content"], row.answer, row.skill, row.grader, row.level),
        row.response or row.answer,
    )
    if (row.skill or row.grader in OWN) and not _is_right(task, right):  # others may be slow
        field, by = "response" if row.response else "answer", row.skill or row.grader
        raise BadRow(field, f"is not right by the grader of {by}", right, "write it as the hero would have to say it")
    return Question(context(row.prompt), {"role": "assistant", "content": right}, row.tools, task)


def _is_right(task: Task, said: str) -> bool:
    try:
        return mark(task, said) == 1.0
    except GraderFailed:
        return False


def corrections(wrong: Sequence[tuple[Question, str]], known: Question | None = None) -> Iterator[dict[str, Any]]:
    """The rows for questions and their wrong answers. `known`: one that was answered right, where only one was missed."""
    for place, (question, said) in enumerate(wrong):
        shown = {"role": "assistant", "content": _shown(said, question.right["content"]), "train": False}
        yield _row("spot", question, *question.prompt, shown, _ask(JUDGE), _say(INCORRECT))
        again = f"{MEND}\n\n{question.prompt[-1]['content']}"
        yield _row("correct", question, *question.prompt, shown, _ask(again), question.right)
        other = wrong[(place + 1) % len(wrong)][0] if len(wrong) > 1 else known or question
        yield _row("confirm", other, *other.prompt, other.right, _ask(JUDGE), _say(CORRECT))


def _words(said: str) -> str:
    """An answer without its thoughts, whether it or its prompt has opened them, and without a profile's dress."""
    _, closed, after = said.rpartition("</think>")
    return undressed(after if closed else said)


def _shown(said: str, right: str) -> str:
    """A wrong answer's words; of one that never came to any that there are none, of one that never ended its beginning."""
    said, most = _words(said), max(SHOWN, 2 * len(right))
    if not said or said.startswith("<think>"):
        return NOTHING
    return said if len(said) <= most else f"{said[:most].rstrip()} …"


def _row(kind: str, question: Question, *turns: Message) -> dict[str, Any]:
    return {"messages": turns, **({"tools": question.tools} if question.tools else {}), "sparring": kind}


def _ask(text: str) -> Message:
    return {"role": "user", "content": text}


def _say(text: str) -> Message:
    return {"role": "assistant", "content": text}
