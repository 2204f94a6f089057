"""config.json as one checked schema; it knows nothing about who uses a setting.

A config is read once, at the start of a process, and passed down. Every field says its unit, its bounds and what it
does; `config explain` and the settings page show these sentences, so they are written for the user.
"""

from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import Field, ValidationError, ValidationInfo, field_validator

from core import config_words
from core.alert_config import Alerts, Sinks
from core.config_words import Section
from core.dice_config import Dice, reach_problem
from core.errors import UserError
from core.hero_profile import (
    Hero,
    HeroName,
    HeroProfile,
    IdleGeneration,
    Seed,
    SkillPriorities,
    TrainingDefaults,
    laid_over,
)
from core.optimizer_names import ADAMW, DEFAULT
from core.oracle_config import Oracle
from core.profiles import ProfileName
from core.school_config import SchoolName, Schools
from core.trainer_keys import check_trainer_keys


class Profile(Section):
    name: ProfileName = Field(
        "none",
        description="How the answers of conversations are dressed before training. `emoji_think`: every other row asks for "
        "emoji ahead of the answer and stop signs behind it, no thoughts in tags; the Oracle's answers end there. `regime3`: "
        "the answer between <<ANS_START>> and <<ANS_END>>. Exams ask plainly and read either.",
    )


class Temple(Section):
    mode: Literal["strict", "advise", "off"] = Field(
        "strict",
        description="How battles are judged. `strict`: a cursed battle is taken back, its checkpoint stays in the Vault. "
        "`advise`: it is told and not promoted, and training goes on from it. `off`: every finished battle is promoted, "
        "none earns experience.",
    )


class Memory(Section):
    """What `plan` decides by itself, and may be told."""

    gib: float | None = Field(
        None,
        gt=0,
        lt=1 << 20,
        description="GiB that a battle may use: of the GPU's memory, or of main memory where there is no GPU. "
        "Default: all of the GPU's, nine tenths of main memory.",
    )
    weights: Literal["fp32", "bf16"] | None = Field(
        None, description="How the hero keeps its weights. Default: as `plan` says; a hero keeps what it has."
    )
    rounding: Literal["stochastic", "kahan"] | None = Field(
        None,
        description="How no update of bf16 weights is lost: rounded by chance, right in the mean; or with two more "
        "bytes a weight, as exact as fp32. Default: stochastic.",
    )
    moments: Literal["fp32", "bf16", "8bit"] | None = Field(
        None, description="How AdamW keeps its moments. Default: as `plan` says; a hero keeps what it has."
    )
    gradient_release: bool | None = Field(
        None,
        description="Whether each tensor is updated as soon as its gradient is known, so that gradients take no room. "
        "All rows of a step then go through in one pass, and clipping sees only the gradients so far.",
    )

    def wishes(self) -> dict[str, Any]:
        """What is decided here, by the names of core/memory_needs.Means; None where nothing is."""
        return {**self.model_dump(include={"weights", "rounding", "moments"}), "release": self.gradient_release}


class Retention(Section):
    keep_last: int = Field(
        3, ge=2, description="Newest checkpoints that always stay, whole ones counted; and newest cooled-down branches."
    )
    keep_promoted: int = Field(
        5, ge=1, description="Newest promoted checkpoints that stay while there is room; the newest one always does."
    )
    keep_daily: int = Field(
        7, ge=0, description="Days whose last checkpoint stays while there is room; days without one are not counted."
    )
    keep_weekly: int = Field(4, ge=0, description="Weeks whose last checkpoint stays while there is room, likewise.")
    bytes: int | None = Field(
        None,
        ge=0,
        description="Bytes that all checkpoints may take. Above it the oldest go that need not stay always: neither "
        "pointed to, nor pinned, nor the newest. Default: no limit but the disk's.",
    )


class Disk(Section):
    """When a disk counts as full. Shares matter only where little is free in bytes, too: see core/disk.py."""

    prune_percent: float = Field(
        85.0,
        gt=0,
        le=100,
        description="Share of the disk in use (bytes or inodes) from which old checkpoints go at once.",
    )
    claim_percent: float = Field(
        90.0,
        gt=0,
        le=100,
        description="Share in use from which no quest is taken or begun; below it, what was paused goes on.",
    )
    pause_percent: float = Field(
        95.0,
        gt=0,
        le=100,
        validate_default=True,
        description="Share in use from which the battle waits where it is, and nothing is saved.",
    )
    reserve_bytes: int = Field(
        256 << 20,
        ge=0,
        description="Bytes that the realm sets aside in state/reserve, a hundredth of the disk at most. When the disk "
        "is full they are given back, so that ledger and logs can finish what they are writing.",
    )

    @field_validator("pause_percent")
    @classmethod
    def marks_rise(cls, value: float, info: ValidationInfo) -> float:
        marks = [info.data.get("prune_percent", 0.0), info.data.get("claim_percent", 0.0), value]
        if marks != sorted(marks):
            raise ValueError("the marks must rise: disk.prune_percent, claim_percent, pause_percent")
        return value


