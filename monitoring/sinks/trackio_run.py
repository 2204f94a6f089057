"""A Trackio run on this machine, one for each hero; it knows nothing about where the numbers come from.

Trackio cannot take steps back: after a crash the last half minute may be there twice, with the same values.
"""

import os
from collections.abc import Mapping
from pathlib import Path

PROJECT = "realm"


class TrackioRun:
    def __init__(self, hero: str):
        import trackio  # it reads its folder from the environment as it is imported

        self._run = trackio.init(PROJECT, hero, resume="allow", auto_log_gpu=False, auto_log_cpu=False, embed=False)

    def write(self, step: int, time: float, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def flush(self) -> None:
        """Trackio's own thread writes."""

    def close(self) -> None:
        self._run.finish()


def open_sink(folder: Path, hero: str, after: int) -> TrackioRun:
    folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TRACKIO_DIR", str(folder))
    return TrackioRun(hero)
