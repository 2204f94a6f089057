"""Copies of the numbers for other people's tools. It says what a sink is and which there are; it reads nothing itself.

To add a sink: a module here with `open_sink`, its name in SINKS, and a switch in core/alert_config.py.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from core.errors import UserError

SINKS = {"tensorboard": "tensorboard", "trackio": "trackio_run"}  # by config.json's name: the module


class Sink(Protocol):
    """Takes values by name (`train/loss`) at steps that rise."""

    def write(self, step: int, time: float, values: Mapping[str, float]) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


def open_sink(name: str, folder: Path, hero: str, after: int) -> Sink:
    """The sink `name`, which keeps what it takes below `folder`; steps above `after` that it has are void. Raises UserError."""
    try:
        return importlib.import_module(f"{__name__}.{SINKS[name]}").open_sink(folder / name, hero, after)
    except ModuleNotFoundError as problem:
        raise UserError(f"sinks.{name} needs {problem.name}: `pip install -r requirements-sinks.txt`") from None
