"""A battle: two agents learn from the same batches in the same order, then write; the better score wins. It knows how a battle
is fought and paid, not how an agent learns.

Both go on from where they are and keep what they learn. The order belongs to the battle, not to either of them, and their
places in their own text stay. With equal energy each takes as many steps as the cheaper one's STEPS would cost.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.arena import scores
from core.arena.data import Alphabet, Samples
from core.arena.energy import writing_energy
from core.arena.league import Arena, Book
from core.arena.play import (
    ALONE,
    FAIR_TEMPERATURE,
    TOLD_SECONDS,
    Caller,
    Curve,
    Order,
    batches,
    costs,
    examined,
    refuse_starving,
    take_up,
)
from core.arena.records import CROWN, Record
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
    losses: Curve = field(default_factory=Curve)
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
        if records[0] is records[1]:
            raise UserError(f"{one} cannot fight itself; name two agents")
        samples = _common_text(arena, records, data)
        order = Order(ORDER_SEED + book.fought, 0, min(record.state.settings.batch_size for record in records))
        sides = _sides(book, records, samples, order, terms)
        fight = _Fight(arena, sides, samples, order, terms, caller)
        if not (fight.train() and fight.write()):
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


def _sides(book: Book, records: list[Record], samples: Samples, order: Order, terms: Terms) -> list[Side]:
    """Who takes how many steps for which energy. Raises UserError where there is too little of it."""
    writing = sum(
        terms.names * writing_energy(one.shape, len(Alphabet(one.state.letters)), [samples.most + 1]) for one in records
    )
    budget = max(0.0, book.energy - writing)
    bills = [costs(record, samples, order, terms.steps, budget) for record in records]
    whole = [bill.sum() for bill in bills if len(bill) == terms.steps]
    if terms.equal_energy and whole:
        bills = [_as_far_as(bill, min(whole), record.name) for bill, record in zip(bills, records, strict=True)]
    elif len(whole) < 2 or sum(whole) > budget:
        both = sum(bill[: min(map(len, bills))] for bill in bills).cumsum()
        steps = int(np.searchsorted(both, budget, "right"))
        refuse_starving(book, f"a battle of {terms.steps:,} steps", f"enough for {steps:,} steps of it")
    if (needed := sum(bill.sum() for bill in bills)) > budget:
        refuse_starving(book, "this battle", f"{needed + writing:,.4g} are needed")
    return [Side(record, len(bill), float(bill.sum())) for record, bill in zip(records, bills, strict=True)]


def _as_far_as(bill: np.ndarray, budget: float, name: str) -> np.ndarray:
    """The steps that `budget` pays. Raises UserError where it is not even one."""
    paid = bill[: int(np.searchsorted(bill.cumsum(), budget * (1 + 1e-9), "right"))]
    if not len(paid):
        raise UserError(f"{budget:.4g} energy for each is less than one step of {name}; give more STEPS")
    return paid


class _Fight:
    """The part of a battle that takes time: training and writing, told as it goes."""

    def __init__(self, arena: Arena, sides: list[Side], samples: Samples, order: Order, terms: Terms, caller: Caller):
        from core.arena.agent import Agent  # torch
        from core.arena.joules import Meter

        self._arena, self._caller, self._order = arena, caller, order
        self.sides, self.samples, self.terms = sides, samples, terms
        for side in sides:
            side.agent = Agent(side.record, arena.paths.arena_agent(side.name))
        self.meters = [Meter(side.agent.device) for side in sides]
        self._began = self._told = time.monotonic()
        self._done = 0
        self.tell("training")

    def train(self) -> bool:
        """Step by step, both on the same batch; whether to the end."""
        encoded = [side.agent.alphabet.encoded(self.samples.trained) for side in self.sides]
        steps = max(side.steps for side in self.sides)
        for step, lines in enumerate(batches(self.samples, self._order, steps)):
            for side, texts in zip(self.sides, encoded, strict=True):
                if step < side.steps:
                    side.losses.append(side.agent.train(texts.batch(lines)))
            self._done = step + 1
            if time.monotonic() - self._told > TOLD_SECONDS:
                self.tell("training")
            if self._caller.leaves():
                return False
        return True

    def write(self) -> bool:
        """In turn, some texts at a time; whether to the end."""
        for first in range(0, self.terms.names, AT_ONCE):
            for side in self.sides:
                count = min(AT_ONCE, self.terms.names - first)
                side.texts += self._texts(side, ["battle", self._order.seed, side.record.seed, first], count)
            self.tell("writing")
            if self._caller.leaves():
                return False
        return True

    def _texts(self, side: Side, draw: list, count: int) -> list[str | None]:
        """Whoever's numbers are none writes nothing, and pays nothing for it."""
        try:
            (written,) = side.agent.write(count, draw, self.samples.most, FAIR_TEMPERATURE)
        except UserError:
            return [None] * count
        side.cost += writing_energy(side.record.shape, len(side.agent.alphabet), written.lengths)
        return written.whole

    def tell(self, phase: str, **more: Any) -> None:
        self._told = now = time.monotonic()
        steps, done = max(side.steps for side in self.sides), self._done
        curves = {side.name: side.losses.points() for side in self.sides}
        facts = {
            "kind": "battle",
            "phase": phase,
            "agents": [side.name for side in self.sides],
            "step": done,
            "steps": steps,
            "loss": {name: points[-1][1] if points else None for name, points in curves.items()},
            "eta_seconds": (now - self._began) / done * (steps - done) if done else None,
            "curves": curves,
            "names": {side.name: side.shown for side in self.sides},
        }
        self._arena.tell(facts | more)
        self._caller.hear(facts | more)


def _settle(arena: Arena, book: Book, fight: _Fight) -> dict[str, Any]:
    """Weigh both, change ratings, energy and crown, and put everything on record."""
    points, worths, letters = {}, {}, len(fight.samples.letters)  # the text's: a large alphabet is no merit
    for side, meter in zip(fight.sides, fight.meters, strict=True):
        agent, record = side.agent, side.record
        file = arena.write_state(record, agent.step, agent.content())
        agent.state = record.state = agent.now(file, **examined(agent, fight.samples))
        book.spend(record, side.cost)
        record.joules = meter.added(record.joules)
        worth = worths[side.name] = scores.words(side.texts, fight.samples.known)
        points[side.name] = scores.score(record.state.validation_loss, letters, worth.uniqueness)
    one, other = fight.sides
    winner, loser = _ahead(one, other, points)
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


def _ahead(one: Side, other: Side, points: dict[str, float]) -> tuple[Side, Side] | tuple[None, None]:
    """Winner and loser: by score, of equal scores (as when neither knows anything yet) by held-out loss; or nobody."""
    found = []
    for side in (one, other):
        loss = side.record.state.validation_loss
        found.append((points[side.name], -math.inf if loss is None else -loss))
    if found[0] == found[1]:
        return None, None
    return (one, other) if found[0] > found[1] else (other, one)


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
