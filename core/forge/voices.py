"""The voices in memory, within a budget: loaded when asked for, the one longest unused given up for another.

It knows no HTTP. Whoever answers with a voice keeps it by `using`, so that it is not given up meanwhile.
"""

import gc
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from core.answer_memory import AT_ONCE, PROCESS_BYTES, Needs, budget, shortage
from core.errors import RealmBusy
from core.forge.voice import Voice


class Voices:
    """`gib`: the budget in GiB, None for the default. `device`: where the models are; `profile`: what their answers are held
    to. Not thread-safe, but for `using`."""

    def __init__(self, gib: float | None, device: str = "cpu", profile: str = "none"):
        self._gib, self._device, self._profile = gib, device, profile
        self._voices: OrderedDict[str, Voice] = OrderedDict()
        self._needs: dict[str, Needs] = {}
        self._users: Counter[str] = Counter()

    @property
    def loaded(self) -> tuple[str, ...]:
        return tuple(self._voices)

    def load(self, key: str, folder: Path, check: Callable[[str], None]) -> Voice:
        """The voice of the model `key`, loaded from `folder` after `check(key)` if it is not there yet.

        Raises RealmBusy where there is no room for it now, and what `check` and the files raise.
        """
        if key not in self._voices:
            check(key)
            needs = Needs.of(folder)
            self._make_room(needs)
            self._voices[key], self._needs[key] = Voice(folder, self._device, self._profile), needs
            for other, voice in self._voices.items():
                voice.context = min(voice.decoder.positions, self._needs[other].context(self._room_of_one()))
        self._voices.move_to_end(key)
        return self._voices[key]

    @contextmanager
    def using(self, key: str) -> Iterator[None]:
        self._users[key] += 1
        try:
            yield
        finally:
            self._users[key] -= 1

    def _room_of_one(self, weights: int = 0) -> int:
        """Bytes that each of `AT_ONCE` answers may take beside all weights, and these."""
        held = PROCESS_BYTES + weights + sum(needs.weights for needs in self._needs.values())
        return (budget(self._gib) - held) // AT_ONCE if self._device == "cpu" else 1 << 50

    def _make_room(self, needs: Needs) -> None:
        """See that everybody could answer with one more model in memory; others are given up for it, if need be."""
        while True:
            problem = shortage(needs, self._gib, held=PROCESS_BYTES) if self._device == "cpu" else None
            room = self._room_of_one(needs.weights)
            if problem is None and all(each.context(room) for each in (needs, *self._needs.values())):
                return
            idle = next((key for key in self._voices if not self._users[key]), None)
            if idle is None:
                raise RealmBusy(
                    problem or "Other models are answering and have the memory; try again when they are done."
                )
            del self._voices[idle], self._needs[idle]
            gc.collect()


def best_device() -> str:
    """Where answers come quickest on this machine."""
    return "cuda" if torch.cuda.is_available() else "cpu"
