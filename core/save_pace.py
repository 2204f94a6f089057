"""When a checkpoint is begun, so that a power cut costs one interval of work at most. Pure: it is told the time.

A checkpoint is written behind the steps that go on. One begun when its interval is over would be on the disk an interval
and a writing after the one before; so it is begun earlier by as long as the last one took. Where that was too short a time,
training waits: `save_steps` and `save_minutes` bound what can be lost, not how often something is written.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """What may be on no disk: `steps` and `seconds` of work."""

    steps: int
    seconds: float


@dataclass(frozen=True)
class Moment:
    """A place in training: its global step, and the clock, in seconds."""

    step: int
    time: float


class SavePace:
    """Follows the newest copy of the weights (`held`) and the newest checkpoint on disk (`safe`)."""

    def __init__(self, step: int, now: float):
        self.held = self.safe = Moment(step, now)
        self.took = 0.0  # seconds from the copy to the checkpoint on disk, the last time

    def begun(self, step: int, now: float) -> None:
        """A copy was made, and is being written."""
        self.held = Moment(step, now)

    def landed(self, now: float) -> None:
        """What was copied is on the disk."""
        self.took, self.safe = now - self.held.time, self.held

    def rested(self, step: int, now: float) -> None:
        """Training begins at `step` after a rest; where nothing is lacking on the disk, the rest was no work."""
        if self.safe.step == step:
            self.held = self.safe = Moment(step, now)

    def due(self, step: int, now: float, interval: Interval) -> bool:
        """Whether a checkpoint is to be begun after `step`: at the last one's pace it just comes in time."""
        steps, seconds = step - self.held.step, now - self.held.time
        if steps <= 0:
            return False
        meanwhile = steps / seconds * self.took if seconds > 0 else 0.0
        return steps + meanwhile + 1 >= interval.steps or seconds + self.took >= interval.seconds

    def full(self, step: int, now: float, interval: Interval) -> bool:
        """Whether no step may follow `step` before a checkpoint has come."""
        steps = step - self.safe.step
        return steps >= interval.steps or (steps > 0 and now - self.safe.time >= interval.seconds)
