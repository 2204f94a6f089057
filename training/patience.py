"""What a service does while it cannot begin: it says why, shows that it lives, and tries again when the user has mended it."""

import logging
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from core.errors import UserError
from core.full_disk import is_no_space, spared
from core.ledger import Ledger
from safety.lifeline import Lifeline

log = logging.getLogger(__name__)
SECONDS = 1.0
Result = TypeVar("Result")


def when_right(
    begin: Callable[[], Result], code: str, service: str, ledger: Ledger, lifeline: Lifeline
) -> Result | None:
    """What `begin` returns as soon as it can; None when the service is to end before.

    Each new complaint becomes an alert, so that a typo in config.json is a text to read and not a service that dies.
    A full disk is waited for, too.
    """
    told = ""

    def tell(code: str, problem: Exception) -> None:
        nonlocal told
        if told != str(problem):
            with spared(ledger.path.parent):
                ledger.event(service, code, f"The {service} waits: {problem}", "alert")
            told = str(problem)

    while not lifeline.should_exit.is_set():
        lifeline.beat()
        try:
            return begin()
        except UserError as problem:
            tell(code, problem)
        except (OSError, sqlite3.Error) as problem:
            if not is_no_space(problem, ledger.path.parent):
                raise
            tell("disk_low", problem)
        lifeline.should_exit.wait(SECONDS)
    return None
