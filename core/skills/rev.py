"""REV, letters said backwards; knows nothing about models or quest files.

    reverse k a b d        is answered by   d b a k

Level L reverses L + 2 letters, each a token of its own. Level 1 has 17,576 problems and level 2 more than 400,000, so that
whoever is right on new ones has learnt the way and no list: a micro hero does within minutes.
"""

import random
import re
from string import ascii_lowercase

from core.skills.base import Draft, Skill

_PROMPT = re.compile(r"reverse [a-z](?: [a-z]){2,}")


class Rev(Skill):
    name = "REV"
    title = "Reversal"
    levels = range(1, 31)

    def draw(self, level: int, rng: random.Random) -> Draft:
        letters = rng.choices(ascii_lowercase, k=level + 2)
        answer = " ".join(reversed(letters))
        return Draft(f"reverse {' '.join(letters)}", answer, answer)

    def essence(self, prompt: str) -> str | None:
        return prompt if _PROMPT.fullmatch(prompt) else None


SKILL = Rev()
