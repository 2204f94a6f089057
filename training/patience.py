"""What a service does while it cannot begin: it says why, shows that it lives, and tries again when the user has mended it."""

import logging
from collections.abc import Callable
from typing import TypeVar

from core.errors import UserError
from core.ledger import Ledger
from safety.lifeline import Lifeline

log = logging.getLogger(__name__)
SECONDS = 1.0
Result = TypeVar("Result")


def when_right(
    begin: Callable[[], Result], code: str, service: str, ledger: Ledger, lifeline: Lifeline
) -> Result | None:
    """What `begin` returns as soon as it raises no UserError; None when the service is to end before.

    Each new complaint becomes an alert, so that a typo in config.json is a text to read and not a service that dies.
    """
    told = ""
    while not lifeline.should_exit.is_set():
        lifeline.beat()
        try:
            return begin()
        except UserError as problem:
            if told != (told := str(problem)):
                ledger.event(service, code, f"The {service} waits: {problem}", "alert")
        lifeline.should_exit.wait(SECONDS)
    return None
