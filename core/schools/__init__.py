"""The schools by name, with what they teach; importing this imports no torch. A school's loss is in its own module."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class SchoolCard:
    """A school as the pages show it. `method`: what the field calls it."""

    name: str
    title: str
    motto: str
    rows: str
    method: str


SCHOOLS = {
    "scribe": SchoolCard(
        "scribe",
        "Scribe",
        "Copy the masters until the words are yours.",
        "conversations and texts: messages, conversations, instruction/output, prompt/completion, "
        "prompt/response, question/answer, text",
        "supervised fine-tuning",
    ),
}

TO_COME = {  # their rows are understood already, and refused with the reason that nobody teaches them yet
    card.name: card
    for card in (
        SchoolCard(
            "mirror",
            "Mirror",
            "Look at your own words, and mend them.",
            "the hero's own answers beside corrected ones",
            "self-correction",
        ),
        SchoolCard(
            "judge",
            "Judge",
            "Of two answers, know the better one.",
            "preferences: prompt/chosen/rejected, or label true/false beside a conversation",
            "direct preference optimisation (DPO)",
        ),
        SchoolCard(
            "champion",
            "Champion",
            "Fight for the reward that can be checked.",
            "prompt/answer with a skill or a named grader, prompt/response/reward",
            "reinforcement learning with verifiable rewards",
        ),
        SchoolCard(
            "whisper",
            "Whisper",
            "Listen to a greater one, and think as it thinks.",
            "prompts with a teacher's probabilities",
            "distillation",
        ),
        SchoolCard(
            "oracle",
            "Oracle",
            "Learn most where you are surprised.",
            "conversations and texts, as the Scribe takes",
            "surprise-weighted fine-tuning",
        ),
    )
}
ALL_SCHOOLS = SCHOOLS | TO_COME


def schools() -> list[SchoolCard]:
    """The schools that teach today."""
    return list(SCHOOLS.values())


def school(name: str, *settings: Any, **options: Any) -> Any:
    """The school's working part, as core/schools/base.py describes it, loaded on first use (this imports torch)."""
    return import_module(f"core.schools.{ALL_SCHOOLS[name].name}").School(*settings, **options)
