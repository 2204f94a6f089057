"""What a rolled training went through, step by step, and its picture. It knows no model."""

import math
from pathlib import Path
from typing import Any

from core.line_chart import Curve, line_chart

SMOOTH = 0.9  # memory of the curves' running mean


class History:
    """`steps`: epoch, loss, rolled_loss, learning_rate, gradient_norm and rolls of each optimizer step; `evaluations`: epoch,
    step and held-out loss."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.evaluations: list[dict[str, Any]] = []

    def add(self, epoch: int, loss: float, rolls: list[dict[str, Any]], rate: float, norm: float) -> None:
        """`rolled_loss`: the loss as the roll made it count; the mean over rolls, None where nothing was rolled."""
        rolled = loss * sum(roll["factor"] for roll in rolls) / len(rolls) if rolls else None
        numbers = {"loss": _known(loss), "rolled_loss": rolled, "learning_rate": rate, "gradient_norm": _known(norm)}
        self.steps.append({"epoch": epoch, **numbers, "rolls": rolls})

    def evaluated(self, epoch: int, loss: float) -> None:
        self.evaluations.append({"epoch": epoch, "step": len(self.steps), "loss": _known(loss)})

    def epoch_loss(self, epoch: int) -> float:
        """The mean training loss of an epoch, before the rolls."""
        losses = [step["loss"] for step in self.steps if step["epoch"] == epoch and step["loss"] is not None]
        return sum(losses) / len(losses) if losses else math.nan

    def last_words(self) -> str:
        """The last step, as a progress bar shows it."""
        if not self.steps:
            return ""
        step = self.steps[-1]
        loss = "no number" if step["loss"] is None else f"{step['loss']:.4f}"
        rolls = "; ".join(f"{roll['natural']} {roll['outcome']}" for roll in step["rolls"][-1:])
        foes = [roll["monster"] for roll in step["rolls"] if roll["monster"]]
        foe = f", {foes[-1]['name']} {foes[-1]['hit_points']}/{foes[-1]['of']}" if foes else ""
        return f"loss {loss}, {rolls or 'not rolled'}{foe}"

    def plot(self, path: Path) -> Path:
        """Write the losses before and after the roll as an SVG; raises ValueError where there is no step."""
        before = [math.nan if step["loss"] is None else step["loss"] for step in self.steps]
        after = [math.nan if step["rolled_loss"] is None else step["rolled_loss"] for step in self.steps]
        curves = [
            Curve("before the roll", _smoothed(before)),
            Curve("after the roll", _smoothed(after)),
            Curve("held out", [(found["step"], _number(found["loss"])) for found in self.evaluations]),
            Curve("after, each step", list(enumerate(after, 1)), faint=True),
        ]
        title, subtitle = "Loss before and after the roll", f"{len(self.steps):,} steps; running means, memory {SMOOTH}"
        path.write_text(line_chart(title, subtitle, curves, "optimizer step", "loss"), encoding="utf-8")
        return path

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "evaluations": self.evaluations}

    @classmethod
    def of(cls, state: dict[str, Any]) -> "History":
        """What `state_dict` gave."""
        history = cls()
        history.steps, history.evaluations = state["steps"], state["evaluations"]
        return history


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _smoothed(values: list[float]) -> list[tuple[float, float]]:
    points, mean = [], math.nan
    for place, value in enumerate(values, 1):
        if math.isfinite(value):
            mean = value if math.isnan(mean) else SMOOTH * mean + (1 - SMOOTH) * value
        points.append((place, mean))
    return points
