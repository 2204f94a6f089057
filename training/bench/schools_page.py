"""How `bench schools` looks on a terminal and in docs/benchmarks.md. It knows the JSON and nothing of how it was made."""

from pathlib import Path
from typing import Any

from training.bench.page import keep, surroundings
from training.bench.schools import told
from training.terminal import table

HEAD = ("school", "promise", "held", "seed by seed")


def schools_text(result: dict[str, Any]) -> str:
    return "\n".join([table(HEAD, _rows(result)), *_of_file(result)])


def write_schools(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write the bench's part of the page; answers what was written."""
    quick = " --quick" if result["quick"] else ""
    lines = [
        "## The schools",
        "",
        *surroundings(result, f"python -m training bench schools{quick} --seeds {result['seeds']}"),
    ]
    lines += ["", METHOD, ""]
    lines += ["|".join(["", *cells, ""]) for cells in (HEAD, ["---"] * len(HEAD), *_rows(result))]
    return keep(docs, "schools", "\n".join([*lines, "", *_of_file(result)]), {})


def _rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            each["promise"],
            f"{each['held']} of {each['tried']}",
            "; ".join(told(name, one) for one in each["seeds"]),
        )
        for name, each in result["schools"].items()
    ]


def _of_file(result: dict[str, Any]) -> list[str]:
    of_file = result["preferences"]
    if not of_file:
        return []
    accuracy, low, high = (f"{100 * of_file[key]:.1f}" for key in ("accuracy", "low", "high"))
    return [
        f"{of_file['file']}, {of_file['folds']} folds pooled: {of_file['right']} of {of_file['asked']} pairs judged right, "
        f"{accuracy} % (95 % interval {low} to {high})."
    ]


METHOD = """\
Every life begins with a newborn micro hero in a realm of its own and goes through gate, queue and battle as a user's quests
do. What it is asked afterwards it was never taught. The Champion and the Mirror begin where SFT left off a hero that knows
some of a skill; the Whisper's teacher is another hero that was taught longer; the Oracle trains the same rows in the same
number of steps as plain SFT beside it."""
