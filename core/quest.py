"""A quest: its names on disk, the sidecar a user may drop with it, and the settings frozen when it is accepted.

It knows nothing about folders' meaning (training_queue) or rows (formats, validator).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, ValidationError

from core.config import Config, Section
from core.dice_config import Dice, reach_problem
from core.durable import read_json
from core.errors import UserError, nearest
from core.hero_profile import HeroName
from core.paths import PRIORITIES
from core.profiles import ProfileName
from core.regular_file import open_regular
from core.school_config import SchoolName, Schools

SIDECAR_BYTES = 1 << 20
SHOWN_ERRORS = 5
ANSWERS = ".answers.jsonl"  # a teacher's
COMPANIONS = (".quest.json", ".report.json", ".bad.jsonl", ANSWERS)
ENDING = ".jsonl"
IDLE = "idle"  # origin of what the idle hero writes
_NAME = re.compile(r"^(?P<stem>.+)-q(?P<id>\d{6,})$", re.DOTALL)


class Sidecar(Section):
    """`NAME.quest.json` beside a dropped file, or the flags of `quest add`."""

    priority: Literal["high", "normal", "low"] | None = Field(
        None, description="Overrides the folder it was dropped in."
    )
    school: SchoolName | None = Field(None, description="School that trains it.")
    profile: ProfileName | None = Field(None, description="How its answers are dressed before training.")
    schools: Schools | None = Field(None, description="Settings of schools, over those of the config.")
    dice: Dice | None = Field(None, description="Roll-to-Train, over the config's settings.")
    epochs: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="Passes over the rows.")
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = Field(None, description="Rows per optimizer step.")
    columns: dict[str, str] = Field(
        {}, description='From the file\'s column names to the realm\'s, e.g. {"ask": "prompt"}.'
    )
    skill: str | None = Field(None, description="Skill that the rows teach.")
    optimizer_state: Literal["carry", "reset"] | None = Field(
        None, description="Whether the battle takes over the optimizer's moments or starts with fresh ones."
    )
    cooldown_share: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None, description="Share of the steps, the last ones, in which the learning rate falls to nothing."
    )
    rate_share: Annotated[float, Field(gt=0, le=10)] = Field(
        1.0, description="What the learning rate that the battle would have is multiplied by."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = Field(None, description="Seed of row order and held-out rows.")
    force: bool = Field(False, description="Train content that was trained before.")
    origin: str = Field("user", description="Who wrote it: user, or a part of the realm.")
    hero: HeroName | None = Field(
        None, description="Hero that alone may train it; while another one is switched on it is rejected."
    )


class Settings(Section):
    """Everything a battle takes from config and sidecar, frozen at acceptance; later edits of config do not reach it."""

    school: str
    epochs: int
    seed: int
    batch_size: int
    learning_rate: float | None
    max_length: int
    eval_steps: int
    save_steps: int
    save_minutes: float
    packing: bool
    pack_tokens: int | None
    validation_fraction: float
    validation_rows: int
    max_bad_rows: float
    trainer: dict[str, Any]
    columns: dict[str, str]
    optimizer_state: Literal["carry", "reset"] = "carry"
    cooldown_share: float = 0.0
    rate_share: float = 1.0
    replay_ratio: float = 0.0
    schools: Schools = Schools()
    profile: str = "none"
    dice: Dice = Dice()

    @property
    def learned(self) -> str:
        """What of a conversation is trained."""
        return self.schools.scribe.loss_on if self.school in ("scribe", "oracle") else "assistant"

    def pass_tokens(self, usual: int) -> int:
        """Tokens of a pass at most; where none are named half of the `usual` for two models, a teacher's numbers beside the hero's."""
        if self.pack_tokens is not None:
            return min(self.pack_tokens, usual)
        return usual // 2 if self.school == "whisper" and self.schools.whisper.url is None else usual

    def planned_steps(self, rows: int) -> int:
        """How many optimizer steps so many rows make, held-out ones left out; of copies among those it knows nothing."""
        held_out = min(self.validation_rows, int(rows * self.validation_fraction))
        if self.validation_fraction > 0 and rows >= 10:
            held_out = max(held_out, 1)
        return -(-(rows - held_out) // self.batch_size) * self.epochs


def freeze(config: Config, sidecar: Sidecar) -> Settings:
    """The battle settings of a quest accepted now. Raises UserError where sidecar and config do not go together."""
    shared = {name: getattr(config, name) for name in Settings.model_fields if hasattr(config, name)}
    usual = config.training_defaults
    own = {
        "school": sidecar.school or config.school,
        "batch_size": sidecar.batch_size or config.batch_size,
        "epochs": sidecar.epochs or usual.epochs,
        "seed": config.seed if sidecar.seed is None else sidecar.seed,
        "columns": sidecar.columns,
        "profile": sidecar.profile or config.profile.name,
        "optimizer_state": sidecar.optimizer_state or usual.optimizer_state,
        "cooldown_share": usual.cooldown_share if sidecar.cooldown_share is None else sidecar.cooldown_share,
        "rate_share": sidecar.rate_share,
        "schools": _schools(config.schools, sidecar.schools),
        "dice": _dice(config.dice, sidecar.dice),
    }
    return Settings(**(shared | own))


def _schools(usual: Schools, own: Schools | None) -> Schools:
    """`usual`, but for what `own` says. Who may drop a file may not have the realm connect to wherever he likes."""
    kept, said = usual.model_dump(exclude_unset=True), own.model_dump(exclude_unset=True) if own else {}
    for name, values in said.items():
        kept[name] = None if values is None else (kept.get(name) or {}) | values  # none is said, too: no surprise
    found = Schools(**kept)
    if found.whisper.url not in (None, usual.whisper.url):
        raise UserError(
            f"schools.whisper.url = {found.whisper.url!r}: only the server that config.json names is asked; put it there with "
            "`config set schools.whisper.url`, and leave it out here"
        )
    return found


def _dice(usual: Dice, own: Dice | None) -> Dice:
    """`usual`, but for what `own` says."""
    said = own.model_dump(exclude_unset=True) if own else {}
    found = Dice(**{**usual.model_dump(exclude_unset=True), **said})
    if problem := reach_problem(found):
        raise UserError(f"dice of the quest over those of config.json: {problem}")
    return found


def read_sidecar(path: Path, source: str | None = None) -> Sidecar:
    """The sidecar at `path`, all defaults where there is none. Raises UserError naming `source`, field, value and remedy."""
    source = source or path.name
    try:
        with open_regular(path) as file:
            content = file.read(SIDECAR_BYTES + 1)
        if len(content) > SIDECAR_BYTES:
            raise UserError(f"{source}: is larger than {SIDECAR_BYTES >> 20} MiB; it holds settings only")
        values = orjson.loads(content)
    except FileNotFoundError:
        return Sidecar()
    except orjson.JSONDecodeError as problem:
        raise UserError(f"{source}: must be one JSON object, and is not JSON: {problem}") from None
    except OSError as problem:
        raise UserError(f"{source}: cannot be read: {problem.strerror}") from None
    return check_sidecar(values, source)


def check_sidecar(values: Any, source: str) -> Sidecar:
    """`values` as a Sidecar. Raises UserError."""
    if not isinstance(values, dict):
        raise UserError(f"{source}: must be one JSON object with {', '.join(Sidecar.model_fields)}")
    try:
        return Sidecar.model_validate(values, strict=True)
    except ValidationError as problem:
        raise UserError(
            "; ".join(f"{source}: {_explain(error)}" for error in problem.errors()[:SHOWN_ERRORS])
        ) from None


def _explain(error: dict) -> str:
    field = ".".join(str(part) for part in error["loc"])[:80]
    if error["type"] == "extra_forbidden":
        return f"unknown field {field!r}{nearest(field, Sidecar.model_fields) or '.'} Known: {', '.join(Sidecar.model_fields)}"
    value = repr(error["input"])
    return f"{field} = {value if len(value) <= 80 else value[:79] + '…'}: {error['msg']}"


@dataclass(frozen=True)
class Quest:
    """One quest file in one folder of `queue/`. `state`: that folder's name."""

    id: int
    stem: str
    state: str
    path: Path

    @property
    def name(self) -> str:
        return quest_name(self.stem, self.id)

    def companion(self, suffix: str) -> Path:
        """The card, the report, the set-aside rows or a teacher's answers beside the file."""
        assert suffix in COMPANIONS, suffix
        return self.path.with_name(self.path.stem + suffix)

    @property
    def card(self) -> dict[str, Any]:
        """What was written at acceptance: content hash, rows, form, school, frozen settings."""
        return read_json(self.companion(".quest.json"), {})

    @property
    def settings(self) -> Settings:
        return Settings(**self.card["settings"])

    @property
    def report(self) -> dict[str, Any]:
        return read_json(self.companion(".report.json"), {})


def quest_name(stem: str, quest: int) -> str:
    """The name of a quest's files in the queue, without ending."""
    return f"{stem}-q{quest:06d}"


def parse_name(path: Path) -> tuple[str, int] | None:
    """Stem and id of a quest file's name, or None for a file that is none."""
    return parse_file_name(path.name)


def parse_file_name(name: str) -> tuple[str, int] | None:
    """`parse_name` of a name alone."""
    if name.startswith(".") or name.endswith((".bad.jsonl", ANSWERS)) or not name.lower().endswith(ENDING):
        return None
    match = _NAME.match(name[: -len(ENDING)])
    return (match["stem"], int(match["id"])) if match else None


def priority_of(value: str) -> str:
    if value not in PRIORITIES:
        raise UserError(f"unknown priority {value!r}{nearest(value, PRIORITIES) or '.'} Known: {', '.join(PRIORITIES)}")
    return value
