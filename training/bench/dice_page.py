"""How `bench dice` looks on a terminal and in docs/experiments/dice.md. It knows the JSON and nothing of how it was made."""

from pathlib import Path
from typing import Any

from core.line_chart import Curve, line_chart
from training.bench.dice import CURVES, TWIN, verdict
from training.bench.page import surroundings
from training.terminal import table

TITLE = "Training loss under three sets of rules"
HEAD = ("", "held-out loss", "by the twin's", "95 % interval", "verdict", "mean scale", "moved")
PICTURE = "dice.svg"
SMOOTH = 0.9


def dice_text(result: dict[str, Any]) -> str:
    return "\n".join([table(HEAD, rows(result)), "", LEGEND])


def rows(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line each, as `HEAD` names the columns; the twin first, then the best."""
    ways = sorted(result["ways"].items(), key=lambda pair: (pair[0] != TWIN, pair[1]["ratio"]))
    return [_row(name, each) for name, each in ways]


def _row(name: str, each: dict[str, Any]) -> tuple[str, ...]:
    numbers = (
        f"{each['held_out']:.4f}",
        f"{each['mean_scale']:.3f}",
        f"{100 * each['moved']:.0f} %",
    )
    if name == TWIN:
        return each["title"], numbers[0], "", "", "", *numbers[1:]
    between = f"{each['low']:.3f}-{each['high']:.3f}"
    return each["title"], numbers[0], f"{each['ratio']:.3f} x", between, verdict(each), *numbers[1:]


def write_dice(result: dict[str, Any], docs: Path) -> list[Path]:
    """Write the page and its picture; answers what was written."""
    quick = " --quick" if result["quick"] else ""
    command = f"python -m training bench dice{quick} --seeds {result['seeds']}"
    found = result["ways"].values()
    told = {word: [each["title"] for each in found if verdict(each) == word] for word in ("gains", "costs")}
    lines = ["# Dice in the optimisation step: what they cost", "", *surroundings(result, command), ""]
    lines += [METHOD.format(**result), "", *_verdict(told), "", f"![{TITLE}]({Path('..') / 'images' / PICTURE})", ""]
    lines += ["|".join(["", *cells, ""]) for cells in (HEAD, ["---", *["---:"] * (len(HEAD) - 1)], *rows(result))]
    page, picture = docs / "experiments" / "dice.md", docs / "images" / PICTURE
    for path, text in ((page, "\n".join([*lines, "", LEGEND, ""])), (picture, _picture(result))):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return [page, picture]


def _verdict(told: dict[str, list[str]]) -> list[str]:
    """The result, plainly."""
    better = (
        f"Better than the twin, with the whole interval: {'; '.join(told['gains'])}."
        if told["gains"]
        else NOTHING_GAINED
    )
    worse = (
        f"Worse, with the whole interval: {'; '.join(told['costs'])}."
        if told["costs"]
        else "Nothing was worse with the whole interval."
    )
    return ["## The result", "", better, worse]


def _picture(result: dict[str, Any]) -> str:
    curves = [
        Curve(result["ways"][name]["title"], _smoothed(result["ways"][name]["curve"]))
        for name in CURVES
        if name in result["ways"]
    ]
    subtitle = f"mean of {result['seeds']} seeds, running mean with memory {SMOOTH}"
    return line_chart(TITLE, subtitle, curves, "optimizer step", "nats a token")


def _smoothed(losses: list[float]) -> list[tuple[float, float]]:
    points, mean = [], None
    for step, loss in enumerate(losses, 1):
        mean = loss if mean is None else SMOOTH * mean + (1 - SMOOTH) * loss
        points.append((step, mean))
    return points


NOTHING_GAINED = "No way to roll was better than no dice, with the whole interval."
METHOD = """\
A newborn micro hero trains {rows} sums in {steps} steps with AdamW, once without dice (the twin) and once for each way to roll:
the same weights, rows, order and steps; every seed has its own. A d20 against DC 15 without modifier, rolled for each step's
gradients, no monsters and no experience, where nothing else is said."""

LEGEND = """\
held-out loss: nats a token after the battle, mean over seeds; by the twin's: the same by that of the twin, seed by seed, geometric
mean with Student's interval; mean scale: what an update's gradient was multiplied by, on average; moved: rolls that let the
update through with its own sign. AdamW divides by what gradients usually are, so
a scale that never changes would change nothing: what counts is how updates differ from each other, which are left out, and which
are turned round."""
