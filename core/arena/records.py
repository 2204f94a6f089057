"""What the arena remembers of an agent: settings, states, standing, all of it JSON. It knows no torch and writes no file."""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from core.arena import scores
from core.arena.data import Alphabet
from core.arena.shape import Shape
from core.errors import UserError, nearest

NAME, SLOT = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}"), re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
CROWN = "champion"  # the state in which an agent took the crown
DEVICES = ("cpu", "cuda")
LIMITS: dict[str, tuple[type, float, float]] = {  # setting: its kind, the least and the most
    "learning_rate": (float, 0.0, 1000.0),
    "batch_size": (int, 1, 4096),
    "weight_decay": (float, 0.0, 10.0),
    "clip": (float, 0.0, 1e9),
    "warmup_steps": (int, 0, 100_000),
    "temperature": (float, 0.01, 10.0),
}


@dataclass(frozen=True)
class Settings:
    """How an agent learns and writes. `clip`: the most that a gradient's norm may be, 0 as it comes; the rate rises over
    `warmup_steps` and stays, for training has no end that it could fall towards. `temperature`: a little above 1, for names
    are to be new; exams and battles are written at that, whatever it is set to."""

    learning_rate: float
    batch_size: int = 64
    weight_decay: float = 0.1
    clip: float = 1.0
    warmup_steps: int = 20
    temperature: float = 1.2
    device: str = "cpu"

    @classmethod
    def for_shape(cls, shape: Shape) -> "Settings":
        """The smaller, the faster: 0.003 at 100,000 parameters, and the third root of how many times fewer there are."""
        return cls(float(f"{0.003 * (1e5 / shape.parameters(28)) ** (1 / 3):.2g}"))

    def changed(self, name: str, text: str) -> "Settings":
        """With the setting `name` as `text` says. Raises UserError."""
        if setting(name) == "device":
            if text not in DEVICES:
                raise UserError(f"device = {text[:40]!r}: must be {' or '.join(DEVICES)}")
            return replace(self, device=text)
        kind, least, most = LIMITS[name]
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most or (name == "learning_rate" and value <= 0):
            what = "a whole number" if kind is int else "a number"
            bound = f"above 0 and at most {most:g}" if name == "learning_rate" else f"from {least:g} to {most:g}"
            raise UserError(f"{name} = {text[:40]!r}: must be {what} {bound}")
        return replace(self, **{name: value})


def setting(name: str) -> str:
    """`name`, if a setting is called so. Raises UserError."""
    known = [each.name for each in fields(Settings)]
    if name not in known:
        raise UserError(f"no setting is called {name[:40]!r}{nearest(name, known) or '.'} Known: {', '.join(known)}")
    return name


@dataclass(frozen=True)
class State:
    """An agent as it is or was: `file` below its folder holds its weights (None: those of its seed, untrained). `seen`:
    samples learned of the text that `data` is the key of and `title` the name; `letters`: its alphabet. Losses are nats per
    character."""

    settings: Settings
    data: str
    title: str
    letters: str
    step: int = 0
    seen: int = 0
    file: str | None = None
    loss: float | None = None
    validation_loss: float | None = None
    validity: float | None = None
    novelty: float | None = None
    uniqueness: float | None = None

    @property
    def score(self) -> float:
        return scores.score(self.validation_loss, len(self.letters), self.uniqueness)

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "State":
        return cls(**{**values, "settings": Settings(**values["settings"])})


@dataclass
class Record:
    """An agent. `spent`: energy over its whole life, which no `load` gives back; `joules`: of a GPU, None where none was
    read; `written`: how often it wrote, so that each time brings other words."""

    name: str
    shape: Shape
    seed: int
    state: State
    saved: dict[str, State] = field(default_factory=dict)
    spent: float = 0.0
    joules: float | None = None
    elo: float = scores.START_ELO
    wins: int = 0
    losses: int = 0
    draws: int = 0
    written: int = 0

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> "Record":
        saved = {slot: State.read(state) for slot, state in values["saved"].items()}
        return cls(
            **{**values, "shape": Shape(**values["shape"]), "state": State.read(values["state"]), "saved": saved}
        )

    @property
    def parameters(self) -> int:
        return self.shape.parameters(len(Alphabet(self.state.letters)))

    @property
    def files(self) -> set[str]:
        """The files that its states are in."""
        return {state.file for state in (self.state, *self.saved.values()) if state.file}

    def facts(self) -> dict[str, Any]:
        """What is told of it, with the field's words."""
        state = self.state
        return {
            "name": self.name,
            "agent": self.name,
            **asdict(self.shape),
            "parameters": self.parameters,
            "step": state.step,
            "data": state.title,
            "loss": state.loss,
            "validation_loss": state.validation_loss,
            "perplexity": scores.perplexity(state.validation_loss),
            "uniqueness": state.uniqueness,
            "novelty": state.novelty,
            "validity": state.validity,
            "score": state.score,
            "energy_spent": self.spent,
            "efficiency": scores.efficiency(state.score, self.spent),
            "joules": self.joules,
            "elo": self.elo,
            "wins": self.wins,
            "losses": self.losses,
            "draws": self.draws,
            "saved": sorted(self.saved),
        }


def seed_of(name: str) -> int:
    """What an agent of that name begins from, unless a player says otherwise: two of one shape are no twins."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest()) >> 1


def checked_name(name: str) -> str:
    """`name`, if an agent may be called so: it becomes a folder's. Raises UserError."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"{name[:60]!r} cannot be the name of an agent: take letters, digits and _, a letter first, 32 at most"
        )
    return name


def checked_slot(name: str) -> str:
    """`name`, if a saved state may be called so. Raises UserError."""
    if not SLOT.fullmatch(name):
        raise UserError(
            f"{name[:60]!r} cannot be the name of a saved state: take letters, digits and _.-, 64 at most; it is kept in the "
            "arena, not in a file of yours"
        )
    if name == CROWN:
        raise UserError(f"{CROWN} is the state in which an agent won the crown; take another name")
    return name
