"""The learning rate of a battle, and how it falls at its end: pure functions of settings, model size and step."""

from collections.abc import Callable
from math import sqrt

from core.quest import Settings

Schedule = Callable[[int], float]  # share of the learning rate in a battle's step, counted from 0

LEARNING_RATES = ((10e6, 1e-3), (100e6, 5e-4), (1e9, 1e-5), (float("inf"), 5e-6))
HATCHED = (
    100e6  # parameters below which a hero has grown up from random weights here; the rates above are such a life's
)
YOUNG, GROWN, ROWS = 500, 12_000, 64  # steps; steps; rows of a step whose noise is told from what it teaches
SHARES = {"judge": 0.1, "champion": 0.3}  # of schools that move a hero by comparison; see docs/LOG.md


def learning_rate_of(settings: Settings, parameters: int, step: int) -> float:
    """The rate that the settings name, else the usual one for a model of this size; their share of it. `step`: the hero's
    own, where the battle begins."""
    usual = next(rate for size, rate in LEARNING_RATES if parameters < size)
    grown = grown_share(step, settings.batch_size) if parameters < HATCHED else 1.0
    return settings.rate_share * (settings.learning_rate or usual * min(SHARES.get(settings.school, 1.0), grown))


def grown_share(step: int, batch_size: int) -> float:
    """The share of the rate at which a hero of `step` steps trains, as 1 / sqrt(age). What a young one has to find, an old one
    has to know exactly, and steps of few rows are noise to it: measured, in docs/LOG.md."""
    return 1 / sqrt(1 + min(step, GROWN) / YOUNG * max(1.0, ROWS / batch_size))


def one_minus_sqrt(steps: int) -> Schedule:
    """The share of the learning rate in each of `steps` steps: all of it in step 0, none in the first not taken (Hägele et
    al., "Scaling laws and compute-optimal training beyond fixed training durations", arXiv 2405.18392)."""
    return lambda step: 1.0 - sqrt(step / steps)


def cooled(steps: int, cooldown: float) -> Schedule:
    """The same for a battle of `steps` that falls in its last part `cooldown` only.

    The next battle begins with all of the rate again, from the weights that came to rest (WSD-S: Wen et al., "Understanding
    warmup-stable-decay learning rates", arXiv 2410.05192).
    """
    falling = round(cooldown * steps)
    flat, fall = steps - falling, one_minus_sqrt(falling + 1)
    return lambda step: fall(step - flat + 1) if falling and step >= flat else 1.0
