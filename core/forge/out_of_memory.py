"""What to do when a pass does not fit into memory: tell such an error from others, and say how small the next may be."""

from collections.abc import Sequence

import torch

from core.battle import BattlePlan
from core.errors import UserError
from core.forge.packing import Pack, best_fit, tokens_together

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


def free_bytes(device: torch.device) -> int | None:
    """What a GPU has free; None for main memory."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def smaller(packs: Sequence[Pack], together: int = 1) -> int:
    """Tokens of a pass at most in the next try: half of the widest pass, or the longest row. `together`: sequences of a row.

    Raises UserError where the widest pass is a single row, which cannot be shared out.
    """
    widest = max(packs, key=lambda pack: len(pack.tokens_T))
    tokens, longest = len(widest.tokens_T), max(max(tokens_together(pack.lengths, together)) for pack in packs)
    if len(widest.lengths) == together:
        raise UserError(
            f"a row of {tokens} tokens does not fit into memory, alone in its pass. Set max_length lower, "
            "or trainer.activation_checkpointing to true; `plan` shows what needs how much."
        )
    return max(longest, tokens // 2)


def halved(plan: BattlePlan, steps: Sequence[int], room: int, together: int = 1) -> int | None:
    """Tokens of a pass at most after the kernel ended a battle for its memory: half of the widest among the newest of
    `steps`, or their longest row; None where that shares nothing out. `room`: what a pass could have so far; `together`:
    sequences of a row."""
    if not plan.settings.packing:
        return None
    widest = longest = 0
    for step in steps[-LOOKED_AT:]:
        lengths = tokens_together(plan.lengths_at(step), together)
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
