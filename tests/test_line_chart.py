"""Curves drawn as SVG: every number finds its place, and what is no number breaks nothing."""

import math
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from core.line_chart import Curve, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*curves):
    return ElementTree.fromstring(line_chart("Loss", "nats", curves, "step", "loss"))


def test_a_curve_goes_down_where_its_values_fall():
    (path,) = drawn(Curve("a", [(0, 4.0), (10, 2.0), (20, 1.0)])).iter(f"{SVG}path")
    heights = [float(part.split()[-1]) for part in path.get("d").replace("M", "|").replace("L", "|").split("|")[1:]]
    assert heights == sorted(heights) and len(set(heights)) == 3  # SVG counts downwards


def test_a_value_that_is_no_number_is_a_gap():
    (path,) = drawn(Curve("a", [(0, 1.0), (1, math.nan), (2, 3.0), (3, math.inf), (4, 2.0)])).iter(f"{SVG}path")
    assert path.get("d").count("M") == 3 and "nan" not in path.get("d")


def test_a_long_curve_keeps_its_last_point_and_few_of_the_others():
    (path,) = drawn(Curve("a", [(x, 1.0 / (x + 1)) for x in range(10_001)])).iter(f"{SVG}path")
    assert path.get("d").count("L") < 700 and path.get("d").split("L")[-1].startswith("750.0 ")


def test_labels_of_curves_that_end_together_do_not_lie_upon_each_other():
    labels = [text for text in drawn(*(Curve(name, [(0, 2.0), (1, 1.0)]) for name in "abc")).iter(f"{SVG}text")]
    heights = sorted(float(text.get("y")) for text in labels if text.text in "abc")
    assert all(after - before >= 17 for before, after in pairwise(heights))


def test_names_cannot_break_the_picture():
    assert "<script>" in [text.text for text in drawn(Curve("<script>", [(0, 1.0), (1, 1.0)])).iter(f"{SVG}text")]


def test_nothing_to_draw_is_an_error_and_no_empty_picture():
    with pytest.raises(ValueError, match="no number to draw"):
        line_chart("Loss", "", [Curve("a", [(0, math.nan)])], "step", "loss")
