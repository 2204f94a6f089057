"""What agents learn from: a text, one sample a line, as characters; what is held out, and in which order the rest comes.

Whether a line is held out follows from its characters alone, so all its copies are, whatever stands before it. The order
is computed place by place (core/shuffle.py) and depends on a seed and nothing else. It knows no model. numpy is imported
where arrays are made: the Tavern reads the arena's book without.
Legend: B samples of a batch, T positions, the longest sample's and one more.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import UserError
from core.paths import ARENA_NAMES
from core.regular_file import open_regular

if TYPE_CHECKING:
    import numpy as np

BEGIN, END, FIRST_LETTER = 0, 1, 2  # tokens; letters come behind the two marks
NO_LABEL = -100
MOST_BYTES, MOST_LETTERS = 32 << 20, 8192
LONGEST = 128  # characters of a sample; longer lines are cut into such pieces
HELD_OUT_SHARE, MOST_HELD_OUT = 10, 2000  # one line in ten; so many are measured at most
BEYOND = 8  # characters more than the longest sample that a written text may have
NAMES = "names"


@dataclass(frozen=True)
class Batch:
    """tokens_BT and labels_BT, int64; a label is the next character, END behind the last one, NO_LABEL behind that."""

    tokens_BT: "np.ndarray"
    labels_BT: "np.ndarray"


class Samples:
    """The lines of one text. `key`: NAMES for those that the project ships, else the SHA-256 of the file's bytes."""

    def __init__(self, content: bytes, key: str, title: str):
        self.key, self.title = key, title
        lines = _lines(content, title)
        drawn = sorted((_draw(line), line) for line in set(lines))
        if len(drawn) < 2:
            raise UserError(
                f"--data {title}: it has {len(drawn)} different line; two are needed, one to learn and one to hold out"
            )
        (_, first), (_, last) = drawn[0], drawn[-1]
        apart = {line for draw, line in drawn if draw % HELD_OUT_SHARE == 0} - {last} or {first}
        self.held_out = [line for _, line in drawn if line in apart][:MOST_HELD_OUT]
        self.trained = [line for line in lines if line not in apart]
        self.known = frozenset(self.trained)
        self.letters = "".join(sorted(set().union(*self.trained, *self.held_out)))
        if len(self.letters) > MOST_LETTERS:
            raise UserError(f"{title}: it has {len(self.letters):,} different characters; {MOST_LETTERS:,} are taken")

        self.most = max(map(len, self.trained)) + BEYOND  # characters of a text that an agent writes

    @cached_property
    def _lengths(self) -> "np.ndarray":
        import numpy as np

        return np.fromiter(map(len, self.trained), np.int64, len(self.trained))

    def places(self, first: int, count: int, seed: int) -> "np.ndarray":
        """Which lines come at the places `first` … in the endless order of `seed`: pass after pass, each its own order."""
        import numpy as np

        from core.shuffle import shuffled

        size, places = len(self.trained), np.arange(first, first + count)
        passes = places // size
        orders = [
            shuffled(places[passes == each] % size, size, ["arena", self.key, seed, int(each)])
            for each in np.unique(passes)
        ]
        return np.concatenate([places[:0], *orders])

    def widths(self, first: int, steps: int, batch_size: int, seed: int) -> "np.ndarray":
        """The positions T of so many batches, the first of which begins at the place `first`."""
        lengths = self._lengths[self.places(first, steps * batch_size, seed)]
        return lengths.reshape(steps, batch_size).max(1) + 1


class Alphabet:
    """Characters and their tokens. `letters`: the characters in their order, the first of which is token FIRST_LETTER."""

    def __init__(self, letters: str):
        self.letters = letters

    def __len__(self) -> int:
        return len(self.letters) + FIRST_LETTER

    def strange(self, letters: str) -> str:
        """Those of `letters` that it lacks."""
        return "".join(letter for letter in letters if letter not in self.letters)

    def encoded(self, texts: Sequence[str]) -> "Encoded":
        """`texts`, which have no letter that it lacks, as tokens."""
        import numpy as np

        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        tokens = np.searchsorted(_codes(self.letters), _codes("".join(texts))) + FIRST_LETTER
        return Encoded(tokens, lengths, np.cumsum(lengths) - lengths)

    def text(self, tokens: Sequence[int]) -> str:
        return "".join(self.letters[token - FIRST_LETTER] for token in tokens)


@dataclass(frozen=True)
class Encoded:
    """Texts as tokens one behind the other; `lengths` and `starts` of each."""

    tokens: "np.ndarray"
    lengths: "np.ndarray"
    starts: "np.ndarray"

    def batch(self, texts: "np.ndarray") -> Batch:
        """The texts at these indices as one batch, padded to the longest of them."""
        import numpy as np

        lengths_B, places_T = self.lengths[texts, None], np.arange(self.lengths[texts].max() + 1)
        inside_BT = places_T < lengths_B
        within_BT = np.where(inside_BT, self.starts[texts, None] + places_T, 0)
        letters_BT = np.where(inside_BT, self.tokens[within_BT], END)
        tokens_BT = np.concatenate([np.full((len(texts), 1), BEGIN), letters_BT[:, :-1]], 1)
        labels_BT = np.where(places_T <= lengths_B, letters_BT, NO_LABEL)
        return Batch(tokens_BT, labels_BT)


def read_text(file: Path) -> bytes:
    """The bytes of a text that a player names. Raises UserError."""
    try:
        with open_regular(file.resolve()) as opened:
            content = opened.read(MOST_BYTES + 1)
    except OSError as problem:
        raise UserError(f"--data {file}: {problem.strerror}; give a text file, one sample a line") from None
    if len(content) > MOST_BYTES:
        raise UserError(
            f"--data {file}: it is larger than {MOST_BYTES >> 20} MiB; take a part of it (`head -n 100000`)"
        )
    return content


def key_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@lru_cache(maxsize=4)
def bundled() -> Samples:
    """The names that the project ships."""
    return Samples(ARENA_NAMES.read_bytes(), NAMES, NAMES)


def _lines(content: bytes, title: str) -> list[str]:
    """The samples of a text: its lines without the white space around them, long ones in pieces."""
    if b"\0" in content:
        raise UserError(f"--data {title}: it is binary; give a text file (UTF-8), one sample a line")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise UserError(
            f"--data {title}: byte {problem.start} is not UTF-8; give a text file, one sample a line (`iconv -t utf-8`)"
        ) from None
    lines = [line.strip() for line in text.split("\n")]
    pieces = [line[at : at + LONGEST] for line in lines for at in range(0, len(line), LONGEST)]
    if not pieces:
        raise UserError(f"--data {title}: it is empty; give a text file, one sample a line")
    return pieces


def _codes(text: str) -> "np.ndarray":
    """The number of each character."""
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le"), "<u4")


def _draw(line: str) -> int:
    """A number that follows from the line's characters."""
    return int.from_bytes(hashlib.blake2b(line.encode(), digest_size=8).digest())
