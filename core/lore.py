"""The dictionary between the two tongues: role-playing words, what each means, and what the field calls it."""

import re

WORDS = {  # the word of the realm: its meaning or formula
    "Hero": "model being trained",
    "Quest": "training data file",
    "Battle": "training run of one quest",
    "Damage": "1 / loss",
    "Level": "1 + global step // 1000",
    "Strain": "loss - floor (10th percentile of the school's validation losses)",
    "Effort": "sum of strain over steps",
    "Blessing": "validation of a battle",
    "Experience": "effort x blessing quality",
    "Champion": "best checkpoint by evaluation",
    "Vault": "checkpoint storage",
    "Tavern": "web pages",
    "Oracle": "inference server",
    "School": "learning paradigm",
    "Skill": "curriculum domain",
    "Temple": "validation of battles, from weights and data only",
    "Arena": "small agents trained and compared side by side",
    "Duel": "two answers compared blind",
    "Dice": "rolls that scale each update",
}

PLAIN = {  # the word of the realm: the word of the field, which stands in its place when somebody wants plain pages
    "Hero": "model",
    "Quest": "training file",
    "Battle": "training run",
    "Damage": "1 / loss",
    "Strain": "loss above floor",
    "Effort": "summed loss above floor",
    "Blessing": "verdict",
    "Experience": "training credit",
    "XP": "training credit",
    "Champion": "best checkpoint",
    "Vault": "checkpoint store",
    "Tavern": "web UI",
    "Oracle": "chat server",
    "School": "training method",
    "Skill": "task",
    "Temple": "validation",
    "Arena": "agent lab",
    "Duel": "comparison",
    "Dice": "random update scaling",
    "blessed": "passed",
    "cursed": "failed",
}

PHRASES = {  # where the words alone would not make a heading
    "Battle": "Training",
    "Vault": "Checkpoints",
    "Oracle": "Chat",
    "Schools": "Methods",
    "Battle log": "Event log",
    "No battle now": "Nothing is being trained",
    "No battle yet": "Nothing was trained yet",
    "The battle is on": "Training is on",
    "The hero wakes up": "The model is being loaded",
    "The hero rests.": "Nothing is being trained.",
    "The realm is asleep": "Nothing is running",
    "Nobody has entered the ring.": "Nothing is being compared.",
    "The door": "Log in",
    "The door is locked": "Log in",
}

_PLURALS = {
    f"{word[:-1]}ies" if word[-1] == "y" else f"{word}{'e' if word[-1] == 'o' else ''}s": word for word in PLAIN
}
_KNOWN = {word.lower(): word for word in PLAIN} | {plural.lower(): word for plural, word in _PLURALS.items()}
_WORD = re.compile(rf"(?<![\w/.-])({'|'.join(sorted(_KNOWN, key=len, reverse=True))})(?![\w/]|\.\w)", re.IGNORECASE)
_BEGINS = re.compile(r"(?:\A|[.!?:·])\s*\Z")

TITLES = (
    (0, "Hatchling"),
    (1_000, "Apprentice"),
    (10_000, "Journeyman"),
    (50_000, "Veteran"),
    (100_000, "Master"),
    (200_000, "Legend"),
)

ZONES = ((0.1, "recovery"), (0.3, "productive"), (0.5, "stretch"))


def level(global_step: int) -> int:
    """1 + global_step // 1000."""
    return 1 + global_step // 1000


def title(global_step: int) -> str:
    """The highest title whose step count is reached."""
    return [name for steps, name in TITLES if global_step >= steps][-1]


def damage(loss: float | None) -> float | None:
    """1 / loss; None where there is no loss yet or it is zero."""
    return 1.0 / loss if loss else None


def strain(loss: float | None, floor: float | None) -> float | None:
    """loss - floor, both in nats per token; None while either is unknown."""
    return None if loss is None or floor is None else loss - floor


def zone(value: float | None) -> str | None:
    """recovery < 0.1 <= productive < 0.3 <= stretch < 0.5 <= overload."""
    if value is None:
        return None
    return next((name for bound, name in ZONES if value < bound), "overload")


def plain(text: str) -> str:
    """`text` in the words of the field: "The hero rests." -> "Nothing is being trained."; what is in no dictionary stays."""
    phrase = PHRASES.get(text.strip())
    return _WORD.sub(_translated, text) if phrase is None else text.replace(text.strip(), phrase)


def _translated(found: re.Match) -> str:
    known = _KNOWN[found[0].lower()]
    word = PLAIN[known]
    if found[0].lower() != known.lower():
        word = f"{word}s"
    begins = found[0][0].isupper() and _BEGINS.search(found.string[: found.start()])
    return word[0].upper() + word[1:] if begins else word
