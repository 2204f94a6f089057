"""Where dice get their numbers from: a random stream of torch. It knows no game."""

from typing import Any

import torch


class TorchChance:
    """Chance as torch has it: its global stream, so that torch.manual_seed decides; a stream of its own with a `seed`."""

    def __init__(self, seed: int | None = None):
        self.stream = None if seed is None else torch.Generator().manual_seed(seed)

    def die(self, sides: int) -> int:
        return int(torch.randint(1, sides + 1, (), generator=self.stream))

    def share(self) -> float:
        return float(torch.rand((), generator=self.stream, dtype=torch.float64))

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, if it is its own; torch's global one is kept by whoever keeps that."""
        return {} if self.stream is None else {"stream": self.stream.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if "stream" in state:
            self.stream = self.stream or torch.Generator()
            self.stream.set_state(state["stream"])
