"""A battle: two agents learn from the same batches in the same order, then write; the better score wins. It knows how a battle
is fought and paid, not how an agent learns.

Both go on from where they are and keep what they learn. The order belongs to the battle, not to either of them, and their
places in their own text stay. With equal energy each takes as many steps as the cheaper one's STEPS would cost.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.arena import scores
from core.arena.data import Alphabet, Samples
from core.arena.energy import steps_energy, writing_energy
from core.arena.league import CROWN, Arena, Book
from core.arena.play import (
    ALONE,
    TOLD_SECONDS,
    Caller,
    curve,
    examined,
    refuse_starving,
    take_up,
)
from core.arena.records import Record
from core.errors import UserError

if TYPE_CHECKING:
    from core.arena.agent import Agent

TEXTS = 50
SHOWN = 24  # of each agent's texts, while and after they are written
ORDER_SEED = 1_000_000  # battles' orders are none that an agent has for itself
AT_ONCE = 10  # texts that are written together, so that they can be watched coming


@dataclass(frozen=True)
class Terms:
    """What is fought about. `names`: the texts that each writes."""

    steps: int
    equal_energy: bool = False
    names: int = TEXTS


@dataclass
class Side:
    """One of the two in a battle."""

    record: Record
    steps: int
    cost: float
    agent: "Agent | None" = None
    losses: list = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.record.name

    @property
    def shown(self) -> list[str]:
        return [text for text in self.texts if text][:SHOWN]


def battle(
    arena: Arena, one: str, other: str, terms: Terms, data: Path | None = None, caller: Caller = ALONE
) -> dict[str, Any]:
    """Fight it, and what came of it. Raises UserError before the first step where it cannot be fought."""
    with arena.alone(f"battle {one} {other} {terms.steps}", caller.waits) as book:
        records = [book.agent(one), book.agent(other)]
        if one == other:
            raise UserError(f"{one} cannot fight itself; name two agents")
        samples = _common_text(arena, records, data)
        seed, size = ORDER_SEED + book.fought, min(record.state.settings.batch_size for record in records)
        widths = samples.widths(0, terms.steps, size, seed)
        sides = _sides(records, terms, widths, size)
        _refuse_poor(book, sides, samples, terms)
        fight = _Fight(arena, sides, samples, seed, size, terms, caller)
        fight.train()
        fight.write()
        if fight.left:
            raise UserError("the battle was broken off; nothing of it counts, and both agents are as they were before")
        result = _settle(arena, book, fight)
        arena.commit(book)
        fight.tell("done", result=result)
        return result


def _common_text(arena: Arena, records: list[Record], data: Path | None) -> Samples:
    """What both learn from."""
    if data is None and records[0].state.data != records[1].state.data:
        told = " and ".join(f"{one.name} learns {one.state.title}" for one in records)
        raise UserError(f"{told}; a battle is about one text: give it with --data FILE")
    samples, _ = (take_up(arena, record, data) for record in records)
    return samples


def _sides(records: list[Record], terms: Terms, widths, size: int) -> list[Side]:
    """Who takes how many steps for which energy."""
    bills = [
        [steps_energy(one.shape, len(Alphabet(one.state.letters)), size, [int(width)]) for width in widths]
        for one in records
    ]
    if not terms.equal_energy:
        return [Side(record, terms.steps, sum(bill)) for record, bill in zip(records, bills, strict=True)]
    budget, sides = min(map(sum, bills)), []
    for record, bill in zip(records, bills, strict=True):
        steps, spent = 0, 0.0
        while steps < len(bill) and spent + bill[steps] <= budget * (1 + 1e-9):
            spent += bill[steps]
            steps += 1
        if not steps:
            raise UserError(
                f"{budget:.4g} energy for each is less than one step of {record.name} ({bill[0]:.4g}); give more STEPS"
            )
        sides.append(Side(record, steps, spent))
    return sides


def _refuse_poor(book: Book, sides: list[Side], samples: Samples, terms: Terms) -> None:
    writing = sum(
        writing_energy(side.record.shape, len(Alphabet(side.record.state.letters)), [samples.most + 1]) * terms.names
        for side in sides
    )
    needed = sum(side.cost for side in sides) + writing
    if needed > book.energy:
        steps = int(terms.steps * max(0.0, book.energy - writing) / max(needed - writing, 1e-12))
        refuse_starving(book, f"this battle ({needed:,.4g})", f"enough for about {steps:,} steps of it")


class _Fight:
    """The part of a battle that takes time: training and writing, told as it goes."""

    def __init__(self, arena: Arena, sides, samples: Samples, seed: int, size: int, terms: Terms, caller: Caller):
        from core.arena.agent import Agent  # torch
        from core.arena.joules import Meter

        self._arena, self._caller, self._seed, self._size = arena, caller, seed, size
        self.sides, self.samples, self.terms, self.left = sides, samples, terms, False
        for side in sides:
            side.agent = Agent(side.record, arena.paths.arena_agent(side.name))
        self.meters = [Meter(side.agent.device) for side in sides]
        self._began = self._told = time.monotonic()
        self._done = 0
        self.tell("training")

    def train(self) -> None:
        """Step by step, both on the same batch."""
        lines = self.samples.places(0, self.terms.steps * self._size, self._seed).reshape(-1, self._size)
        encoded = [side.agent.alphabet.encoded(self.samples.trained) for side in self.sides]
        for step in range(max(side.steps for side in self.sides)):
            for side, texts in zip(self.sides, encoded, strict=True):
                if step < side.steps:
                    side.losses.append(side.agent.train(texts.batch(lines[step])))
            self._done = step + 1
            if time.monotonic() - self._told > TOLD_SECONDS:
                self.tell("training")
            if self.left or self._caller.leaves():
                self.left = True
                return

    def write(self) -> None:
        """In turn, some texts at a time."""
        for first in range(0, self.terms.names, AT_ONCE):
            for side in self.sides:
                count = min(AT_ONCE, self.terms.names - first)
                side.texts += self._texts(side, ["battle", self._seed, side.record.seed, first], count)
            self.tell("writing")
            self.left = self.left or self._caller.leaves()

    def _texts(self, side: Side, draw: list, count: int) -> list[str | None]:
        """Whoever's numbers are none writes nothing, and pays nothing for it."""
        try:
            (written,) = side.agent.write(count, draw, self.samples.most)
        except UserError:
            return [None] * count
        side.cost += writing_energy(side.record.shape, len(side.agent.alphabet), written.lengths)
        return written.texts

    def tell(self, phase: str, **more: Any) -> None:
        self._told = now = time.monotonic()
        steps, done = max(side.steps for side in self.sides), self._done
        facts = {
            "kind": "battle",
            "phase": phase,
            "agents": [side.name for side in self.sides],
            "step": done,
            "steps": steps,
            "loss": {side.name: float(side.losses[-1]) if side.losses else None for side in self.sides},
            "eta_seconds": (now - self._began) / done * (steps - done) if done else None,
            "curves": {side.name: curve(side.losses) for side in self.sides},
            "names": {side.name: side.shown for side in self.sides},
        }
        self._arena.tell(facts | more)
        self._caller.hear(facts | more)


