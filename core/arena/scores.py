"""How agents are weighed: perplexity, what their words are worth, score, Elo. Arithmetic alone; it knows no model and no file."""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

START_ELO, K = 1000.0, 32.0


@dataclass(frozen=True)
class Words:
    """What a number of written texts is worth, each from 0 to 1. validity: ended by themselves and not empty; novelty: of
    the valid ones those not in the training set; uniqueness: of all, those that are valid, not in the training set, and
    written for the first time."""

    validity: float
    novelty: float
    uniqueness: float


def words(texts: Sequence[str | None], known: Collection[str]) -> Words:
    """The worth of `texts` beside the training set `known`; None is a text that did not come to its end."""
    valid = [text for text in texts if text]
    new = [text for text in valid if text not in known]
    return Words(
        validity=len(valid) / len(texts) if texts else 0.0,
        novelty=len(new) / len(valid) if valid else 0.0,
        uniqueness=len(set(new)) / len(texts) if texts else 0.0,
    )


def perplexity(loss: float | None) -> float | None:
    """exp of the nats per character, None where there is no such number."""
    if loss is None or not math.isfinite(loss) or loss > 700:
        return None
    return math.exp(loss)


def score(loss: float | None, letters: int, uniqueness: float | None) -> float:
    """From 0 to 100: the harmonic mean of skill and uniqueness, so that neither helps without the other.

    Skill is the share of a blind guess's surprise that the agent is spared on held-out text: 1 - loss / ln(letters + 1),
    the end counted as a letter; an agent that guesses blindly has none, one that learns by heart has little uniqueness.
    """
    if loss is None or not math.isfinite(loss) or not uniqueness:
        return 0.0
    skill = 1 - loss / math.log(letters + 1)
    return 100 * 2 * skill * uniqueness / (skill + uniqueness) if skill > 0 else 0.0


def efficiency(points: float, spent: float) -> float:
    """Score for each energy that an agent has spent; nothing spent, nothing won."""
    return points / spent if spent > 0 else 0.0


def elo_change(mine: float, other: float, result: float) -> float:
    """What `result` (1 won, 0.5 drawn, 0 lost) adds to a rating of `mine` against `other` (Elo, The Rating of Chessplayers,
    1978, section 1.6; K = 32)."""
    expected = 1 / (1 + 10 ** ((other - mine) / 400))
    return K * (result - expected)
