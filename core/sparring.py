"""Sparring: the resident hero answers a quest, and what it got wrong goes into the inbox as another. No weight moves.

It holds no place in a quest: killed at any instant it begins anew, with the same weights and so with the same answers, and
corrections that are in the realm already are not handed in twice. What they look like is core/corrections.py.
"""

import hashlib
import heapq
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any, Protocol

import orjson

from core.between_steps import Resident
from core.corrections import FORM, SCHOOL, Question, asking, corrections, question_of
from core.durable import write_json
from core.errors import UserError
from core.forge import answers
from core.forge.optimizers import weights_to_use
from core.formats import BadRow
from core.formats import form as form_named
from core.graders import GraderFailed
from core.inbox import drop, safe_stem
from core.ledger import Ledger
from core.paths import RealmPaths
from core.preparation import LeftEarly, Preparation
from core.quest import Quest
from core.quest_file import read_rows
from core.rendering import Renderer
from core.train import HeroTrainer
from core.training_queue import TrainingQueue
from core.wishes import Ending

log = logging.getLogger(__name__)

ORIGIN, PRIORITY = "mirror", "high"
HANDED_ON = ("epochs", "batch_size", "seed", "optimizer_state", "profile")  # from a quest's settings to its corrections
WAITING_OR_TRAINED = ("queued", "processing", "recently_completed")


class Sparring(Resident, Protocol):
    """What is needed of the worker whose hero answers."""

    trainer: HeroTrainer
    queue: TrainingQueue

    def renderer(self, max_length: int) -> Renderer: ...


@dataclass
class Marked:
    """What `asked` answers were worth. `known`: a question that was answered right; `problems`: why others were not marked."""

    asked: int
    wrong: list[tuple[Question, str]] = field(default_factory=list)
    known: Question | None = None
    problems: list[str] = field(default_factory=list)


def spar(worker: Sparring, quest: Quest) -> Ending | None:
    """Finish `quest`, its corrections handed in; or how it is to be left."""
    worker.enter("evaluation")
    try:
        with Preparation(worker, quest, "sparring") as progress:
            questions = list(_questions(quest, progress))
            marked = _marked(_answered(worker, quest, questions, progress), progress)
    except LeftEarly as left:
        return left.ending
    asked, wrong, problems = marked.asked, marked.wrong, marked.problems
    name = _hand_in(worker, quest, b"".join(map(_line, corrections(wrong, marked.known)))) if wrong else None
    told = {"asked": asked, "wrong": len(wrong), "corrections": name}
    outcome = f"{len(wrong):,} of {asked:,} wrong"
    if problems:
        told |= {"not_marked": len(problems), "problem": problems[0]}
        outcome += f", {len(problems):,} not marked"
        log.warning("%d of %d answers could not be marked and are left out; %s", len(problems), asked, problems[0])
    outcome += f"; corrections are {name}" if name else "; nothing to mend"
    write_json(quest.companion(".report.json"), {**quest.report, "sparring": told})
    worker.queue.finish(quest, outcome)
    worker.ledger.event("trainer", "sparred", f"{quest.stem}: {outcome}.", quest=quest.id, **told)
    return None


def _questions(quest: Quest, progress: Preparation) -> Iterator[Question]:
    """What is asked: of a long file those rows whose seeded hashes are the smallest, in the file's order."""
    card, settings, hasher = quest.card, quest.settings, hashlib.sha256()
    salt, form = str(settings.seed).encode(), asking(form_named(card["form"]))

    def keyed() -> Iterator[tuple[bytes, int, Any]]:
        for number, line, row in read_rows(quest.path, form, settings.columns, hasher):
            progress(0.0)
            if not isinstance(row, BadRow):
                yield hashlib.blake2b(line, digest_size=8, key=salt).digest(), number, row

    chosen = heapq.nsmallest(settings.schools.mirror.prompts, keyed())
    if hasher.hexdigest() != card["sha256"]:
        raise UserError(
            f"{quest.path.name}: was altered after it was accepted; drop it into inbox/ again as a new quest"
        )
    for _, _, row in sorted(chosen, key=lambda entry: entry[1]):
        yield question_of(row)


def _answered(
    worker: Sparring, quest: Quest, questions: list[Question], progress: Preparation
) -> list[tuple[Question, str]]:
    """The questions that the chat template can put, each with what the hero says to it."""
    settings, trainer = quest.settings, worker.trainer
    renderer = worker.renderer(settings.max_length)
    rendered = renderer.render(question.conversation for question in questions)
    put = [(question, row) for question, row in zip(questions, rendered, strict=True) if not isinstance(row, BadRow)]
    prompts, _ = answers.asked(row for _, row in put)
    rooms = [settings.schools.mirror.max_new_tokens] * len(prompts)
    numbers = trainer.numbers_of(settings)
    with numbers, weights_to_use(trainer.optimizer):
        said = answers.words(trainer.model, renderer, prompts, rooms, progress)
    return [(question, words) for (question, _), words in zip(put, said, strict=True)]


def _marked(answered: list[tuple[Question, str]], progress: Preparation) -> Marked:
    """Raises GraderFailed where none of the answers can be marked."""
    marked = Marked(len(answered))
    for question, said in answered:
        progress(1.0)  # a grader may be slow
        try:
            is_right = question.is_answered_by(said)
        except GraderFailed as problem:
            marked.problems.append(str(problem))
            continue
        if not is_right:
            marked.wrong.append((question, said))
        elif marked.known is None:
            marked.known = question
    if marked.problems and len(marked.problems) == marked.asked:
        raise GraderFailed(f"none of the {marked.asked} answers could be marked; {marked.problems[0]}")
    return marked


def _line(row: dict[str, Any]) -> bytes:
    return orjson.dumps(row) + b"\n"


def _hand_in(worker: Sparring, quest: Quest, content: bytes) -> str:
    """The quest of these corrections, by name: dropped now, or before the hero was killed."""
    stem = safe_stem(f"sparring_{quest.stem}")
    if known := _in_the_realm(worker.paths, worker.ledger, stem, content):
        return known
    settings, appeared = quest.settings, []
    sidecar = {name: getattr(settings, name) for name in HANDED_ON}
    sidecar |= {"priority": PRIORITY, "school": SCHOOL, "origin": ORIGIN, "schools": settings.schools.model_dump()}
    if skill := quest.card.get("skill"):
        sidecar["skill"] = skill
    with drop(worker.paths, stem, PRIORITY, sidecar, appeared.append) as file:
        file.write(content)
    return f"quest {appeared[0].stem}"


def _in_the_realm(paths: RealmPaths, ledger: Ledger, stem: str, content: bytes) -> str | None:
    """Where this very content is already. It is looked for in the order in which files move on, so that none slips by."""
    for folder in (paths.inbox_for(PRIORITY), paths.claims):
        for path in folder.glob(f"{escape(stem)}*.jsonl"):
            if _holds(path, content):
                return f"quest {path.stem}"
    marks = ", ".join("?" * len(WAITING_OR_TRAINED))
    row = ledger.one(
        f"SELECT id, stem FROM quests WHERE sha256=? AND form=? AND state IN ({marks})",
        (hashlib.sha256(content).hexdigest(), FORM, *WAITING_OR_TRAINED),
    )
    return row and f"quest {row['id']} ({row['stem']})"


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except FileNotFoundError:  # it moved on
        return False
