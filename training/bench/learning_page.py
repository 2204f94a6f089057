"""How `bench learning` looks on a terminal and in docs/benchmarks.md. It knows the JSON and nothing of how it was made."""

from pathlib import Path
from typing import Any

from training.bench.chart import Bar, chart
from training.bench.page import keep, surroundings
from training.terminal import bytes_text, styled, table

TITLE = "Held-out loss at the end of a stream of quests"
HEAD = ("", "all quests", "min-max", "by constant", "min-max", "own quest", "first steps")
PICTURE = "learning.svg"


def learning_text(result: dict[str, Any]) -> str:
    machine = result["machine"]
    where = f"{machine['cpu']}, {machine['threads']} threads, {bytes_text(machine['memory_bytes'])}"
    return "\n".join([where, "", styled(case_title(result), "bold"), table(HEAD, rows(result)), "", LEGEND])


def case_title(result: dict[str, Any]) -> str:
    seeds = f"{result['seeds']} seed{'s' if result['seeds'] > 1 else ''}"
    return f"{result['quests']} quests of {result['rows']} rows, {result['steps']} steps, {seeds}"


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line each, as `HEAD` names the columns; the best first."""
    ways = sorted(result["ways"].items(), key=lambda pair: pair[1]["final"]["median"])
    return [_row(result, way, each) for way, each in ways]


def _row(result: dict[str, Any], way: str, each: dict[str, Any]) -> tuple[str, ...]:
    final = each["final"]
    low, high = result["ratio_range"].get(way, (None, None))
    return (
        each["title"],
        f"{final['median']:.3f}",
        f"{final['min']:.3f}-{final['max']:.3f}",
        "" if low is None else f"{result['ratio'][way]:.3f} x",
        "" if low is None else f"{low:.3f}-{high:.3f}",
        *(f"{each[measure]['median']:.3f}" if measure in each else "" for measure in ("own", "early")),
    )


def write_learning(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write the bench's part of the page and its picture; answers what was written."""
    quick = " --quick" if result["quick"] else ""
    command = f"python -m training bench learning{quick} --seeds {result['seeds']} --rows {result['rows']}"
    lines = ["## The endless learning rate", "", *surroundings(result, command), "", METHOD.format(**result), ""]
    lines += [f"![{TITLE}]({Path('images') / PICTURE})", ""]
    lines += ["|".join(["", *cells, ""]) for cells in (HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *rows(result))]
    return keep(docs, "learning", "\n".join([*lines, "", *LEGEND.splitlines()]), {PICTURE: _picture(result)})


def _picture(result: dict[str, Any]) -> str:
    bars = [
        Bar(
            each["title"],
            each["final"]["median"],
            each["final"]["min"],
            each["final"]["max"],
            f"{result['ratio'][way]:.2f} ×" if way in result["ratio"] else "",
            way == "constant",
        )
        for way, each in sorted(result["ways"].items(), key=lambda pair: pair[1]["final"]["median"])
    ]
    scale = "nats a token, mean over the quests; × by the constant rate's loss; shorter is better"
    return chart(TITLE, case_title(result), bars, scale, digits=2)


LEGEND = """\
all quests: held-out loss in nats a token after the last quest, mean over all quests, median over seeds; by constant: the
same by that of the constant rate, seed by seed; own quest: held-out loss of each quest just after it was trained; first
steps: training loss in the first ten steps of a quest."""

METHOD = """\
A newborn micro hero trains {quests} quests, sums that become harder and chats by turns, so that what is learned changes
from quest to quest; every seed has its own hero and rows, and all ways train the same rows in the same order from the
same weights. A rate that falls at the end of each quest, and below 100 M parameters with the hero's age, is the realm's
default, with moments carried over. *Rate falls in the last quest* spends no step more; *a branch as exported* trains
{branch_steps} steps more on rows of all these quests that it has seen, as `vault export` does. These are small models and
short lives: they show the order of things, not its size on yours."""
