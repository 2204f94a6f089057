"""What both sides of `bench schools --peers` train: how much of it, the rows as quests have them, and the same rows as tokens.

It knows neither torch nor who trains.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from core.formats import form, read
from core.paths import BUNDLED_TOKENIZER
from core.rendering import Renderer
from training.bench.chat_rows import rows as chats
from training.bench.chat_rows import sentence
from training.bench.material import MAX_LENGTH, SEED

ROWS_FILE, TOKENS_FILE = "rows.json", "tokens.json"
GRADER = "vowels"
Row = dict[str, Any]


@dataclass(frozen=True)
class Load:
    """`rows` an optimizer step; of a row's prompt `answers` are drawn where the hero answers itself, so long at most."""

    rows: int
    steps: int
    longest: int = 1006
    answers: int = 0
    answer_tokens: int = 0


LOADS = {
    "mini": {
        "judge": Load(8, 4, 120),
        "champion": Load(8, 3, answers=4, answer_tokens=16),
        "whisper": Load(8, 4, 120),
        "oracle": Load(8, 4, 120),
    },
    "4m": {
        "judge": Load(8, 4),
        "champion": Load(8, 3, answers=8, answer_tokens=64),
        "whisper": Load(16, 4),
        "oracle": Load(24, 4),
    },
}


def write_work(root: Path, school: str, load: Load) -> int:
    """The rows and, where it is they that are trained, their tokens as files in `root`; how many rows there are."""
    renderer = Renderer.load(BUNDLED_TOKENIZER, MAX_LENGTH)
    rows = list(_rows(school, load, renderer))
    (root / ROWS_FILE).write_bytes(orjson.dumps(rows))
    if not load.answers:
        normal = [read(form("preference" if school == "judge" else "messages"), row) for row in rows]
        tokens = [
            [[each.input_ids.tolist(), each.trained.tolist()] for each in rendered.every]
            for rendered in renderer.render(normal)
        ]
        (root / TOKENS_FILE).write_bytes(orjson.dumps(tokens))
    return len(rows)


def read_rows(root: Path) -> list[Row]:
    return orjson.loads((root / ROWS_FILE).read_bytes())


def read_tokens(root: Path) -> list[list[tuple[list[int], list[bool]]]]:
    """Of each row its sequences: tokens, and which of them are trained. Of a preference the chosen side comes first."""
    return orjson.loads((root / TOKENS_FILE).read_bytes())


def vowels(said: str, right: str = "") -> float:
    """The reward of both sides: a share that differs from answer to answer, whatever an untaught hero says."""
    return sum(map(said.count, "aeiou")) / max(1, len(said))


def _rows(school: str, load: Load, renderer: Renderer) -> Iterator[Row]:
    dice, count = random.Random(SEED), load.rows * load.steps
    if school == "champion":
        for number in range(count):
            yield {"prompt": f"{number}: {sentence(dice)}", "answer": "a", "grader": GRADER}
        return

    def measure(row: Row) -> int:
        return len(renderer.render([read(form("messages"), row)])[0].sequences[0].input_ids)

    for row in chats(count, load.longest, SEED, measure):
        asked, said = (turn["content"] for turn in row["messages"])
        words = said.split()
        dice.shuffle(words)
        yield {"prompt": asked, "chosen": said, "rejected": f"No: {' '.join(words)}"} if school == "judge" else row
