"""The Mirror: the Scribe's loss on what sparring brought to light. The sparring itself is core/sparring.py."""

from core.schools import scribe


class School(scribe.School):
    name = "mirror"
