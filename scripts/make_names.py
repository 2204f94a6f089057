"""Writes core/assets/names.txt: names that nobody bears, put together from syllables by rules of our own.

Run it from the checkout: `PYTHONPATH=. python scripts/make_names.py`. The same seed writes the same file.
"""

import random
from pathlib import Path

SEED, COUNT = 20_401, 4_000
SHORTEST, LONGEST = 3, 11
FOLKS = (  # each with the sounds its names begin, go on and end with, and how many syllables they have
    {  # of the coast: open and soft
        "onset": ["l", "m", "n", "r", "s", "v", "d", "th", "l", "m", "el", "br"],
        "vowel": ["a", "e", "i", "o", "a", "e", "ia"],
        "coda": ["", "", "", "", "n", "l", "r"],
        "end": ["a", "ia", "en", "is", "el", "ara", "ine", "o", "eth"],
        "syllables": (1, 1, 2),
    },
    {  # of the hills: hard and short
        "onset": ["b", "d", "g", "k", "t", "br", "gr", "dr", "h", "th", "st", "kr", "r"],
        "vowel": ["a", "o", "u", "e", "i", "o"],
        "coda": ["n", "r", "l", "rn", "k", "ld", "", "nd"],
        "end": ["ar", "ek", "un", "or", "in", "ak", "old", "us"],
        "syllables": (0, 1, 1),
    },
    {  # of the plains: long, with a lilt
        "onset": ["s", "j", "k", "h", "m", "t", "n", "y", "sh", "r", "z", "b"],
        "vowel": ["a", "i", "u", "o", "e", "ai", "a"],
        "coda": ["", "", "", "m", "n", "sh", ""],
        "end": ["iro", "ami", "an", "une", "ari", "esh", "oki", "ela"],
        "syllables": (1, 2, 2),
    },
    {  # of the woods: whispering
        "onset": ["w", "f", "c", "qu", "l", "ph", "sw", "fl", "g", "ch", "v", "p"],
        "vowel": ["i", "e", "y", "ae", "o", "i"],
        "coda": ["", "l", "nn", "s", "r", "", "w"],
        "end": ["yn", "ow", "iel", "ith", "ene", "ry", "ilde", "ian"],
        "syllables": (0, 1, 1),
    },
)


def name(draw: random.Random) -> str:
    """One name of one folk: syllables of onset, vowel and coda, and an end."""
    folk = draw.choice(FOLKS)
    parts = [
        draw.choice(folk["onset"]) + draw.choice(folk["vowel"]) + draw.choice(folk["coda"])
        for _ in range(draw.choice(folk["syllables"]))
    ]
    parts.append(draw.choice(folk["onset"]) + draw.choice(folk["end"]))
    return "".join(parts)


def can_be_said(word: str) -> bool:
    """Neither three letters of a kind in a row, nor one letter thrice, nor too long."""
    vowels = [letter in "aeiouy" for letter in word]
    runs = any(len(set(vowels[at : at + 3])) == 1 for at in range(len(word) - 2))
    return SHORTEST <= len(word) <= LONGEST and not runs and not any(letter * 2 in word for letter in "hjkquvwxyiau")


def names() -> list[str]:
    """So many different names, in the order in which they were drawn."""
    draw, found = random.Random(SEED), {}
    while len(found) < COUNT:
        word = name(draw)
        if can_be_said(word):
            found[word] = None
    return list(found)


if __name__ == "__main__":
    target = Path(__file__).resolve().parent.parent / "core" / "assets" / "names.txt"
    target.write_text("".join(f"{word}\n" for word in names()))
    print(f"{target.name}: {COUNT} names")
