"""The dictionary between the two tongues: role-playing words and their machine-learning meaning, with the formulas."""

WORDS = {
    "Hero": "model being trained",
    "Quest": "training data file",
    "Battle": "training run of one quest",
    "Damage": "1 / loss",
    "Level": "1 + global step // 1000",
    "Strain": "loss - floor (10th percentile of the school's validation losses)",
    "Effort": "sum of strain over steps",
    "Blessing": "validation of a battle",
    "Experience": "effort x blessing quality",
    "Champion": "best checkpoint by evaluation",
    "Vault": "checkpoint storage",
    "Tavern": "web pages",
    "Oracle": "inference server",
    "School": "learning paradigm",
    "Skill": "curriculum domain",
}

TITLES = (
    (0, "Hatchling"),
    (1_000, "Apprentice"),
    (10_000, "Journeyman"),
    (50_000, "Veteran"),
    (100_000, "Master"),
    (200_000, "Legend"),
)

ZONES = ((0.1, "recovery"), (0.3, "productive"), (0.5, "stretch"))


def level(global_step: int) -> int:
    """1 + global_step // 1000."""
    return 1 + global_step // 1000


def title(global_step: int) -> str:
    """The highest title whose step count is reached."""
    return [name for steps, name in TITLES if global_step >= steps][-1]


def damage(loss: float | None) -> float | None:
    """1 / loss; None where there is no loss yet or it is zero."""
    return 1.0 / loss if loss else None


def strain(loss: float | None, floor: float | None) -> float | None:
    """loss - floor, both in nats per token; None while either is unknown."""
    return None if loss is None or floor is None else loss - floor


def zone(value: float | None) -> str | None:
    """recovery < 0.1 <= productive < 0.3 <= stretch < 0.5 <= overload."""
    if value is None:
        return None
    return next((name for bound, name in ZONES if value < bound), "overload")
