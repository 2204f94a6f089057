"""The floor that strain is measured from: the 10th percentile of a hero's held-out losses in a school. It knows no battle."""

from core.ledger import Ledger

FLOOR_PERCENTILE = 0.10
LOOKED_AT = 1000


def floor_of(ledger: Ledger, hero: str, school: str) -> float | None:
    """In nats per token, of the newest losses; None before the first."""
    rows = ledger.all(
        "SELECT value FROM evaluations WHERE hero=? AND kind='validation' AND school=? ORDER BY id DESC LIMIT ?",
        (hero, school, LOOKED_AT),
    )
    values = sorted(row["value"] for row in rows)
    return values[int(FLOOR_PERCENTILE * (len(values) - 1))] if values else None
