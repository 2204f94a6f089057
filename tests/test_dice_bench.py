"""The bench of dice: two ways and their twin for real, the interval, and the page."""

import json
import math

import pytest

from training.bench.dice import TWIN, WAYS, DiceOptions, interval, run_dice, verdict
from training.bench.dice_page import dice_text, write_dice


@pytest.fixture(scope="module")
def result():
    ways = ("gentle", "readme", "monsters")
    return run_dice(DiceOptions(seeds=2, rows=60, quick=True, ways=ways), lambda text: None)


def test_ways_are_told_by_their_ratio_to_a_twin_that_trained_the_same_rows(result):
    ways = result["ways"]
    assert list(ways) == [TWIN, "gentle", "readme", "monsters"] and set(result["ratio"]) == set(ways) - {TWIN}
    assert ways[TWIN]["ratio"] == 1.0 and ways[TWIN]["mean_scale"] == 1.0
    for name, each in ways.items():
        ratios = [own / twin for own, twin in zip(each["runs"], ways[TWIN]["runs"], strict=True)]
        assert (each["ratio"], each["low"], each["high"]) == interval(ratios)
        if name != TWIN:
            assert each["runs"] != ways[TWIN]["runs"] and each["mean_scale"] < 1
    assert len(ways["gentle"]["curve"]) == result["steps"] and len(set(ways[TWIN]["runs"])) == 2
    json.dumps(result)


def test_every_class_and_every_set_of_rules_is_among_the_ways():
    said = [way.dice for way in WAYS.values()]
    assert {dice.get("rules", "gentle") for dice in said} == {"gentle", "methodology", "readme"}
    assert {dice.get("character_class") for dice in said} == {
        None, "wizard", "rogue", "fighter", "cleric", "barbarian", "paladin",
    }  # fmt: skip


def test_an_interval_is_students_and_a_verdict_needs_all_of_it():
    assert interval([2.0, 2.0, 2.0]) == pytest.approx((2.0, 2.0, 2.0))
    middle, low, high = interval([1.0, math.e])
    assert middle == pytest.approx(math.exp(0.5)) and math.log(high / low) == pytest.approx(2 * 12.706 * 0.5)
    words = [verdict({"low": low, "high": high}) for low, high in ((1.01, 2), (0.5, 0.99), (0.9, 1.1))]
    assert words == ["costs", "gains", "no difference told"]


def test_the_page_says_what_was_found(result, tmp_path):
    page, picture = write_dice(result, tmp_path)
    text = page.read_text()
    assert page == tmp_path / "experiments" / "dice.md" and "bench dice --quick --seeds 2" in text
    assert "## The result" in text and "gentle, with monsters" in text and "../images/dice.svg" in text
    assert "no dice: the twin" in picture.read_text() and "by the twin's" in dice_text(result)
