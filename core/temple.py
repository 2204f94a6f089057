"""The Temple's verdict on a battle: rituals on weights, held-out rows and canaries give a quality from 0 to 1.

It sees numbers that a battle leaves behind, and nothing else: neither clocks nor machines nor the weather have a say, so the
same battle always gets the same verdict. It carries nothing out.

Each ritual marks what it looked at, from 1 (nothing is wrong) to 0; the quality is the product of the marks. The canaries'
marks are laid out so that the words of the verdict mean something: who loses a tenth of what it could do is blessed just
so, who loses a third is cursed. But a file of another kind makes a hero forget, too, and is not to be refused for that: where
its answers can be told from others by their prompts, forgetting is partial at worst.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import exp, sqrt
from typing import Any

BLESSED, CURSED = 0.8, 0.3
Canaries = Mapping[str, tuple[int, int]]  # "SKILL/level": how many were right, of how many

RISE_PASSED = 0.02  # nats per label that a held-out loss may rise by
RISE_SCALE = 0.25  # nats per label beyond that take the mark down to 1/e
LOSS_WEIGHT = 2.0  # a mark of 0 for half of what the hero could do
GROWTH_PASSED = 4.0  # times the parent's size that weights may have, or a fourth of it
FORGIVEN = 0.4  # the mark of a battle that forgot, whatever it forgot, and taught something else instead
SURE = 2.6  # z-score from which answers are taken to belong to their prompts; chance reaches it once in 200 times
GROWN_UP_STEPS = 1_000  # before that, weights are still leaving their random beginning


@dataclass(frozen=True)
class Standing:
    """What is known of a hero at one end of a battle. `loss`: held-out nats per label of the battle's own quest, None where
    nothing was held out; `size`: root mean square of all weights; `bond`: how surely the held-out answers
    belong to their prompts (forge/bond.py), None where that was not asked."""

    loss: float | None = None
    canaries: Canaries | None = None
    size: float | None = None
    step: int = 0
    bond: float | None = None


@dataclass(frozen=True)
class Ritual:
    """One look: what was found, in words, and its mark from 0 to 1."""

    name: str
    mark: float
    found: str


@dataclass(frozen=True)
class Verdict:
    """What the Temple says of a battle."""

    quality: float
    rituals: tuple[Ritual, ...]
    before: Standing
    after: Standing

    @property
    def word(self) -> str:
        return word(self.quality)

    def facts(self) -> dict[str, Any]:
        """For a manifest or the ledger."""
        return {"word": self.word, **asdict(self)}


def word(quality: float) -> str:
    """blessed >= 0.8 > partial >= 0.3 > cursed."""
    return "blessed" if quality >= BLESSED else "cursed" if quality < CURSED else "partial"


def worst(verdict: Mapping[str, Any]) -> str:
    """The ritual that speaks most against a battle, in words; `verdict`: the facts of one."""
    ritual = min(verdict["rituals"], key=lambda ritual: ritual["mark"])
    return f"{ritual['name']}: {ritual['found']}"


def judge(before: Standing, after: Standing, unfit: str | None = None) -> Verdict:
    """The verdict on a battle that led from `before` to `after`; `unfit`: why its weights are no use at all."""
    rituals = (_weights(before, after, unfit), _held_out(before.loss, after.loss), _canaries(before, after))
    quality = 1.0
    for ritual in rituals:
        quality *= ritual.mark
    return Verdict(round(quality, 4), rituals, before, after)


def _weights(before: Standing, after: Standing, unfit: str | None) -> Ritual:
    if unfit:
        return Ritual("weights", 0.0, unfit)
    if not before.size or not after.size or before.step < GROWN_UP_STEPS:
        return Ritual("weights", 1.0, "All numbers are finite.")
    growth = max(after.size / before.size, before.size / after.size)
    found = f"All numbers are finite; their size went from {before.size:.3g} to {after.size:.3g}."
    return Ritual("weights", min(1.0, GROWTH_PASSED / growth), found)


def _held_out(before: float | None, after: float | None) -> Ritual:
    if after is None:
        return Ritual("held-out loss", 1.0, "No rows were held out.")
    if before is None:
        return Ritual("held-out loss", 1.0, f"{after:.3f} after the battle; it was not measured before.")
    mark = exp(min(0.0, (before + RISE_PASSED - after) / RISE_SCALE))
    return Ritual("held-out loss", mark, f"{before:.3f} before the battle, {after:.3f} after it.")


def _canaries(before: Standing, after: Standing) -> Ritual:
    """The mark of the skill level that lost most; a loss that chance explains costs nothing."""
    marks = {key: _kept(before.canaries[key], score) for key, score in (after.canaries or {}).items()
             if key in (before.canaries or {})}  # fmt: skip
    if not marks:
        unasked = "None were asked after it." if before.canaries else "The hero knows nothing yet that could be lost."
        return Ritual("canaries", 1.0, unasked)
    worst = min(marks, key=lambda key: (marks[key], key))
    (right, asked), (now, of) = before.canaries[worst], after.canaries[worst]
    mark, told = (
        marks[worst],
        f"{worst} had {right} of {asked} right before and {now} of {of} after"
        + (f", the others of {len(marks)} lost less." if len(marks) > 1 else "."),
    )
    if mark < FORGIVEN and after.bond is not None and after.bond >= SURE:
        mark, told = FORGIVEN, f"{told} What it learned instead is no garbage: its answers belong to their prompts."
    return Ritual("canaries", mark, told)


def _kept(before: tuple[int, int], after: tuple[int, int]) -> float:
    """1 - LOSS_WEIGHT x the share of accuracy that was lost, two standard errors of the difference aside."""
    was, now = before[0] / before[1], after[0] / after[1]
    middle = (before[0] + after[0]) / (before[1] + after[1])
    error = 2 * sqrt(middle * (1 - middle) * (1 / before[1] + 1 / after[1]))
    lost = max(0.0, was - now - error) / was if was else 0.0
    return max(0.0, 1.0 - LOSS_WEIGHT * lost)
