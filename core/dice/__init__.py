"""Roll-to-Train: dice in the optimisation step of any PyTorch model. A name's module, and torch where it needs that, is loaded on use."""

from importlib import import_module
from typing import Any

_HOMES = {
    "callback": ("DiceCallback", "DiceMixin"),
    "characters": ("Barbarian", "Cleric", "Fighter", "Paladin", "Rogue", "Wizard"),
    "chance": ("TorchChance",),
    "dice": ("Outcome", "Roll", "judge", "throw"),
    "experience": ("ExperienceSystem",),
    "game": ("Game",),
    "monsters": ("GradientOoze", "LossDragon", "WeightWraith"),
    "roll_to_train": ("RollToTrain",),
    "rules": ("RULES", "Rules"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"core.dice.{_HOME_OF[name]}"), name)
