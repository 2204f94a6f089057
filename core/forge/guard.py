"""What follows from steps that went wrong in a battle: numbers in, a verdict out. It knows no tensors, files or clocks.

One step whose loss or gradient is no number is left out and training goes on. Three in a row, or more than 1 % of the
battle's steps (and more than two), and it goes back to a checkpoint before the trouble and passes over the stretch that led into it (as
PaLM did with its spikes, Chowdhery et al., arXiv 2204.02311, section 5.1). If that does not help, the rows are to blame.

All that is remembered is in the `Record`, which every checkpoint carries: what a killed trainer does again, it judges
again in the same way. Steps are counted from 1, as a battle shows them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from math import isfinite
from typing import Any

from core.errors import RealmError

NOT_FINITE, NORM_SPIKE, LOSS_SPIKE, PASSED_OVER = 1, 2, 4, 8  # what a step's flags say, added up
LEFT_OUT = NOT_FINITE | PASSED_OVER
IN_A_ROW = 3
SHARE = 0.01  # of a battle's steps that may be left out one by one
FEW = 2  # may in a short battle, too: going back would cost it more rows
BEFORE = 20  # steps passed over before the first bad one: whose gradients are still in AdamW's moments, 1 / (1 - 0.95)
KEPT = 100  # bad steps that a record names at most

ADVICE = (
    "Look at the named lines: numbers or characters repeated without end, wrong encodings, answers that have nothing to "
    "do with their questions. If they are fine, lower learning_rate or trainer.max_grad_norm, then `quest retry ID`."
)


@dataclass(frozen=True)
class Stretch:
    """Steps `first` to `last` of a battle, both included."""

    first: int
    last: int

    def __contains__(self, step: int) -> bool:
        return self.first <= step <= self.last


@dataclass(frozen=True)
class BadStep:
    """A step whose update was left out; its numbers as text, for JSON knows neither nan nor inf."""

    step: int
    loss: str
    gradient_norm: str


@dataclass
class Record:
    """What went wrong in a battle so far. `over`: the stretch passed over after going back; `bad`, `count`: since then."""

    battle: str = ""
    bad: list[BadStep] = field(default_factory=list)
    count: int = 0
    over: Stretch | None = None
    before: list[BadStep] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Record":
        """What `values` gave."""
        bad, before = ([BadStep(**each) for each in values[name]] for name in ("bad", "before"))
        over = values["over"] and Stretch(**values["over"])
        return cls(values["battle"], bad, values["count"], over, before)

    def passes_over(self, step: int) -> bool:
        return self.over is not None and step in self.over

    @classmethod
    def after(cls, battle: str, spoiled: "Spoiled") -> "Record":
        """The record to go on with after going back."""
        return cls(battle, over=spoiled.stretch, before=spoiled.bad)

    def take(self, step: int, loss: float, gradient_norm: float | None, total_steps: int) -> None:
        """A step was left out. Raises Spoiled when it was one too many."""
        self.bad = [*self.bad, BadStep(step, str(loss), str(gradient_norm))][-KEPT:]
        self.count += 1
        run = _run_before(self.bad, step)
        if run >= IN_A_ROW or self.count > max(FEW, SHARE * total_steps):
            first = step - run + 1
            raise Spoiled(Stretch(max(1, first - BEFORE), step), [*self.before, *self.bad], self.over is not None)


def _run_before(bad: Sequence[BadStep], last: int) -> int:
    """How many bad steps there are without a gap up to `last`."""
    steps = {each.step for each in bad}
    return next(count for count in range(1, len(steps) + 2) if last - count not in steps)


class Spoiled(RealmError):
    """The battle cannot go on like this: back to before `stretch`; or, where that was tried, `again`, not at all."""

    def __init__(self, stretch: Stretch, bad: Sequence[BadStep], again: bool):
        last = bad[-1]
        super().__init__(
            f"loss or gradient were no numbers in steps {', '.join(str(each.step) for each in bad[-10:])}; "
            f"step {last.step}: loss {last.loss}, gradient norm {last.gradient_norm}"
        )
        self.stretch, self.bad, self.again = stretch, list(bad), again


def names(flags: int) -> str:
    """A step's flags in words."""
    words = {
        NOT_FINITE: "not finite",
        NORM_SPIKE: "gradient spike",
        LOSS_SPIKE: "loss spike",
        PASSED_OVER: "passed over",
    }
    return ", ".join(word for flag, word in words.items() if flags & flag)


def finite(value: float | None) -> float | None:
    """`value` for a record or a page: None where it is no number."""
    return value if value is not None and isfinite(value) else None
