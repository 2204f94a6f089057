"""What can be set of each school; a quest's card freezes it. It imports no torch.

Names and defaults are TRL's where TRL has the same thing.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from core.config_words import Section
from core.oracle_config import check_url

SchoolName = Literal["scribe", "mirror", "judge", "champion", "whisper", "oracle"]
Learned = Literal["assistant", "completion", "all"]
Positive = Annotated[float, Field(gt=0)]


class Surprise(Section):
    """Surprise weighting, over any school's loss: labels that the hero did not expect weigh more, the mean weight being 1."""

    measure: Literal["entropy", "probability", "margin"] = Field(
        "probability",
        description="What surprise is: `entropy` of the hero's distribution; `probability`, 1 - p(label); `margin`, how far the "
        "label is behind the likeliest other token. Labels of one step are compared.",
    )
    strength: float = Field(
        1.0, ge=0, le=10, description="Power that surprise is raised to; 0 weighs all labels alike."
    )
    floor: float = Field(0.1, gt=0, le=1, description="Least surprise of a label, so that none is left out.")
    warmup_steps: int = Field(10, ge=0, description="First steps of a battle in which all labels weigh alike.")


class ScribeSettings(Section):
    """Supervised fine-tuning."""

    loss_on: Learned = Field(
        "assistant",
        description="Tokens that are learned: those of every `assistant` turn; of the `completion`, what follows the last user "
        "turn; or `all`, prompts as well. Turns with `train: false` never are. Plain texts are learned whole. The Oracle's too.",
    )


class MirrorSettings(Section):
    """Sparring."""

    prompts: int = Field(
        1000, ge=1, le=100_000, description="Rows of a quest that the hero answers at most; of more so many are drawn."
    )
    max_new_tokens: int = Field(256, ge=1, le=8192, description="Tokens of an answer at most.")


class JudgeSettings(Section):
    """Preferences."""

    loss_type: Literal["sigmoid", "ipo", "sigmoid_norm"] = Field(
        "sigmoid",
        description="`sigmoid`: DPO; `ipo`: squared distance from 1/(2 beta), per token; `sigmoid_norm`: DPO with "
        "log-ratios per token, so that length counts for nothing.",
    )
    beta: Positive = Field(0.1, le=100, description="How dearly it pays to move away from the parent checkpoint.")


class ChampionSettings(Section):
    """Rewards that can be checked."""

    loss_type: Literal["grpo", "dapo", "dr_grpo"] = Field(
        "dapo",
        description="What the sum over labels is divided by: `grpo`, each answer's length, then answers; `dapo`, all "
        "labels of a step; `dr_grpo`, answers times `max_new_tokens`.",
    )
    num_generations: int = Field(8, ge=2, le=256, description="Answers to each prompt that are compared.")
    max_new_tokens: int = Field(256, ge=1, le=8192, description="Tokens of an answer at most.")
    temperature: Positive = Field(
        1.0,
        le=10,
        description="Of the draws. Below 1 where hardly any draw is right though the likeliest answer often is.",
    )
    scale_rewards: Literal["group", "batch", "none"] = Field(
        "group", description="Whose standard deviation an advantage is divided by."
    )
    epsilon: float = Field(0.2, ge=0, le=1, description="How far a probability may fall before its gradient is cut.")
    epsilon_high: float | None = Field(None, ge=0, description="How far it may rise; like `epsilon` by default.")
    beta: float = Field(0.0, ge=0, le=10, description="Weight of the KL divergence from the parent checkpoint.")


class WhisperSettings(Section):
    """Distillation: from the distributions of a `teacher` beside the hero, or from the answers of one at a `url`."""

    teacher: str | None = Field(
        None,
        description="Folder below models/ or checkpoint id of the same tokenizer, whose distributions are imitated.",
    )
    url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Instead: an OpenAI-compatible server whose answers to the rows' prompts are imitated, as the Scribe does. The "
        "key of the server that config.json names, if it asks for one, stands in state/whisper.key.",
    )
    model: str | None = Field(
        None, min_length=1, max_length=200, description="The server's model that answers, as the server calls it."
    )
    beta: float = Field(0.0, ge=0, le=1, description="0 forward KL, 1 reverse KL, between them Jensen-Shannon.")
    temperature: float | None = Field(
        None,
        ge=0,
        le=10,
        description="With a `teacher`, that both distributions are softened by, 1 unless set; with a `url`, that its answers are "
        "drawn at, 0 unless set.",
    )
    on_policy: float = Field(
        0.0, ge=0, le=1, description="Share of steps whose rows the hero answers itself before the two are compared."
    )
    max_new_tokens: int = Field(
        256, ge=1, le=8192, description="Tokens of such an answer, or of one from a `url`, at most."
    )
    at_once: int = Field(4, ge=1, le=64, description="Prompts that a server is asked at a time.")
    seconds: float = Field(600.0, gt=0, le=86400, description="Seconds that one answer of a server may take.")

    @field_validator("url")
    @classmethod
    def url_is_plain(cls, value: str | None) -> str | None:
        return value and check_url(value)


class OracleSettings(Section):
    """Surprise weighting as a school of its own: the Scribe's loss, weighted as `surprise` says."""


class Schools(Section):
    """Of every school, and of what goes with any."""

    scribe: ScribeSettings = Field(ScribeSettings(), description="Supervised fine-tuning.")
    mirror: MirrorSettings = Field(MirrorSettings(), description="How the hero spars.")
    judge: JudgeSettings = Field(JudgeSettings(), description="Preferences.")
    champion: ChampionSettings = Field(ChampionSettings(), description="Rewards that can be checked.")
    whisper: WhisperSettings = Field(WhisperSettings(), description="Distillation.")
    oracle: OracleSettings = Field(OracleSettings(), description="Surprise-weighted fine-tuning.")
    surprise: Surprise | None = Field(None, description="Surprise weighting; the Oracle has it in any case.")

    def settings(self, school: str) -> Section:
        """The school's own."""
        return getattr(self, school)


def default_settings(school: str) -> Section:
    return Schools().settings(school)
