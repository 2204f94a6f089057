"""The learning bench: one short stream for real, and its page."""

import json

import pytest

from training.bench.learning import MEASURES, WAYS, LearningOptions, run_learning
from training.bench.learning_page import learning_text, write_learning


@pytest.fixture(scope="module")
def result():
    return run_learning(LearningOptions(seeds=1, quests=2, rows=24, quick=True), lambda text: None)


def test_every_way_learns_and_is_told_by_its_ratio_to_the_constant_rate(result):
    assert set(result["ratio"]) == set(WAYS) - {"constant"} and set(result["ways"]) == set(WAYS)
    constant = result["ways"]["constant"]
    for way, each in result["ways"].items():
        assert each["final"]["median"] < 8.31, way  # the logarithm of the vocabulary
        if way != "constant":
            assert result["ratio"][way] == pytest.approx(each["final"]["runs"][0] / constant["final"]["runs"][0])
            assert each["final"]["runs"] != constant["final"]["runs"], f"{way} is another training"
    assert set(constant) == {"title", *MEASURES} and "early" not in result["ways"]["branch"]
    assert {"cpu", "threads"} <= set(result["machine"]) and "torch" in result["versions"]
    json.dumps(result)


def test_its_part_of_the_page_is_replaced_and_others_are_kept(result, tmp_path):
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\n<!-- bench forge -->\nkept\n<!-- end of bench forge -->\n")
    written = write_learning(result, tmp_path)
    once = page.read_text()
    write_learning(result, tmp_path)
    assert page.read_text() == once and "kept" in once and once.count("The endless learning rate") == 1
    assert all(path.exists() for path in written) and "--quick --seeds 1 --rows 24" in once
    assert "Constant rate, moments carried" in learning_text(result)
