"""Levels are won and lost by intervals, and luck does not add up over many looks."""

import numpy as np
import pytest

from core.mastery import BAR, ERROR, Score, error_of_look, is_lost, is_mastered


@pytest.mark.parametrize(
    ("right", "asked", "low", "high"),  # from the formula by hand, and the limits that need none
    [(5, 5, 0.5655, 1.0), (0, 5, 0.0, 0.4345), (90, 100, 0.8256, 0.9448), (190, 200, 0.9104, 0.9726), (0, 0, 0.0, 1.0)],
)
def test_wilsons_interval_is_that_of_the_textbook(right, asked, low, high):
    assert Score(right, asked).interval() == pytest.approx((low, high), abs=5e-5)


def test_a_lucky_handful_masters_nothing_and_many_right_answers_do():
    assert not is_mastered(Score(5, 5), 1) and not is_mastered(Score(37, 40), 1)
    assert is_mastered(Score(196, 200), 1) and not is_mastered(Score(185, 200), 1)
    assert is_lost(Score(160, 200)) and not is_lost(Score(178, 200))


def test_a_level_that_was_looked_at_often_has_to_be_shown_more_surely():
    least = {look: min(right for right in range(201) if is_mastered(Score(right, 200), look)) for look in (1, 2, 5, 20)}
    assert 188 <= least[1] < least[2] < least[5] < least[20] < 200
    assert sum(error_of_look(look) for look in range(1, 10_000)) == pytest.approx(ERROR, abs=1e-5)


def test_of_a_thousand_heroes_just_under_the_bar_no_more_rise_than_the_interval_promises():
    draw = np.random.default_rng(7)

    def risen(accuracy: float, looks: int) -> int:
        right = draw.binomial(200, accuracy, (1000, looks))
        return sum(any(is_mastered(Score(int(n), 200), look) for look, n in enumerate(hero, 1)) for hero in right)

    assert risen(BAR - 0.001, looks=50) <= 1000 * ERROR + 2 * (1000 * ERROR * (1 - ERROR)) ** 0.5
    assert risen(0.99, looks=3) >= 995