class Backup(Section):
    to: str | None = Field(
        None, description="Where to: a directory, s3://BUCKET/PREFIX or sftp://USER@HOST/PATH. None: no backups."
    )
    what: Literal["current", "champion", "tip"] = Field("current", description="Which checkpoint is backed up.")
    every_hours: float = Field(24.0, gt=0, description="Hours from one backup to the next; nothing new, no backup.")
    keep: int = Field(3, ge=1, description="Newest backups that stay.")
    keep_daily: int = Field(7, ge=0, description="Days of which the newest backup stays.")
    keep_weekly: int = Field(4, ge=0, description="Weeks of which the newest backup stays.")


class Tavern(Section):
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Anything but loopback asks every visitor for the token."
    )
    port: int = Field(8888, ge=1, le=65535, description="TCP port to listen on.")
    require_token: bool = Field(False, description="Ask for the token on loopback, too.")
    hosts: list[str] = Field([], description="Other host names that the Tavern may be called by, e.g. behind a proxy.")
    upload_bytes: int = Field(16 << 30, ge=1, description="Bytes of one upload at most.")


class Config(Section):
    """The whole of config.json."""

    hero: Hero = Field(Hero(), description="Who is trained.")
    heroes: dict[HeroName, HeroProfile] = Field(
        {},
        description="Profiles of heroes by name: what each has in place of the realm's `base_model`, `seed`, "
        "`skill_priorities`, `idle_generation` and `training_defaults`. The one that `hero.name` names counts.",
    )
    seed: Seed = Field(7, description="Seed of everything random: hatching, row order, held-out rows, skill problems.")
    batch_size: int = Field(8, ge=1, le=4096, description="Rows per optimizer step, whatever the packing.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Peak AdamW learning rate. Default by model size: "
        "1e-3 below 10 M parameters, 5e-4 below 100 M, 1e-5 below 1 B, 5e-6 above; "
        "a tenth of that for the Judge, three tenths for the Champion. Below 100 M it falls as the hero grows up, "
        "by 1 / sqrt(1 + steps / 500) with steps of 64 rows, sooner with smaller ones.",
    )
    max_length: int = Field(
        1024,
        ge=32,
        le=131072,
        description="Tokens of a row that are trained; longer rows are cut, and the report says so.",
    )
    eval_steps: int = Field(
        50,
        ge=1,
        description="Optimizer steps between two held-out evaluations, as in Hugging Face's Trainer; "
        "one for which 5 % of the battle's time do not suffice is left out, but the last.",
    )
    save_steps: int = Field(
        200,
        ge=1,
        description="Optimizer steps between two checkpoints, each begun early enough to be on disk by then: "
        "a power cut costs no more of them.",
    )
    save_minutes: float = Field(
        5.0, gt=0, description="The same in minutes of training: a checkpoint is due by whichever comes first."
    )
    profile: Profile = Field(Profile(), description="How answers are dressed before training.")
    trainer: dict[str, Any] = Field(
        {},
        description="Other `transformers.TrainingArguments` by their own names; docs/reference.md "
        "says which are honoured and which the realm owns.",
    )
    memory: Memory = Field(Memory(), description="By which means a battle fits into memory.")
    packing: bool = Field(
        True, description="Put several rows into one forward pass, without a leak between them. Off: one row a pass."
    )
    pack_tokens: int | None = Field(
        None,
        ge=32,
        description="Tokens of one forward pass at most, when rows are packed; a longer row goes alone. "
        "Default: 2048 on a CPU, whose caches they fit, 4096 on a GPU.",
    )
    school: SchoolName = Field(
        "scribe",
        description="School of quests that name none; `scribe` lets the form of the rows choose where it cannot teach.",
    )
    schools: Schools = Field(Schools(), description="How each school teaches.")
    validation_fraction: float = Field(
        0.05, ge=0, le=0.5, description="Share of a quest's rows that is held out and never trained."
    )
    validation_rows: int = Field(64, ge=1, description="Held-out rows at most, so that an evaluation stays short.")
    max_bad_rows: float = Field(
        0.01, ge=0, le=1, description="Share of bad rows that is set aside; above it the file is rejected, whole."
    )
    idle_generation: IdleGeneration = Field(
        IdleGeneration(), description="What the hero does when there is nothing to do."
    )
    skill_priorities: SkillPriorities = Field(
        {"BIN": 1.0, "REV": 1.0},
        description="Weight of each skill when the idle hero chooses; those with one are examined after every battle.",
    )
    training_defaults: TrainingDefaults = Field(
        TrainingDefaults(), description="Battle settings that sidecars and flags can override."
    )
    exam_share: float = Field(
        0.1,
        ge=0,
        le=1,
        description="What exams after a battle may cost, as a share of the battle's own work; what they do not use or lack is "
        "carried on. 0: none are held, and no level rises.",
    )
    replay_ratio: float = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Share of a step's rows that come from earlier quests, so that nothing is forgotten; they are "
        "trained beside the `batch_size` rows of the quest. What the canaries say was lost comes oftener.",
    )
    temple: Temple = Field(Temple(), description="Judgement of finished battles.")
    retention: Retention = Field(Retention(), description="Which checkpoints stay.")
    backup: Backup = Field(Backup(), description="Copies elsewhere.")
    disk: Disk = Field(Disk(), description="When the disk counts as full.")
    dice: Dice = Field(Dice(), description="Roll-to-Train: whether each update of a battle is rolled for, and how.")
    tavern: Tavern = Field(Tavern(), description="The web pages.")
    oracle: Oracle = Field(Oracle(), description="Where the hero answers.")
    alerts: Alerts = Field(Alerts(), description="Who is told.")
    sinks: Sinks = Field(Sinks(), description="Who gets a copy of the numbers.")

    @field_validator("dice")
    @classmethod
    def dice_reach(cls, value: Dice) -> Dice:
        if problem := reach_problem(value):
            raise ValueError(problem)
        return value

    @field_validator("trainer")
    @classmethod
    def trainer_keys_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        return check_trainer_keys(value)

    @field_validator("memory")
    @classmethod
    def means_agree(cls, value: Memory, info: ValidationInfo) -> Memory:
        trainer = info.data.get("trainer", {})
        optimizer = trainer.get("optim", DEFAULT)
        if value.rounding and value.weights == "fp32":
            raise ValueError(
                f"rounding {value.rounding!r} is for bf16 weights; set memory.weights to 'bf16' or unset it"
            )
        if value.weights == "bf16" and trainer.get("bf16") is False:
            raise ValueError("bf16 weights are computed with in bf16; unset trainer.bf16")
        own = {"weights": ("bf16",), "moments": ("8bit", "bf16"), "gradient_release": (True,)}
        used = [name for name, kinds in own.items() if getattr(value, name) in kinds]
        if used and optimizer not in ADAMW:
            raise ValueError(f"memory.{used[0]} is for AdamW; unset it or trainer.optim = {optimizer!r}")
        return value


