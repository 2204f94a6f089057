"""SEQ, transforms of sequences of letters; knows nothing about models or quest files.

    swap_ends(k a b d) =               is answered by   d a b k
    sort(drop_first(k d b a)) =        is answered by   a b d

The sequences grow from 3 letters to 12. Levels 1 to 12 bring in one transform each, all of those before stay; from level 13
on, two are applied one after the other, the inner one first, and from level 22 on three.
"""

import random
import re
from collections.abc import Callable
from string import ascii_lowercase

from core.skills.base import Draft, Skill

SHORTEST, LONGEST = 3, 12
TWO_FROM, THREE_FROM = 13, 22

Letters = list[str]
TRANSFORMS: dict[str, Callable[[Letters], Letters]] = {  # in the order in which they come
    "copy": lambda letters: letters,
    "swap_ends": lambda letters: [letters[-1], *letters[1:-1], letters[0]],
    "drop_first": lambda letters: letters[1:],
    "drop_last": lambda letters: letters[:-1],
    "rotate_left": lambda letters: [*letters[1:], letters[0]],
    "rotate_right": lambda letters: [letters[-1], *letters[:-1]],
    "reverse": lambda letters: letters[::-1],
    "double": lambda letters: [letter for letter in letters for _ in range(2)],
    "odd_places": lambda letters: letters[::2],
    "distinct": lambda letters: list(dict.fromkeys(letters)),
    "next_letters": lambda letters: [ascii_lowercase[(ascii_lowercase.index(letter) + 1) % 26] for letter in letters],
    "sort": sorted,
}

_PROMPT = re.compile(rf"(?:(?:{'|'.join(TRANSFORMS)})\()+[a-z](?: [a-z])+\)+ =")


class Seq(Skill):
    name = "SEQ"
    title = "Sequence transforms"
    levels = range(1, 31)

    def draw(self, level: int, rng: random.Random) -> Draft:
        length = SHORTEST + (LONGEST - SHORTEST) * (level - 1) // (self.levels[-1] - 1)
        letters = rng.choices(ascii_lowercase, k=length)
        known = list(TRANSFORMS)[:level]
        chosen = rng.choices(known, k=1 + (level >= TWO_FROM) + (level >= THREE_FROM))
        call, result = " ".join(letters), letters
        for transform in chosen:
            call = f"{transform}({call})"
            result = TRANSFORMS[transform](result)
        answer = " ".join(result)
        return Draft(f"{call} =", answer, answer)

    def kind(self, prompt: str) -> str:
        return prompt.partition("(")[0]

    def essence(self, prompt: str) -> str | None:
        return prompt if _PROMPT.fullmatch(prompt) else None


SKILL = Seq()
