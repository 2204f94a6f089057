"""What every skill is: levels, a generator and a grader; knows nothing about models, tokens or how rows are trained.

A sibling sets `name`, `title` and `levels`, and writes `draw`, which makes one exercise from a random stream, and `essence`,
which says what a prompt comes down to. All randomness comes from that stream, and the stream from skill, level and seed
alone.

One in sixteen problems, by the hash of its essence, is kept for evaluations: no sample, quest or accepted file holds it.
Levels below `open_from` have about 2,000 problems or fewer. Those are closed worlds: nothing is kept back, and being right
there means that the whole level is known.
"""

import hashlib
import random
import re
from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from core.errors import UserError
from core.profiles import undressed

ANSWER_MARK = "Answer:"
# A hero that thinks aloud is graded on what it says afterwards.
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_REDRAWS = 50
_HELD_OUT = 256 // 16  # first bytes of the hash that hold a problem back
_RARE = 20_000  # draws until a level without evaluation problems is called broken


@dataclass(frozen=True)
class Problem:
    """One exercise. `answer` is what counts; `response` is what a hero is taught to say, work included."""

    prompt: str
    answer: str
    level: int
    skill: str
    id: str = ""
    response: str = ""


class Draft(NamedTuple):
    """What `draw` returns: a problem before it is numbered."""

    prompt: str
    answer: str
    response: str


class Skill(ABC):
    name: str
    title: str
    levels: range
    open_from: int = 1

    @abstractmethod
    def draw(self, level: int, rng: random.Random) -> Draft:
        """One exercise of this level, drawn from `rng` and nothing else."""

    @abstractmethod
    def essence(self, prompt: str) -> str | None:
        """A problem of an open level, spelled the same however it is put; None for any other text."""

    def kind(self, prompt: str) -> str:
        """What sort of exercise of its level `prompt` is; a skill whose exercises are all of a sort need not say."""
        return self.name

    def held_out(self, prompt: str) -> bool:
        """Whether `prompt` is a problem that is kept for evaluations."""
        essence = self.essence(prompt)
        return essence is not None and hashlib.sha256(f"{self.name}/{essence}".encode()).digest()[0] < _HELD_OUT

    def grade(self, problem: Problem, answer: str) -> float:
        """1.0 for the right final answer and 0.0 for any other; a sibling may give partial credit."""
        return float(final_answer(answer) == problem.answer)

    def sample(self, level: int, seed: int, count: int = 20) -> list[Problem]:
        """The first `count` problems of a stream that is the same everywhere; a larger count only goes further.

        None of them is kept for evaluations.
        """
        return list(islice(self._stream(level, seed, False), count))

    def evaluation(self, level: int, seed: int, count: int = 20) -> list[Problem]:
        """Like `sample`, of those that are kept for evaluations; of a closed level any of its problems."""
        return list(islice(self._stream(level, seed, level >= self.open_from), count))

    def quest_rows(self, level: int, seed: int, count: int, avoid: Container[str] = ()) -> Iterator[dict[str, Any]]:
        """Rows for a quest file, without the prompts in `avoid`, such as those of an evaluation.

        Fewer than `count` where the level has hardly any other prompts.
        """
        stream = islice(self._stream(level, seed, False), _REDRAWS * count)
        fresh = (problem for problem in stream if problem.prompt not in avoid)
        for problem in islice(fresh, count):
            yield {
                "messages": [
                    {"role": "user", "content": problem.prompt},
                    {"role": "assistant", "content": problem.response},
                ]
            }

    def _stream(self, level: int, seed: int, held_out: bool) -> Iterator[Problem]:
        """Problems without end, for training or `held_out`; one comes back only when new ones have become hard to find."""
        if level not in self.levels:
            first, last = self.levels[0], self.levels[-1]
            raise UserError(f"skill {self.name} has no level {level!r}: choose one from {first} to {last}")
        kind = "evaluation-" if held_out else ""
        rng = random.Random(
            f"{self.name}/{level}/{kind}{seed}"
        )  # a string seeds alike in every process and on every machine
        seen: set[str] = set()
        index = 0
        while True:
            for _ in range(_REDRAWS):
                draft = self._draw(level, rng, held_out)
                if draft.prompt not in seen:
                    break
            seen.add(draft.prompt)
            key = f"{self.name}-{level}-{kind}{seed}-{index}"
            yield Problem(draft.prompt, draft.answer, level, self.name, key, draft.response)
            index += 1

    def _draw(self, level: int, rng: random.Random, held_out: bool) -> Draft:
        drafts = (self.draw(level, rng) for _ in range(_RARE))
        return next(draft for draft in drafts if self.held_out(draft.prompt) == held_out)


def distinct(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Each prompt once: a small world may have fewer problems than were drawn."""
    return tuple({problem.prompt: problem for problem in problems}.values())


def without_thought(text: str) -> str:
    """What a hero says after it has thought aloud, without what a profile puts around it."""
    return undressed(_THOUGHT.sub("", text))


def final_answer(text: str) -> str | None:
    """What a text settles on: the one line marked `Answer:` if it is the last, else the text, if it is a single line.

    Anything else, such as two marked lines or an unmarked list of candidates, has not settled and is None.
    """
    said = without_thought(text)
    lines = said.splitlines() or [""]
    marked = [line for line in lines if line.lstrip().startswith(ANSWER_MARK)]
    if marked == lines[-1:]:
        return lines[-1].strip().removeprefix(ANSWER_MARK).strip()
    return said if len(lines) == 1 and not marked else None
