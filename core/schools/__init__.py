"""The schools by name, with what they teach; importing this imports no torch. A school's loss is in its own module."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from core.errors import UserError
from core.formats import form as form_named

CONVERSATIONS = ("messages", "conversations", "alpaca", "completion", "question", "text")


@dataclass(frozen=True)
class SchoolCard:
    """A school as the pages show it. `method`: what the field calls it; `forms`: of the rows that it teaches from."""

    name: str
    title: str
    motto: str
    rows: str
    method: str
    forms: tuple[str, ...]


SCHOOLS = {
    card.name: card
    for card in (
        SchoolCard(
            "scribe",
            "Scribe",
            "Copy the masters until the words are yours.",
            "conversations and texts: messages, conversations, instruction/output, prompt/completion, "
            "prompt/response, question/answer, text",
            "supervised fine-tuning",
            CONVERSATIONS,
        ),
        SchoolCard(
            "mirror",
            "Mirror",
            "Look at your own words, and mend them.",
            "conversations that end in the right answer, or prompt/answer with a skill or a grader: the hero answers, and each wrong "
            "answer becomes three rows that it is then taught, messages with sparring: spot, correct or confirm",
            "self-correction",
            ("correction", "problem", *(form for form in CONVERSATIONS if form != "text")),
        ),
        SchoolCard(
            "judge",
            "Judge",
            "Of two answers, know the better one.",
            "preferences: prompt/chosen/rejected, or label true/false beside a conversation",
            "direct preference optimisation (DPO)",
            ("preference", "label"),
        ),
        SchoolCard(
            "champion",
            "Champion",
            "Fight for the reward that can be checked.",
            "prompt/answer with a skill or a named grader, prompt/response/reward",
            "reinforcement learning with verifiable rewards",
            ("problem", "reward"),
        ),
        SchoolCard(
            "whisper",
            "Whisper",
            "Listen to a greater one, and think as it thinks.",
            "conversations and texts, and a teacher of the same tokenizer; or conversations, or prompts alone, and a server that "
            "answers them",
            "distillation",
            (*CONVERSATIONS, "prompt"),
        ),
        SchoolCard(
            "oracle",
            "Oracle",
            "Learn most where you are surprised.",
            "conversations and texts, as the Scribe takes",
            "surprise-weighted fine-tuning",
            CONVERSATIONS,
        ),
    )
}
# Whose rows alone say what is to be learned, so that a cooldown can go on with them.
COOLED = ("scribe", "mirror", "oracle")
IMITATING = ("scribe", "mirror", "oracle", "whisper")  # what their rows say is good; it may be replayed


def schools() -> list[SchoolCard]:
    """The six, in the order of the book."""
    return list(SCHOOLS.values())


def school(name: str, *settings: Any, **options: Any) -> Any:
    """The school's working part, as core/schools/base.py describes it, loaded on first use (this imports torch)."""
    return import_module(f"core.schools.{SCHOOLS[name].name}").School(*settings, **options)


def school_for(form: str, wished: str) -> str:
    """Which school teaches rows of `form`: the one that is `wished`; where the Scribe is and cannot, the form's own. Raises
    UserError."""
    able = [card.name for card in SCHOOLS.values() if form in card.forms]
    if wished not in able and wished != "scribe":
        takes = ", ".join(SCHOOLS[wished].forms) or "none from files"
        raise UserError(
            f"the school {wished} teaches from rows of the forms {takes}; these are of the form {form}, for {' or '.join(able)}"
        )
    return wished if wished in able else form_named(form).school
