"""The voices in memory, within a budget: loaded when asked for, the one longest unused given up for another.

It knows no HTTP. Whoever answers with a voice keeps it by `using`, so that it is not given up meanwhile.
"""

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from core.answer_memory import PROCESS_BYTES, Needs, budget, shortage
from core.errors import RealmBusy
from core.forge.voice import Voice


class Voices:
    """`gib`: the budget in GiB, None for the default. `device`: where the models are."""

    def __init__(self, gib: float | None, device: str = "cpu"):
        self._gib, self._device = gib, device
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._bytes: dict[str, int] = {}
        self._users: dict[str, int] = {}

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(self._voices)

    def load(self, key: str, folder: Path, check: Callable[[str], None]) -> Voice:
        """The voice of the model `key`, loaded from `folder` after `check(key)` if it is not there yet; not thread-safe.

        Raises RealmBusy where there is no room for it now, and what `check` and the files raise.
        """
        if key not in self._voices:
            check(key)
            needs = Needs.of(folder)
            context = self._make_room(needs)
            self._voices[key] = Voice(folder, context, self._device)
            self._bytes[key] = needs.weights + context * needs.token
        self._voices.move_to_end(key)
        return self._voices[key]

    @contextmanager
    def using(self, key: str) -> Iterator[None]:
        self._users[key] = self._users.get(key, 0) + 1
        try:
            yield
        finally:
            self._users[key] -= 1

    def _make_room(self, needs: Needs) -> int:
        """The context for a model with these needs, others given up for it; half of what is left, so that two can answer."""
        while True:
            left = budget(self._gib) - PROCESS_BYTES - sum(self._bytes.values())
            if self._device != "cpu":
                return needs.context(1 << 50)
            problem = shortage(needs, self._gib, held=PROCESS_BYTES)
            if problem is None and (context := needs.context(needs.weights + (left - needs.weights) // 2)):
                return context
            idle = next((key for key in self._voices if not self._users.get(key)), None)
            if idle is None:
                raise RealmBusy(
                    problem or "Other models are answering and have the memory; try again when they are done."
                )
            del self._voices[idle], self._bytes[idle]
            gc.collect()


def best_device() -> str:
    """Where answers come quickest on this machine."""
    return "cuda" if torch.cuda.is_available() else "cpu"