def load_config(path: Path) -> Config:
    """The checked config in `path`, as it is for the hero that is switched on; a missing file means all defaults. Raises
    UserError naming field, value and remedy."""
    return laid_over(check_config(read_values(path), str(path)))


def read_values(path: Path) -> Any:
    """The JSON in `path`, unchecked; a missing file is an empty object."""
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except orjson.JSONDecodeError as problem:
        raise UserError(f"{path}:{problem.lineno}:{problem.colno}: not JSON: {problem.msg}") from None


def check_config(values: Any, source: str = "config.json") -> Config:
    """`values` as a Config; all mistakes are named in one UserError, a line each."""
    if not isinstance(values, dict):
        raise UserError(f"{source}: holds {type(values).__name__}, must be one JSON object")
    try:
        return Config.model_validate(values, strict=True)
    except ValidationError as problem:
        raise UserError(
            "\n".join(f"{source}: {config_words.mistake(Config, error)}" for error in problem.errors())
        ) from None


def fields() -> dict[str, Any]:
    """Every field by its dotted path, sections included, in the order of the schema."""
    return config_words.fields(Config)


def every_field() -> dict[str, Any]:
    """`fields`, and those of hero profiles as heroes.*.seed."""
    return config_words.every_field(Config)


def allowed_values(path: str) -> str:
    """What the field at `path` accepts, in words: its type, choices and bounds."""
    return config_words.allowed_values(Config, path)


def explain(path: str) -> dict[str, Any]:
    """Path, description, default and allowed values of one field; UserError for an unknown one."""
    return config_words.explain(Config, path)
