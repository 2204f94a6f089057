"""SY, syllacrostics: words to be found by their clues and put together from a bank of syllables; knows nothing about models.

    1. it makes tea sweet (2)            is answered by     {"1": "SUGAR", "2": "TABLE"}
    2. furniture to eat at (2)
    Syllables: TA, SUG, BLE, AR
    Answer as JSON: {"number": "WORD"}.

From level 1 to 50 there are more words (4 to 10), rarer ones, more syllables that belong to none of them (0 to 12), more
oblique clues, and in the end the clues no longer tell how many syllables a word has. Every word gives an equal share of
the score, and an answer is read as a whole: one that names a clue twice, or anything beside the words, earns nothing.
"""

import json
import random
import re
from functools import lru_cache
from typing import NamedTuple

from core.paths import LEXICON
from core.skills.base import Draft, Skill, without_thought

FEWEST_WORDS, MOST_WORDS = 4, 10
MOST_DECOYS = 12
COMMON_WORDS = 140  # those that the first level draws from
OBLIQUE_FROM, COUNTS_UNTIL = 10, 40
_LINE = re.compile(r"\|?\s*(?:(\d+)\s*[|.):]\s*)?([^\W\d_]+)\s*\|?")
_CLUE = re.compile(r"^\d+\. (.+?)(?: \(\d+\))?$", re.MULTILINE)
_HEAD = re.compile(r"\|?\s*number\s*\|\s*word\s*\|?|[|:\s-]+", re.IGNORECASE)


class Word(NamedTuple):
    syllables: tuple[str, ...]
    clue: str
    oblique: str

    @property
    def text(self) -> str:
        return "".join(self.syllables)


class Sy(Skill):
    name = "SY"
    title = "Syllacrostics"
    levels = range(1, 51)

    def draw(self, level: int, rng: random.Random) -> Draft:
        height = (level - 1) / (self.levels[-1] - 1)
        known = lexicon()
        reach = COMMON_WORDS + round(height * (len(known) - COMMON_WORDS))
        count = FEWEST_WORDS + round(height * (MOST_WORDS - FEWEST_WORDS))
        words = rng.sample(known[:reach], count)
        clues = [_clue(word, level, rng) for word in words]
        bank = [syllable for word in words for syllable in word.syllables]
        bank += _decoys(known[:reach], set(bank), round(height * MOST_DECOYS), rng)
        rng.shuffle(bank)
        wanted, written = rng.choice(FORMATS)
        lines = [f"{place}. {clue}" for place, clue in enumerate(clues, 1)]
        lines += [f"Syllables: {', '.join(bank)}", f"Answer as {wanted}."]
        texts = [word.text for word in words]
        return Draft("\n".join(lines), json.dumps(texts, ensure_ascii=False), written(texts))

    def kind(self, prompt: str) -> str:
        return prompt.rpartition("\n")[2]

    def essence(self, prompt: str) -> str | None:
        """The clues, in whatever order they and the syllables come."""
        if not prompt.startswith("1. ") or "\nSyllables: " not in prompt:
            return None
        return "\n".join(sorted(_CLUE.findall(prompt)))

    def grade(self, problem, answer: str) -> float:
        """The share of the words that are right, of an answer as JSON, as a table or as a list."""
        right, said = json.loads(problem.answer), words_of(without_thought(answer))
        if said is None or any(place > len(right) for place in said):
            return 0.0
        return sum(said.get(place, "").upper() == word for place, word in enumerate(right, 1)) / len(right)


def _clue(word: Word, level: int, rng: random.Random) -> str:
    share = max(0, level - OBLIQUE_FROM) / (Sy.levels[-1] - OBLIQUE_FROM)
    text = word.oblique if rng.random() < share else word.clue
    return text if level > COUNTS_UNTIL else f"{text} ({len(word.syllables)})"


def _decoys(words: list[Word], used: set[str], count: int, rng: random.Random) -> list[str]:
    """Syllables of other words; none that the puzzle needs, which would leave two of a kind."""
    decoys: list[str] = []
    while len(decoys) < count:
        syllable = rng.choice(rng.choice(words).syllables)
        if syllable not in used:
            used.add(syllable)
            decoys.append(syllable)
    return decoys


def _as_json(words: list[str]) -> str:
    return json.dumps({str(place): word for place, word in enumerate(words, 1)}, ensure_ascii=False)


def _as_table(words: list[str]) -> str:
    return "\n".join(["number | word", *(f"{place} | {word}" for place, word in enumerate(words, 1))])


FORMATS = (
    ('JSON: {"number": "WORD"}', _as_json),
    ("a table: number | word", _as_table),
    ("a list, one word a line", "\n".join),
)


def words_of(answer: str) -> dict[int, str] | None:
    """The words of an answer by the numbers of their clues; None where it holds anything else, or a number twice."""
    text = answer.strip()
    pairs = _json_pairs(text) if text[:1] in "{[" else _line_pairs(text)
    if not pairs or len(dict(pairs)) != len(pairs):
        return None
    return dict(pairs)


def _json_pairs(text: str) -> list[tuple[int, str]] | None:
    try:
        found = json.loads(text, object_pairs_hook=list, parse_int=str)
    except (ValueError, RecursionError):
        return None
    pairs = found if text[0] == "{" else list(enumerate(found, 1))
    try:
        return [(int(place), str(word)) for place, word in pairs]
    except (TypeError, ValueError):  # nested, or a key that is no number
        return None


def _line_pairs(text: str) -> list[tuple[int, str]] | None:
    lines = [line.strip() for line in text.splitlines()]
    rows = [_LINE.fullmatch(line) for line in lines if not _HEAD.fullmatch(line)]
    if not all(rows):
        return None
    return [(int(row[1]) if row[1] else place, row[2]) for place, row in enumerate(rows, 1)]


@lru_cache(maxsize=1)
def lexicon() -> list[Word]:
    """Every word, the commonest first; syllables in capitals."""
    lines = LEXICON.read_text(encoding="utf-8").splitlines()
    words = []
    for line in lines[1:]:
        syllables, clue, oblique = (part.strip() for part in line.split("|"))
        words.append(Word(tuple(syllables.upper().split("-")), clue, oblique))
    return words


SKILL = Sy()
