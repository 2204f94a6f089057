"""What a player does with one agent: create, train, write, save, load, set. It knows how acts are paid and kept, not how an
agent computes; torch is imported only where one learns or writes.

Each act takes the arena for itself, changes the book and commits it. A long training is kept every half minute, so that a
kill costs no more; when it is kept changes nothing that is learned.
"""

import math
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.arena import scores
from core.arena.data import Alphabet, Samples, bundled
from core.arena.energy import FULL, step_energies, writing_energy
from core.arena.league import Arena, Book
from core.arena.records import Record, Settings, State, checked_name, checked_slot, seed_of, setting
from core.arena.shape import Shape
from core.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from core.arena.agent import Agent

KEPT_SECONDS, TOLD_SECONDS = 30.0, 0.25
AT_ONCE = 256  # steps whose order is computed together
EXAM_TEXTS = 200
FAIR_TEMPERATURE = Settings.temperature  # of exams and battles, whatever a player has set: scores compare agents
SLOT = "saved"
CURVE_POINTS = 240


def _nobody(facts: dict[str, Any]) -> None:
    pass


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Caller:
    """Who plays. `hear` is told how far a piece of work is, `waits` whom it waits for; `leaves` says when to stop early."""

    hear: Callable[[dict[str, Any]], None] = _nobody
    waits: Callable[[str], None] = lambda who: None
    leaves: Callable[[], bool] = _never


ALONE = Caller()


@dataclass(frozen=True)
class Order:
    """Where in the endless order of `seed` training begins, and how many samples each step takes."""

    seed: int
    first: int
    size: int


def create(
    arena: Arena, name: str, shape: Shape, data: Path | None, seed: int | None, caller: Caller = ALONE
) -> dict[str, Any]:
    """A new agent with the weights of its seed (None: its name's), which is then the current one. Raises UserError."""
    checked_name(name)
    with arena.alone(f"create_agent {name}", caller.waits) as book:
        taken = {known.lower(): known for known in book.agents}
        if name.lower() in taken:
            raise UserError(f"there is an agent {taken[name.lower()]} already; take another name")
        samples = arena.adopt(data) if data else bundled()
        state = State(Settings.for_shape(shape), samples.key, samples.title, samples.letters)
        record = book.agents[name] = Record(name, shape, seed_of(name) if seed is None else seed, state)
        book.current = name
        arena.commit(book)
        return record.facts() | {"energy": book.energy, "learning_rate": state.settings.learning_rate}


def switch(arena: Arena, name: str, caller: Caller = ALONE) -> dict[str, Any]:
    """Make another agent the current one."""
    with arena.alone(f"switch_agent {name}", caller.waits) as book:
        record = book.agent(name)
        book.current = record.name
        arena.commit(book)
        return record.facts() | {"energy": book.energy}


def rest(arena: Arena, caller: Caller = ALONE) -> dict[str, Any]:
    """Fill the player's energy up. It costs nothing but what was spent before, by which every score is divided."""
    with arena.alone("rest", caller.waits) as book:
        gained = book.refill(FULL)
        book.rests += 1
        arena.commit(book)
        return {"energy": book.energy, "gained": gained, "rests": book.rests}


def settings(
    arena: Arena, agent: str | None, name: str | None, value: str | None, caller: Caller = ALONE
) -> dict[str, Any]:
    """The settings of an agent, after `name` was set to `value` where both are given."""
    if value is None:
        record = arena.read().agent(agent)
    else:
        with arena.alone(f"config {name}", caller.waits) as book:
            record = book.agent(agent)
            record.state = replace(record.state, settings=record.state.settings.changed(name, value))
            arena.commit(book)
    known = vars(record.state.settings)
    return {"agent": record.name, "config": dict(known) if name is None else {name: known[setting(name)]}}


def save(arena: Arena, agent: str | None, slot: str, caller: Caller = ALONE) -> dict[str, Any]:
    """Keep the agent's state as it is under a name of its own."""
    checked_slot(slot)
    with arena.alone(f"save {slot}", caller.waits) as book:
        record = book.agent(agent)
        record.saved[slot] = record.state
        arena.commit(book)
        return {"agent": record.name, "saved": slot, "step": record.state.step, "states": sorted(record.saved)}


