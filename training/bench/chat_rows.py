"""Made-up chats with the lengths of real ones: a seeded stream of rows, written for the benches, owned by nobody.

Lengths follow a lognormal distribution by its quantiles, so that few rows have its median and its mean, too.
"""

import math
import random
from collections.abc import Callable, Iterator
from statistics import NormalDist
from typing import Any

MEDIAN_TOKENS, SIGMA = 119, 0.93
SHORTEST = 24
_PEOPLE = [
    "the smith",
    "an old ferryman",
    "our baker",
    "the night watch",
    "a young scribe",
    "the weaver",
    "her brother",
    "the miller",
]
_DEEDS = [
    "repairs",
    "carries",
    "counts",
    "forgets",
    "hides",
    "paints",
    "sells",
    "finds",
    "measures",
    "returns",
    "borrows",
    "weighs",
]
_THINGS = [
    "a lantern",
    "two barrels",
    "the map",
    "seven coins",
    "a broken wheel",
    "the letter",
    "fresh bread",
    "a copper bell",
    "the rope",
]
_PLACES = [
    "near the harbour",
    "behind the mill",
    "at the gate",
    "on the bridge",
    "in the cellar",
    "under the oak",
    "by the well",
]
_TIMES = ["before dawn", "every Monday", "after the rain", "at noon", "in late autumn", "while it snows", "once a year"]


def token_lengths(count: int, longest: int, dice: random.Random) -> list[int]:
    """`count` row lengths between `SHORTEST` and `longest`, shuffled."""
    normal = NormalDist(math.log(MEDIAN_TOKENS), SIGMA)
    lengths = [round(math.exp(normal.inv_cdf((place + 0.5) / count))) for place in range(count)]
    lengths = [min(max(length, SHORTEST), longest) for length in lengths]
    dice.shuffle(lengths)
    return lengths


def sentence(dice: random.Random) -> str:
    text = " ".join(map(dice.choice, (_PEOPLE, _DEEDS, _THINGS, _PLACES, _TIMES)))
    return f"{text[0].upper()}{text[1:]}."


def rows(count: int, longest: int, seed: int, measure: Callable[[dict[str, Any]], int]) -> Iterator[dict[str, Any]]:
    """Rows with `messages`; `measure` says how many tokens a row has."""
    dice = random.Random(seed)
    bare = measure(_row(["x"], 1)) - 2
    words = " ".join(sentence(dice) for _ in range(40)).split()
    per_word = (measure(_row(words, len(words) // 2)) - bare) / len(words)
    for number, length in enumerate(token_lengths(count, longest, dice)):
        wanted = max(2, round((length - bare) / per_word))
        text = f"{number}: {' '.join(sentence(dice) for _ in range(wanted // 8 + 1))}".split()[:wanted]
        yield _row(text, max(1, round(len(text) * dice.uniform(0.15, 0.6))))


def _row(words: list[str], asked: int) -> dict[str, Any]:
    question, answer = " ".join(words[:asked]), " ".join(words[asked:])
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer or "."}]}
