"""Which means a battle is fought with, so that it fits into the memory there is; the most wanted that do.

It knows what they need from core/memory_needs.py, and nothing of how they are carried out.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.memory_needs import CPU, CUDA, GIB, MAPPED_HEAP, Component, Means, Shape, components, total

SHORTEST = 256  # tokens of a pass below which nothing is planned


@dataclass(frozen=True)
class Plan:
    """Means of a battle and what it needs. Where nothing fits into `room_bytes`: the nearest miss, with advice."""

    parameters: int
    target: str
    room_bytes: int
    max_length: int
    means: Means
    components: tuple[Component, ...]
    reasons: tuple[str, ...]
    advice: tuple[str, ...] = ()

    @property
    def total_bytes(self) -> int:
        return total(self.components)

    @property
    def headroom_bytes(self) -> int:
        return self.room_bytes - self.total_bytes

    @property
    def fits(self) -> bool:
        return self.headroom_bytes >= 0

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "total_bytes": self.total_bytes,
            "headroom_bytes": self.headroom_bytes,
            "fits": self.fits,
        }


def candidates(target: str, pack_tokens: int, max_length: int) -> Iterator[tuple[Means, ...]]:
    """Means in the order of preference, a group for each kind of numbers; within a group it is the speed that differs.

    fp32 moments beside bf16 weights only where nothing else has to be given up: moments of 8 bits cost less than
    computing layers again. Gradient release is last: it alone restricts what a step may be.
    """
    plain = Means(pack_tokens=pack_tokens)
    if target == CPU:
        plain = replace(plain, compute="fp32")
        yield plain, *_paces(replace(plain, mapped=True), max_length)
        return
    yield _paces(plain, max_length)
    bf16 = replace(plain, weights="bf16", rounding="stochastic")
    yield (bf16,)
    yield _paces(replace(bf16, moments="8bit"), max_length)
    yield _paces(replace(bf16, moments="8bit", release=True), max_length)


def _paces(means: Means, max_length: int) -> tuple[Means, ...]:
    """`means`, and what makes them need less and take longer."""
    found = [means, *(replace(means, recompute_every=every) for every in (4, 2, 1))]
    while found[-1].pack_tokens // 2 >= max(SHORTEST, max_length):
        found.append(replace(found[-1], pack_tokens=found[-1].pack_tokens // 2))
    return tuple(found)


def plan(
    shape: Shape, room_bytes: int, max_length: int, pack_tokens: int = 4096, target: str = CUDA, snapshot: bool = True
) -> Plan:
    """The first means in the order of preference that fit into `room_bytes`; see `Plan.fits`."""
    reasons: list[str] = []
    nearest: tuple[int, Means] | None = None
    for group in candidates(target, pack_tokens, max_length):
        needs = [(total(components(shape, means, max_length, target, snapshot)), means) for means in group]
        place = next((place for place, (need, _) in enumerate(needs) if need <= room_bytes), None)
        if place is not None:
            nearest = needs[place]
            reasons += _reasons(needs[: place + 1])
            break
        best = min(needs, key=lambda need: need[0])
        reasons.append(
            f"{_numbers(best[1])}: {_gib(best[0])} " + ("at least" if len(group) > 1 else "with nothing else given up")
        )
        nearest = best if nearest is None or best[0] < nearest[0] else nearest
    need, means = nearest
    advice = _advice(shape, room_bytes, need, max_length, target, snapshot) if need > room_bytes else ()
    found = components(shape, means, max_length, target, snapshot)
    return Plan(shape.parameters, target, room_bytes, max_length, means, found, tuple(reasons), advice)


def _numbers(means: Means) -> str:
    """The kind of numbers in words."""
    weights = "fp32 weights" if means.weights == "fp32" else "bf16 weights, rounded stochastically"
    return f"{weights}, {means.moments} moments" + (", gradients released one by one" if means.release else "")


def _reasons(needs: list[tuple[int, Means]]) -> list[str]:
    """Why the last of `needs` and not those before, and what it asks in return."""
    (most, plain), (_, chosen) = needs[0], needs[-1]
    found = [f"{_numbers(chosen)}: chosen"]
    if chosen.mapped:
        found.append(
            f"memory is mapped block by block (environment {_environment()}): the C library's heap needs {_gib(most)}"
        )
    if chosen.recompute_every:
        kept = next(need for need, means in reversed(needs) if not means.recompute_every)
        which = {1: "every layer", 2: "every second layer", 4: "every fourth layer"}[chosen.recompute_every]
        found.append(f"{which} is computed again in the backward pass: keeping all activations needs {_gib(kept)}")
    if chosen.pack_tokens < plain.pack_tokens:
        found.append(f"{chosen.pack_tokens} tokens a pass: {2 * chosen.pack_tokens} need {_gib(needs[-2][0])}")
    if chosen.release:
        found.append(
            "a step is one pass, which must hold all its rows; nothing is clipped by the norm of all gradients"
        )
    return found


def _environment() -> str:
    return " ".join(f"{name}={value}" for name, value in MAPPED_HEAP.items())


def _advice(shape: Shape, room_bytes: int, need: int, max_length: int, target: str, snapshot: bool) -> tuple[str, ...]:
    """What would make it fit."""
    memory = "GPU memory" if target == CUDA else "main memory"
    found = [f"{_gib(need)} of {memory} would do, {_gib(need - room_bytes)} more"]
    for shorter in (length for length in (8192, 4096, 2048, 1024, 512, 256) if length < max_length):
        least = min(
            total(components(shape, means, shorter, target, snapshot))
            for group in candidates(target, shorter, shorter)
            for means in group
        )
        if least <= room_bytes:
            found.append(f"rows of at most {shorter} tokens fit: set max_length and pack_tokens to {shorter}")
            break
    found.append("a smaller model: half as many parameters need about half as much")
    if target == CUDA:
        found.append("`plan --cpu` says whether main memory would do; a GPU is many times faster")
    return tuple(found)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
