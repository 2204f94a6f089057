"""The learning bench: one short stream for real, and its page."""

import json

import pytest

from training.bench.forgetting import (
    ForgettingOptions,
    forgetting_text,
    is_kept,
    run_forgetting,
    write_forgetting,
)
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


def test_what_is_left_of_a_skill_is_told_by_ratio_and_judged(tmp_path):
    options = ForgettingOptions(seeds=1, quests=1, rows=40, questions=8)
    found = run_forgetting(options, lambda text: None)
    (life,) = found["lives"]
    assert life["before"]["asked"] == 8 and set(life["after"]) == set(found["ratio"]) == {"0.0", "0.2"}
    assert all(score["second"]["asked"] == 8 for score in life["after"].values())
    assert found["passed"] is False  # 40 rows teach nobody a skill
    (page,) = write_forgetting(found, tmp_path)
    assert page.read_text().count("|1|0.2|") == 1 and "replay" in forgetting_text(found)


def test_a_skill_that_was_kept_without_replay_proves_nothing():
    def life(without, kept):
        return {
            "before": {"accuracy": 1.0},
            "after": {"0.0": {"first": {"accuracy": without}}, "0.2": {"first": {"accuracy": kept}}},
        }

    assert [is_kept(life(*each)) for each in ((0.1, 0.96), (0.97, 0.98), (0.1, 0.9))] == [True, False, False]
