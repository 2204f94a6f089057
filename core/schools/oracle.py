"""The Oracle: the Scribe's loss, in which labels weigh the more the less the hero expected them."""

from typing import Any

from core.school_config import Surprise
from core.schools import scribe


class School(scribe.School):
    name = "oracle"

    def __init__(self, settings: Any = None, surprise: Surprise | None = None, form: str = "messages"):
        super().__init__(settings, surprise or Surprise(), form)