def load(arena: Arena, agent: str | None, slot: str, caller: Caller = ALONE) -> dict[str, Any]:
    """Go back to a state that was saved: weights, optimizer, place in the text and settings. What was spent stays spent."""
    with arena.alone(f"load {slot}", caller.waits) as book:
        record = book.agent(agent)
        if slot not in record.saved:
            known = f"it has {', '.join(sorted(record.saved))}" if record.saved else "`save` keeps one"
            raise UserError(f"{record.name} has no saved state {slot[:40]!r}; {known}")
        record.state = record.saved[slot]
        arena.commit(book)
        return record.facts() | {"loaded": slot, "energy": book.energy}


def delete(arena: Arena, name: str, caller: Caller = ALONE) -> dict[str, Any]:
    """Remove an agent and all its states for good."""
    with arena.alone(f"delete_agent {name}", caller.waits) as book:
        record = book.agent(name)
        del book.agents[name]
        book.current = next(iter(book.agents), None) if book.current == name else book.current
        book.champion = None if book.champion == name else book.champion
        arena.commit(book)
        shutil.rmtree(arena.paths.arena_agent(record.name), ignore_errors=True)
        return {"deleted": name, "current": book.current}


def take_up(arena: Arena, record: Record, data: Path | None) -> Samples:
    """What the agent learns from: its own text, or that in `data` from now on. Raises UserError where it has letters that a
    trained agent lacks."""
    state = record.state
    if data is None:
        return arena.samples(state)
    samples = arena.adopt(data)
    if samples.key == state.data:
        return samples
    text = {"data": samples.key, "title": samples.title, "seen": 0}
    if state.step == 0:
        record.state = replace(state, **text, letters=samples.letters)
    elif strange := Alphabet(state.letters).strange(samples.letters):
        raise UserError(
            f"--data {data}: {record.name} has never seen {' '.join(strange[:10])!r}, for its letters were settled by its "
            f"first training; create an agent for this text: `create_agent NAME … --data {data}`"
        )
    else:
        record.state = replace(state, **text)
    return samples


def costs(record: Record, samples: Samples, order: Order, steps: int, budget: float) -> "np.ndarray":
    """Energy of each of the next steps in that order, as far as `budget` goes."""
    import numpy as np

    vocabulary, found, left = len(Alphabet(record.state.letters)), [np.zeros(0)], budget
    for begun in range(0, steps, AT_ONCE):
        widths = samples.widths(order.first + begun * order.size, min(AT_ONCE, steps - begun), order.size, order.seed)
        bill = step_energies(record.shape, vocabulary, order.size, widths)
        affordable = int(np.searchsorted(bill.cumsum(), left, "right"))
        found.append(bill[:affordable])
        left -= bill.sum()
        if affordable < len(bill):
            break
    return np.concatenate(found)


def batches(samples: Samples, order: Order, steps: int) -> Iterator["np.ndarray"]:
    """The lines of each of the next batches in that order."""
    for begun in range(0, steps, AT_ONCE):
        count = min(AT_ONCE, steps - begun) * order.size
        yield from samples.places(order.first + begun * order.size, count, order.seed).reshape(-1, order.size)


def refuse_starving(book: Book, what: str, enough: str) -> None:
    raise UserError(
        f"{what} needs more energy than there is: {book.energy:,.4g} are left, {enough}. `rest` refills it."
    )


def train(
    arena: Arena, agent: str | None, steps: int, data: Path | None = None, caller: Caller = ALONE
) -> dict[str, Any]:
    """So many steps on the agent's text. Raises UserError, before the first one, where energy does not last."""
    with arena.alone(f"train {steps}", caller.waits) as book:
        record = book.agent(agent)
        samples = take_up(arena, record, data)
        order = Order(record.seed, record.state.seen, record.state.settings.batch_size)
        bill = costs(record, samples, order, steps, book.energy)
        if len(bill) < steps:
            refuse_starving(book, f"train {steps}", f"enough for {len(bill):,} steps of {record.name}")
        from core.arena.agent import Agent  # torch
        from core.arena.joules import Meter

        living = Agent(record, arena.paths.arena_agent(record.name))
        meter = Meter(living.device)
        taken = 0
        for done in _steps(arena, living, samples, order, steps, caller):
            _keep(arena, book, living, samples, bill[taken : taken + done], meter)
            taken += done
        facts = record.facts() | {"steps": taken, "energy": book.energy}
        arena.tell({"kind": "training", "phase": "done", "agents": [record.name], "result": facts})
        return facts


