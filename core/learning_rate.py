"""The learning rate of a battle that names none: a pure function of the model's size, and of the school."""

from core.quest import Settings

LEARNING_RATES = ((10e6, 1e-3), (100e6, 5e-4), (1e9, 1e-5), (float("inf"), 5e-6))
SHARES = {"judge": 0.1, "champion": 0.1}  # of schools that move a hero by comparison; see docs/LOG.md


def learning_rate_of(settings: Settings, parameters: int) -> float:
    """The rate that the settings name, else the usual one for a model of this size."""
    usual = next(rate for size, rate in LEARNING_RATES if parameters < size)
    return settings.learning_rate or usual * SHARES.get(settings.school, 1.0)
