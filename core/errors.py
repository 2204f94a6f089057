"""The root of every error the realm raises on purpose; it knows nothing about where they are caught.

A `UserError` is somebody's mistake: its text names the file or field, the value and the remedy, and is shown as it
stands, without a trace. Everything else is ours and keeps its trace in the log.
"""

import difflib
from collections.abc import Iterable

LONGEST_NAME = 80  # of a name that comes from outside: comparing costs time and memory for every character


class RealmError(Exception):
    """Anything the realm itself reports."""


class UserError(RealmError, ValueError):
    """A mistake that its user can mend; the message says how."""


class WrongState(UserError):
    """What is wished for cannot be done with the thing as it is now; the message says how it is."""


class RealmBusy(RealmError):
    """Another process holds what this one needs; trying later may work."""


class CheckpointError(RealmError):
    """A checkpoint that is missing, unfinished or altered."""


class NotFinite(CheckpointError):
    """Weights or moments with an infinity or what is no number; they are never saved and never trained on."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the known name closest to `name`, or an empty string."""
    close = difflib.get_close_matches(name[:LONGEST_NAME], list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""
