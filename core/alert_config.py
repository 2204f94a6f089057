"""The parts of config.json that say who is told what happens, and who gets a copy of the numbers. It knows no network.

Addresses may hold secrets (a token in the path, a password before the host): they are marked so, and no message shows them.
"""

from typing import Annotated, Literal

from pydantic import Field

from core.config_words import SECRET, Section

Kind = Literal["done", "failed", "blocked", "level_up", "disk"]
KINDS: tuple[Kind, ...] = ("done", "failed", "blocked", "level_up", "disk")
Address = Annotated[str, Field(pattern=r"^https?://[^/\s]+\S*$", max_length=2000)]


class Alerts(Section):
    webhook: Address | None = Field(
        None,
        description="URL that gets each alert as JSON by POST. Redirects are not followed.",
        json_schema_extra=SECRET,
    )
    ntfy: Annotated[str, Field(pattern=r"^https?://[^/\s]+/[A-Za-z0-9_-]{1,64}$", max_length=2000)] | None = Field(
        None,
        description="ntfy topic, e.g. `https://ntfy.sh/my-realm`; `https://USER:PASSWORD@HOST/TOPIC` where it asks for one.",
        json_schema_extra=SECRET,
    )
    apprise: list[Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://\S+$", max_length=2000)]] = Field(
        [],
        max_length=8,
        description="Apprise URLs (mail, Telegram, Slack, Discord, …). Needs `pip install -r requirements-alerts.txt`.",
        json_schema_extra=SECRET,
    )
    on: list[Kind] = Field(
        list(KINDS),
        description="What is told: `done` (quests of yours), `failed` (quests, files, checkpoints, backups), `blocked` (the realm "
        "stands still), `level_up`, `disk`.",
    )
    per_hour: int = Field(
        20, ge=1, le=1000, description="Alerts to one target in an hour at most; what is more comes as one."
    )

    @property
    def anybody(self) -> bool:
        """Whether anybody is told."""
        return bool(self.webhook or self.ntfy or self.apprise)


class Sinks(Section):
    tensorboard: bool = Field(
        False,
        description="Write event files for `tensorboard --logdir runs/tensorboard`.",
    )
    trackio: bool = Field(
        False,
        description="Log to Trackio, on this machine: `TRACKIO_DIR=runs/trackio trackio show --project realm`. Needs `pip install "
        "-r requirements-sinks.txt`.",
    )
