"""Which means a battle is fought with, so that it fits into the memory there is; the most wanted that do.

It knows what they need from core/memory_needs.py, and nothing of how they are carried out.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from core.config import Config
from core.durable import read_json
from core.errors import UserError
from core.machine import Machine
from core.memory_needs import ALONE, CPU, CUDA, GIB, PACK_TOKENS, Beside, Component, Means, Shape, components, total
from core.optimizer_names import ADAMW, DEFAULT
from core.trainer_keys import layers_again

RECORD = "means.json"  # of a checkpoint: how it was trained
SHORTEST = 256  # tokens of a pass below which nothing is planned
KINDS = ("weights", "compute", "rounding", "moments", "release")  # of Means: what a hero keeps all its life


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


def candidates(
    target: str, pack_tokens: int, max_length: int, forced: dict[str, Any] | None = None, batch_size: int = 1
) -> Iterator[tuple[Means, ...]]:
    """Means in the order of preference, a group for each kind of numbers; within a group it is the speed that differs.

    fp32 moments beside bf16 weights only where nothing else has to be given up: moments of 8 bits cost less than
    computing layers again. Gradient release is last: it alone restricts what a step may be. `forced`: fields of Means
    that somebody has decided; the kinds that agree with them remain, or all of them, bent to agree.
    """
    forced, plain = forced or {}, Means(pack_tokens=pack_tokens)
    bf16 = replace(plain, weights="bf16", rounding="kahan" if forced.get("rounding") == "kahan" else "stochastic")
    if target == CPU:
        kinds = [replace(plain, compute="fp32")]
    else:
        small = replace(bf16, moments="8bit")
        kinds = [plain, bf16, small, replace(small, release=True)]
    agreeing = [kind for kind in kinds if kind == _bent(kind, forced)]
    for kind in dict.fromkeys(agreeing or [_bent(kind, forced) for kind in kinds]):
        at_once = max_length * (batch_size if kind.release else 1)  # released: all rows of a step in one pass
        lonely = kind == bf16
        kind = replace(kind, recompute_every=forced.get("recompute_every", 0))
        kind = kind if at_once <= max(pack_tokens, max_length) else replace(kind, pack_tokens=at_once)
        if target == CPU and not kind.mapped:
            yield kind, *_paces(replace(kind, mapped=True), at_once, forced)
        else:
            yield (kind,) if lonely else _paces(kind, at_once, forced)


def check_numbers(weights: str | None, optimizer: str, compute: str) -> None:
    """Raises UserError where bf16 weights meet what would lose their updates, or a wish that cannot act."""
    if weights == "bf16" and optimizer not in ADAMW:
        raise UserError(
            f"trainer.optim = {optimizer!r}: the hero's weights are bf16, and only the realm's AdamW loses no update of "
            "such; unset it, or set memory.weights to fp32"
        )
    if weights == "bf16" and compute == "fp32":
        raise UserError(
            "trainer.bf16 = false: the hero's weights are bf16, and so is what is computed with them; unset it, "
            "or set memory.weights to fp32"
        )


def _bent(means: Means, forced: dict[str, Any]) -> Means:
    """`means` with what is forced, and what follows from it."""
    means = replace(means, **{key: value for key, value in forced.items() if key != "recompute_every"})
    if forced.get("compute") == "fp32" and "weights" not in forced:
        means = replace(means, weights="fp32")
    if means.weights == "bf16":
        return replace(means, compute="bf16", rounding="stochastic" if means.rounding == "none" else means.rounding)
    return replace(means, rounding="none")


def _paces(means: Means, at_once: int, forced: dict[str, Any]) -> tuple[Means, ...]:
    """`means`, and what makes them need less and take longer."""
    every = [forced["recompute_every"]] if "recompute_every" in forced else [0, 4, 2, 1]
    found = [replace(means, recompute_every=count) for count in every]
    while found[-1].pack_tokens // 2 >= max(SHORTEST, at_once):
        found.append(replace(found[-1], pack_tokens=found[-1].pack_tokens // 2))
    return tuple(found)


def plan(
    shape: Shape,
    room_bytes: int,
    max_length: int,
    pack_tokens: int = 4096,
    target: str = CUDA,
    snapshot: bool = True,
    forced: dict[str, Any] | None = None,
    batch_size: int = 1,
    beside: Beside = ALONE,
) -> Plan:
    """The first means in the order of preference that fit into `room_bytes`; see `Plan.fits`."""
    asked = _Asked(shape, room_bytes, max_length, pack_tokens, target, snapshot, forced or {}, batch_size, beside)
    reasons: list[str] = []
    nearest: tuple[int, Means] | None = None
    for needs in asked.needs():
        place = next((place for place, (need, _) in enumerate(needs) if need <= room_bytes), None)
        if place is not None:
            nearest = needs[place]
            reasons += _reasons(needs[: place + 1])
            break
        best = min(needs, key=lambda need: need[0])
        reasons.append(
            f"{_numbers(best[1])}: {_gib(best[0])} " + ("at least" if len(needs) > 1 else "with nothing else given up")
        )
        nearest = best if nearest is None or best[0] < nearest[0] else nearest
    need, means = nearest
    found = components(shape, means, max_length, target, snapshot, beside)
    advice = _advice(asked, need) if need > room_bytes else ()
    return Plan(shape.parameters, target, room_bytes, max_length, means, found, tuple(reasons), advice)


@dataclass(frozen=True)
class _Asked:
    """What a plan was asked for."""

    shape: Shape
    room_bytes: int
    max_length: int
    pack_tokens: int
    target: str
    snapshot: bool
    forced: dict[str, Any]
    batch_size: int
    beside: Beside = ALONE

    def needs(self) -> Iterator[list[tuple[int, Means]]]:
        """Bytes and means of each candidate, group by group."""
        for group in candidates(self.target, self.pack_tokens, self.max_length, self.forced, self.batch_size):
            yield [
                (total(components(self.shape, means, self.max_length, self.target, self.snapshot, self.beside)), means)
                for means in group
            ]

    @property
    def could_fit(self) -> bool:
        return any(need <= self.room_bytes for needs in self.needs() for need, _ in needs)


def choose(config: Config, shape: Shape, machine: Machine, frozen: Means | None = None, beside: Beside = ALONE) -> Plan:
    """The plan of a hero of this shape under `config` on `machine`.

    What config says is done. `frozen`: the means that the hero was trained with; it keeps their kinds of numbers. `beside`: what
    the school of its battles holds.
    """
    wishes = {name: value for name, value in config.memory.wishes().items() if value is not None}
    kept = {name: getattr(frozen, name) for name in KINDS} if frozen else {}
    if frozen and wishes.get("weights", frozen.weights) != frozen.weights:
        del kept["rounding"], kept["compute"]  # they belong to the weights
    forced = kept | wishes
    if "bf16" in config.trainer:
        forced["compute"] = "bf16" if config.trainer["bf16"] else "fp32"
    elif "compute" not in forced:
        forced["compute"] = "bf16" if forced.get("weights") == "bf16" else machine.compute(shape.parameters)
    optimizer = config.trainer.get("optim", DEFAULT)
    if optimizer not in ADAMW:
        forced = {"weights": "fp32"} | forced | {"release": False}
    check_numbers(forced.get("weights"), optimizer, forced["compute"])
    if (every := layers_again(config.trainer, -1)) >= 0:
        forced["recompute_every"] = every
    return plan(
        shape,
        machine.room_bytes,
        config.max_length,
        config.pack_tokens or PACK_TOKENS[machine.target],
        machine.target,
        forced=forced,
        batch_size=config.batch_size,
        beside=beside,
    )


def frozen(folder: Path) -> Means | None:
    """The means that the hero in `folder` was trained with; None for one that was not trained yet."""
    values: dict[str, Any] = read_json(folder / RECORD, {})
    return Means(**values["means"]) if values else None


def _numbers(means: Means) -> str:
    """The kind of numbers in words."""
    how = {"none": "", "stochastic": ", rounded stochastically", "kahan": " with exact remainders"}[means.rounding]
    return f"{means.weights} weights{how}, {means.moments} moments" + (
        ", gradients released one by one" if means.release else ""
    )


def _reasons(needs: list[tuple[int, Means]]) -> list[str]:
    """Why the last of `needs` and not those before, and what it asks in return."""
    (most, plain), (_, chosen) = needs[0], needs[-1]
    found = [f"{_numbers(chosen)}: chosen"]
    if chosen.mapped:
        found.append(
            f"the C library maps large blocks one by one, which takes longer: with its heap it would need {_gib(most)}"
        )
    if chosen.recompute_every:
        kept = next((need for need, means in reversed(needs) if not means.recompute_every), None)
        which = {1: "every layer", 2: "every second layer"}.get(
            chosen.recompute_every, f"one layer in {chosen.recompute_every}"
        )
        why = f"keeping all activations needs {_gib(kept)}" if kept else "config.json says so"
        found.append(f"{which} is computed again in the backward pass: {why}")
    if chosen.pack_tokens < plain.pack_tokens:
        found.append(f"{chosen.pack_tokens} tokens a pass: {2 * chosen.pack_tokens} need {_gib(needs[-2][0])}")
    if chosen.release:
        found.append(
            "a step is one pass, which must hold all its rows; nothing is clipped by the norm of all gradients"
        )
    return found


def _advice(asked: _Asked, need: int) -> tuple[str, ...]:
    """What would make it fit."""
    memory = "GPU memory" if asked.target == CUDA else "main memory"
    found = [f"{_gib(need)} of {memory} would do, {_gib(need - asked.room_bytes)} more"]
    fewer = (asked.batch_size >> places for places in range(1, asked.batch_size.bit_length()))
    if size := next((size for size in fewer if replace(asked, batch_size=size).could_fit), None):
        found.append(f"fewer rows a step: batch_size {size} fits, with gradient release")
    if asked.forced and replace(asked, forced={}).could_fit:
        settings = ", ".join(f"{name} {value}" for name, value in asked.forced.items())
        found.append(
            f"other means than config.json or the hero's past ask for ({settings}): see `config explain memory`"
        )
    for shorter in (length for length in (8192, 4096, 2048, 1024, 512, 256) if length < asked.max_length):
        if replace(asked, max_length=shorter, pack_tokens=shorter).could_fit:
            found.append(f"rows of at most {shorter} tokens fit: set max_length and pack_tokens to {shorter}")
            break
    found.append("a smaller model: half as many parameters need about half as much")
    if asked.target == CUDA:
        found.append("`plan --cpu` says whether main memory would do; a GPU is many times faster")
    return tuple(found)


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