def _settle(arena: Arena, book: Book, fight: _Fight) -> dict[str, Any]:
    """Weigh both, change ratings, energy and crown, and put everything on record."""
    points, worths = {}, {}
    for side, meter in zip(fight.sides, fight.meters, strict=True):
        agent, record = side.agent, side.record
        file = arena.write_state(record, agent.step, agent.content())
        agent.state = record.state = agent.now(file, **examined(agent, fight.samples))
        book.spend(record, side.cost)
        record.joules = meter.added(record.joules)
        worth = worths[side.name] = scores.words(side.texts, fight.samples.known)
        points[side.name] = scores.score(record.state.validation_loss, len(record.state.letters), worth.uniqueness)
    one, other = fight.sides
    ahead = points[one.name] - points[other.name]
    winner, loser = (one, other) if ahead > 0 else (other, one) if ahead < 0 else (None, None)
    _rate(one.record, other.record, 0.5 if winner is None else float(winner is one))
    prize = book.refill(loser.cost) if winner else 0.0
    if winner and book.champion in (None, winner.name, loser.name):
        book.champion = winner.name
        winner.record.saved[CROWN] = winner.record.state
    book.fought += 1
    told = {
        side.name: side.record.facts()
        | vars(worths[side.name])
        | {"score": points[side.name], "steps": side.steps, "energy_spent": side.cost, "names": side.shown}
        for side in fight.sides
    }
    result = {
        "battle": book.fought,
        "winner": winner.name if winner else None,
        "loser": loser.name if loser else None,
        "draw": winner is None,
        "steps": fight.terms.steps,
        "equal_energy": fight.terms.equal_energy,
        "data": fight.samples.title,
        "agents": told,
        "prize": prize,
        "champion": book.champion,
        "energy": book.energy,
    }
    book.battles.append(_remembered(result))
    return result


def _rate(one: Record, other: Record, result: float) -> None:
    """Ratings and counts after `result` of the first: 1 won, 0.5 drawn, 0 lost."""
    change = scores.elo_change(one.elo, other.elo, result)
    one.elo, other.elo = one.elo + change, other.elo - change
    if result == 0.5:
        one.draws, other.draws = one.draws + 1, other.draws + 1
    else:
        won, lost = (one, other) if result else (other, one)
        won.wins, lost.losses = won.wins + 1, lost.losses + 1


def _remembered(result: dict[str, Any]) -> dict[str, Any]:
    """What stays on record of a battle."""
    kept = ("score", "validation_loss", "perplexity", "uniqueness", "steps", "energy_spent", "elo")
    agents = {name: {key: facts[key] for key in kept} for name, facts in result["agents"].items()}
    return {key: value for key, value in result.items() if key not in ("energy", "champion")} | {"agents": agents}