def _steps(arena: Arena, agent: "Agent", samples: Samples, order: Order, steps: int, caller: Caller) -> Iterator[int]:
    """Train; whenever the agent is to be kept, how many steps have been taken since it last was."""
    encoded, name = agent.alphabet.encoded(samples.trained), agent.record.name
    began = told = kept = time.monotonic()
    unkept, losses = 0, Curve()
    for step, lines in enumerate(batches(samples, order, steps)):
        losses.append(agent.train(encoded.batch(lines)))
        unkept += 1
        if (now := time.monotonic()) - told > TOLD_SECONDS:
            told, done = now, step + 1
            eta = (now - began) / done * (steps - done)
            facts = {"kind": "training", "phase": "training", "agents": [name], "step": done, "steps": steps}
            points = losses.points()
            facts |= {"loss": points[-1][1], "eta_seconds": eta}
            caller.hear(facts)
            arena.tell(facts | {"curves": {name: points}})
        if caller.leaves():
            break
        if now - kept > KEPT_SECONDS and step + 1 < steps:
            kept = now
            yield unkept
            unkept = 0
    yield unkept


def _keep(arena: Arena, book: Book, agent: "Agent", samples: Samples, bill: "np.ndarray", meter) -> None:
    """Examine the agent, put it down and pay."""
    record = agent.record
    file = arena.write_state(record, agent.step, agent.content())
    seen = record.state.seen + len(bill) * agent.settings.batch_size
    agent.state = record.state = agent.now(file, seen=seen, **examined(agent, samples))
    book.spend(record, float(bill.sum()))
    record.joules = meter.added(record.joules)
    arena.commit(book)


def examined(agent: "Agent", samples: Samples) -> dict[str, float | None]:
    """Held-out loss and the worth of what it writes, measured by the referee, who pays for it. No numbers, no worth."""
    loss = agent.held_out_loss(samples)
    texts: list[str | None] = []
    try:
        for written in agent.write(EXAM_TEXTS, ["exam", agent.record.seed], samples.most, FAIR_TEMPERATURE):
            texts += written.whole
    except UserError:
        texts = [None]
    return {"validation_loss": loss if math.isfinite(loss) else None, **vars(scores.words(texts, samples.known))}


def generate(
    arena: Arena,
    agent: str | None,
    count: int,
    seed: int | None = None,
    data: Path | None = None,
    caller: Caller = ALONE,
) -> dict[str, Any]:
    """So many texts, and what they are worth beside the agent's text, or that in `data`; with a seed always the same ones.
    Raises UserError where energy does not last."""
    with arena.alone(f"generate {count}", caller.waits) as book:
        record = book.agent(agent)
        samples = arena.adopt(data) if data else arena.samples(record.state)
        living = written_by(arena, book, record, samples, count)
        draw = ["generate", record.seed, record.written if seed is None else f"seed {seed}"]
        texts, whole, lengths = [], [], []
        for written in living.write(count, draw, samples.most, living.settings.temperature):
            texts += written.texts
            whole += written.whole
            lengths += written.lengths
        record.written += 1
        before = record.spent
        book.spend(record, writing_energy(record.shape, len(living.alphabet), lengths))
        arena.commit(book)
        return {
            "agent": record.name,
            "step": record.state.step,
            "names": texts,
            "count": count,
            **vars(scores.words(whole, samples.known)),
            "perplexity": scores.perplexity(record.state.validation_loss),
            "energy": book.energy,
            "energy_spent": record.spent - before,
        }


def written_by(arena: Arena, book: Book, record: Record, samples: Samples, count: int) -> "Agent":
    """The living agent, if there is energy for so many texts, however long they become."""
    vocabulary = len(Alphabet(record.state.letters))
    one = writing_energy(record.shape, vocabulary, [samples.most + 1])
    if one * count > book.energy:
        refuse_starving(book, f"generate {count}", f"enough for {int(book.energy / one):,} texts of {record.name}")
    from core.arena.agent import Agent  # torch

    return Agent(record, arena.paths.arena_agent(record.name))


class Curve:
    """The losses of a piece of work as they come. They are read only when they are looked at, and each once."""

    def __init__(self) -> None:
        self._fresh: list = []
        self._known: list[float] = []

    def append(self, loss) -> None:
        """Add the loss of a step, a tensor that may not be computed yet."""
        self._fresh.append(loss)

    def points(self) -> list[list[float]]:
        """Steps and losses, at most so many points, each the mean of its stretch."""
        self._known += map(float, self._fresh)
        self._fresh = []
        stride = -(-len(self._known) // CURVE_POINTS) or 1
        stretches = (self._known[at : at + stride] for at in range(0, len(self._known), stride))
        return [
            [number * stride + len(stretch), sum(stretch) / len(stretch)] for number, stretch in enumerate(stretches)
        ]
