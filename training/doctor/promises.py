"""Checks of what a realm promises, for `doctor --deep`: each quest's bytes and place, the weights, the databases."""

from collections.abc import Iterator

from core.invariants import Violation, nothing_half_built, violations, violations_while_it_runs
from training.doctor.case import Case, Finding, bad, look, ok

REMEDIES = {
    "I1": "look for the file below queue/; what cannot be found is dropped into inbox/ again",
    "I2": "`start-all` brings queue and weights together",
    "I4": "the trainer goes back to the newest whole checkpoint when it starts",
    "I5": "`stop-all`, then move the file away: the realm begins a new one and keeps quests and checkpoints",
}


def promises(case: Case) -> Iterator[Finding]:
    """A finding for each violation; checkpoints that are no pointer's are `pointers`' affair."""
    if not case.deep or not case.paths.queue.is_dir():
        return
    found = violations_while_it_runs(case.paths) if case.running else violations(case.paths)
    for violation in found:
        yield _finding(violation)
    for violation in nothing_half_built(case.paths):
        if not violation.place.startswith(".building-"):  # `half_built` tells of those
            yield look(violation.promise, f"{violation.place} {violation.text}", "`doctor --fix` removes it")
    if not found:
        yield ok("promises", "every quest in one place, unchanged, trained once; pointers and databases are whole")


def _finding(violation: Violation) -> Finding:
    """Weights and databases that are broken keep the realm from working; a quest that is missing does not."""
    tell = bad if violation.promise in ("I4", "I5") else look
    return tell(violation.promise, f"{violation.place}: {violation.text}", REMEDIES[violation.promise])
