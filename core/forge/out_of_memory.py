"""What to do when a pass does not fit into memory: tell such an error from others, and say how small the next may be."""

from collections.abc import Sequence

import torch

from core.battle import BattlePlan
from core.errors import UserError
from core.forge.packing import Pack, best_fit

LOOKED_AT = 1000  # steps
_WORDS = ("can't allocate memory", "could not create a memory", "bad_alloc")
CANNOT_BE_SHARED = (
    "a step does not fit into memory, and its passes cannot be made smaller: with gradient release or lomo a step is one "
    "pass, without packing a pass is one row. Set batch_size or max_length lower; `plan` shows what needs how much."
)


def is_out_of_memory(problem: BaseException) -> bool:
    """Whether the device's allocator or the machine's had no more memory to give."""
    if isinstance(problem, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(problem, RuntimeError) and any(words in str(problem) for words in _WORDS)


def smaller(packs: Sequence[Pack]) -> int:
    """Tokens of a pass at most in the next try: half of the widest pass, or its longest row.

    Raises UserError where the widest pass is a single row, which cannot be shared out.
    """
    widest = max(packs, key=lambda pack: len(pack.tokens_T))
    tokens, longest = len(widest.tokens_T), max(length for pack in packs for length in pack.lengths)
    if len(widest.lengths) == 1:
        raise UserError(
            f"a row of {tokens} tokens does not fit into memory, alone in its pass. Set max_length lower, "
            "or trainer.activation_checkpointing to true; `plan` shows what needs how much."
        )
    return max(longest, tokens // 2)


def halved(plan: BattlePlan, steps: Sequence[int], room: int) -> int | None:
    """Tokens of a pass at most after the kernel ended a battle for its memory: half of the widest among the newest of
    `steps`, or their longest row; None where that shares nothing out. `room`: what a pass could have so far."""
    if not plan.settings.packing:
        return None
    widest = longest = 0
    for step in steps[-LOOKED_AT:]:
        lengths = plan.lengths_at(step)
        widest = max(widest, *(sum(lengths[row] for row in members) for members in best_fit(lengths, room)))
        longest = max(longest, *lengths)
    tokens = max(longest, widest // 2)
    return tokens if tokens < widest else None


def random_state(device: torch.device) -> tuple[torch.Tensor, ...]:
    """The random streams that a pass may draw from."""
    return (torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device.type == "cuda" else []))


def set_random_state(state: tuple[torch.Tensor, ...]) -> None:
    """Back to what `random_state` gave."""
    torch.set_rng_state(state[0])
    for stream in state[1:]:
        torch.cuda.set_rng_state(stream)
