"""What a hero of config.json has of its own: name, base, seed, skills, idle work, defaults. It knows no realm and no file.

A realm may have several heroes, of which one is switched on. What its profile leaves open is the realm's; `laid_over` makes
one config of both, so that nobody else need know of profiles.
"""

from typing import Annotated, Any, Literal, Protocol, TypeVar

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from core.config_words import Section
from core.errors import nearest
from core.skills import skills

HeroName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,31}$")]
Seed = Annotated[int, Field(ge=0, lt=2**31)]


def _known_skills(weights: dict[str, float]) -> dict[str, float]:
    strange = [f"{name!r}{nearest(name.upper(), skills())}" for name in weights if name.upper() not in skills()]
    if strange:
        raise ValueError(f"no skill is called {', '.join(strange)}. Known: {', '.join(skills())}")
    return weights


SkillPriorities = Annotated[dict[str, Annotated[float, Field(ge=0)]], AfterValidator(_known_skills)]


class Hero(Section):
    name: HeroName = Field(
        "DIO", description="The hero's name: letters, digits and _, at most 32. A new name is a new hero."
    )
    base_model: str | None = Field(
        None,
        description="Folder below models/ that a new hero starts from, e.g. `Qwen3-0.6B`. Default: the only one "
        "that is there; with none, a micro hero is hatched from random weights.",
    )


class IdleGeneration(Section):
    enabled: bool = Field(True, description="Whether the idle hero writes its own quests, the starter quest included.")
    level: int = Field(
        1, ge=1, description="Lowest level that the idle hero practises; from there the levels follow its exams."
    )
    batch_size: int = Field(64, ge=1, le=4096, description="Rows per optimizer step of the idle hero's own quests.")
    cooldown_share: float = Field(
        0.5, ge=0, le=1, description="As `training_defaults.cooldown_share`, for the idle hero's own quests."
    )
    pause_seconds: float = Field(
        2.0,
        ge=0,
        description="Seconds of quiet (nothing waits, nothing but its own quest is trained) before it writes one.",
    )


class TrainingDefaults(Section):
    epochs: int = Field(
        1, ge=1, le=1000, description="Passes over a quest's rows, unless its sidecar or flag says otherwise."
    )
    optimizer_state: Literal["carry", "reset"] = Field(
        "carry",
        description="What a battle finds in the optimizer: `carry`, what the one before left; `reset`, fresh moments and "
        "a warm-up from its first step on. A sidecar can say otherwise.",
    )
    cooldown_share: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Share of a battle's steps, its last ones, in which the learning rate falls to nothing; the next battle "
        "begins with all of it. Exams, verdict and promoted weights are then those of a hero that came to rest.",
    )


class HeroProfile(Section):
    """What is unset is the realm's; of the sections each field by itself."""

    base_model: str | None = Field(None, description="As `hero.base_model`, for this hero.")
    seed: Seed | None = Field(None, description="As `seed`, for this hero: two hatched with the same are twins.")
    skill_priorities: SkillPriorities | None = Field(None, description="In place of all of the realm's weights.")
    idle_generation: IdleGeneration | None = Field(None, description="Fields in place of the realm's.")
    training_defaults: TrainingDefaults | None = Field(None, description="Fields in place of the realm's.")

    @model_serializer(mode="wrap")
    def _what_is_set(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without what is open, down to the fields of sections: written out, the defaults would hide the realm's values."""
        values = serialize(self)
        return {name: _set_of(getattr(self, name), values[name]) for name in values if getattr(self, name) is not None}


def _set_of(value: Any, dumped: Any) -> Any:
    return {name: dumped[name] for name in value.model_fields_set} if isinstance(value, Section) else dumped


class Configured(Protocol):
    """What is needed of a config."""

    hero: Hero
    heroes: dict[str, HeroProfile]

    def model_copy(self, *, update: dict[str, Any]) -> Any: ...


C = TypeVar("C", bound=Configured)


def laid_over(config: C) -> C:
    """`config` as it is for the hero that is switched on: what its profile sets in place of the realm's values."""
    profile = config.heroes.get(config.hero.name, HeroProfile())
    own = {name: getattr(profile, name) for name in HeroProfile.model_fields}
    changes = {name: _over(getattr(config, name, None), value) for name, value in own.items() if value is not None}
    if base := changes.pop("base_model", None):
        changes["hero"] = config.hero.model_copy(update={"base_model": base})
    return config.model_copy(update=changes) if changes else config


def _over(realms: Any, own: Any) -> Any:
    if not isinstance(own, Section):
        return own
    return realms.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
