"""The forge's bench: the real thing on a tiny model against the bare loop, and its arithmetic, pictures and page."""

import json
import random
import statistics
import sys
from xml.etree import ElementTree

import pytest

from core.errors import RealmError
from core.flops import training_flops
from core.paths import CHECKOUT
from training.bench import forge, ingest, launch
from training.bench.chart import Bar, chart
from training.bench.chat_rows import token_lengths
from training.bench.contestants import CONTESTANTS, PEERS, SIZES
from training.bench.forge import Options, run_forge
from training.bench.in_turn import in_turn_text, run_in_turn, write_in_turn
from training.bench.page import write_forge
from training.bench.standing import Case, Run, standing
from training.bench.table import forge_text
from training.cli import main

CASE = Case(SIZES["mini"], "fp32", 2, 1000, (10, 30), 20)


@pytest.fixture(scope="module")
def result():
    """One round of the forge, the bare loop and a peer that is not installed, on the smallest model."""
    told = []
    patch = pytest.MonkeyPatch()
    patch.setattr(forge, "installed", lambda python, packages: set())
    with patch.context():
        found = run_forge(Options(("mini",), ("fp32",), ("ours", "bare", "trl_default"), repeats=1), told.append)
    return found | {"told": told}


def run(name: str, seconds: float, number: int = 0, **others) -> Run:
    """A run of two steps of 20 tokens, the first of which takes a second more."""
    found = {
        "tokens": [20, 20], "seconds": [seconds + 1, seconds], "cpu_seconds": 2 * seconds, "ready_seconds": 1.0,
        "first_step_seconds": 3.0, "peak_bytes": 5 << 20, "device_peak_bytes": None, "held_out_loss": 2.0}  # fmt: skip
    return Run(number, name, 1e9, found | others)


def test_ours_and_the_bare_loop_learn_the_same_from_the_same_rows(result):
    ours, bare = (result["cases"][0]["contestants"][name] for name in ("ours", "bare"))
    assert ours["state"] == bare["state"] == "measured"
    assert ours["runs"][0]["tokens"] == bare["runs"][0]["tokens"]
    assert ours["held_out_loss"]["median"] == pytest.approx(bare["held_out_loss"]["median"], abs=1e-4)
    assert ours["held_out_loss"]["median"] < 8.31  # they did learn: the logarithm of the vocabulary is 8.32


def test_the_json_has_ratios_machine_versions_and_memory(result):
    assert set(result["ratio"]) == set(PEERS) == {
        "trl_default", "trl_packing", "trl_padding_free", "hf_padded", "hf_grouped", "bare"}  # fmt: skip
    assert result["ratio"]["bare"] > 0 and result["ratio"]["trl_default"] is None
    assert {"cpu", "cores", "threads", "memory_bytes", "gpus"} <= set(result["machine"])
    assert {"python", "torch", "transformers"} <= set(result["versions"])
    case = result["cases"][0]
    assert case["steps"] == SIZES["mini"].steps and case["rows"] == case["steps"] * SIZES["mini"].rows
    assert case["gemm_flops"] > 1e9
    for name in ("ours", "bare"):
        each = case["contestants"][name]
        assert 50 << 20 < each["peak_bytes"]["median"] < 4 << 30
        assert 0 < each["ready_seconds"]["median"] < each["first_step_seconds"]["median"]
        assert each["tokens_per_second"]["min"] <= each["tokens_per_second"]["median"]
    json.dumps(result)


def test_a_peer_that_is_not_there_is_told_and_is_no_error(result):
    assert result["cases"][0]["contestants"]["trl_default"] == {"title": "TRL SFT", "state": "not installed"}
    assert any("not installed" in line and "bootstrap_bench.sh" in line for line in result["told"])
    assert "not installed" in forge_text(result)


def test_ratios_are_taken_within_rounds_and_told_by_their_median():
    runs = [run("ours", 1, 0), run("bare", 2, 0), run("ours", 4, 1), run("bare", 4, 1), run("ours", 1, 2)]
    found = standing(CASE, [*runs, run("bare", 9, 2, problem="ended with -9")], [])
    assert found["ratio_steady"]["bare"] == pytest.approx(statistics.median([2, 1]))
    assert found["ratio_steady_range"]["bare"] == [1, 2]
    assert found["ratio"]["bare"] == pytest.approx(statistics.median([5 / 3, 1]))
    assert found["ratio_cpu"]["bare"] == pytest.approx(statistics.median([2, 1]))
    assert found["contestants"]["bare"]["problem"] == "ended with -9"
    assert found["contestants"]["ours"]["tokens_per_second"] == {
        "median": pytest.approx(40 / 3), "min": pytest.approx(40 / 9), "max": pytest.approx(40 / 3)}  # fmt: skip


def test_who_always_fails_is_reported_as_failed():
    found = standing(CASE, [run("ours", 1), run("bare", 1, problem="out of memory")], [])
    assert found["contestants"]["bare"]["state"] == "failed" and found["ratio"]["bare"] is None
    assert "failed" in forge_text({"machine": MACHINE, "cases": [found]})


MACHINE = {"cpu": "a CPU", "cores": 2, "threads": 2, "memory_bytes": 1 << 34, "gpus": []}


def test_the_page_keeps_what_other_benches_wrote(tmp_path):
    found = standing(CASE, [run("ours", 1), run("bare", 2), run("trl_as_it_comes", 3)], ["trl_default"])
    answer = {"cases": [found], "machine": MACHINE, "versions": {"torch": "1"}, "date": "today", "quick": True}
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\n<!-- bench faults -->\nkept\n<!-- end of bench faults -->\n")
    first = write_forge(answer, tmp_path)
    once = page.read_text()
    write_forge(answer, tmp_path)
    assert page.read_text() == once and "kept" in once and once.count("The forge against its peers") == 1
    assert "1.67 x" in once and "not installed" in once and "(bf16, checkpointing)" in once
    assert all(path.exists() for path in first) and "images/forge_mini_fp32.svg" in once


def test_a_picture_is_well_formed_and_its_bars_are_as_long_as_their_numbers():
    bars = [Bar("Ours <&>", 4000, 3900, 4100, "", True), Bar("Theirs", 1000, 1000, 1000, "4.00 ×")]
    picture = ElementTree.fromstring(chart("Speed", "two cores", bars, "tokens"))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(each.get("width")) for each in picture.iter(f"{space}rect") if each.get("x")]
    assert widths[0] == pytest.approx(4 * widths[1], rel=1e-2)
    assert "Ours <&>" in [each.text for each in picture.iter(f"{space}text")]


@pytest.mark.parametrize("count", [24, 152, 500])
def test_row_lengths_are_those_of_chats(count):
    lengths = token_lengths(count, 1006, random.Random(1))
    assert 110 <= statistics.median(lengths) <= 125
    assert 160 <= statistics.mean(lengths) <= 185
    assert max(lengths) <= 1006 and lengths == token_lengths(count, 1006, random.Random(1))


def test_operations_are_counted_by_hand():
    shape = {"hidden_size": 2, "head_dim": 3, "num_attention_heads": 2, "num_key_value_heads": 1,
             "num_hidden_layers": 1, "intermediate_size": 5, "vocab_size": 7}  # fmt: skip
    weights = 2 * 6 + 2 * 3 + 2 * 3 + 6 * 2 + 3 * 2 * 5  # q, k, v, o, and the three of the inner layer
    attention = (1 + 2 + 3) * 2 * 2 * 6  # pairs of tokens, two products, multiply and add, all heads' width
    assert training_flops(shape, [3], labels=2) == 3 * (2 * weights * 3 + 2 * 2 * 7 * 2 + attention)


@pytest.mark.parametrize(("words", "told"), [
    (["--peers", "trl_defalt"], "did you mean 'trl_default'?"), (["--sizes", "4M"], "Known: mini, 4m"),
    (["--repeats", "0"], "must be at least 1"), (["--precision", "fp64"], "Known: fp32, bf16")])  # fmt: skip
def test_a_wrong_word_is_answered_with_the_right_ones(words, told, capsys):
    assert main(["bench", "forge", *words]) == 1 and told in capsys.readouterr().err


def test_every_peer_of_the_contract_has_a_contestant_at_equal_settings():
    assert all(CONTESTANTS[name].equal for name in PEERS)


# In turn


def test_the_arena_and_a_bare_loop_step_in_turn():
    from training.bench.arena import arena_text, run_arena

    result = json.loads(json.dumps(run_arena(2, ("tiny",))))
    assert set(result["ratio"]) == {"bare", "transformers"} and result["ratio"] == result["cases"][0]["ratio"]
    assert result["passed"] is (result["ratio"]["bare"] >= 1 / 1.1) and "x as fast as a bare loop" in arena_text(result)


def test_the_forge_and_the_bare_loop_step_in_turn_over_the_same_rows(tmp_path):
    result = json.loads(
        json.dumps(run_in_turn(Options(("mini",), ("fp32",), (), repeats=1, steps=7), lambda text: None))
    )
    (case,) = result["cases"]
    ours, bare = case["seconds"]["ours"], case["seconds"]["bare"]
    assert case["steps"] == len(ours) == len(bare) == 4
    assert case["ratio"] == pytest.approx(sum(bare) / sum(ours))
    assert case["interval"][0] <= case["ratio"] <= case["interval"][1]
    assert case["held_out_loss"]["ours"] == pytest.approx(case["held_out_loss"]["bare"], abs=1e-4)
    assert f"{case['ratio']:.3f} x" in in_turn_text(result)
    (page,) = write_in_turn(result, tmp_path)
    assert "bench forge --in-turn --sizes mini --precision fp32 --steps 7" in page.read_text()


def test_an_entrant_that_fails_says_why(tmp_path):
    task = {"entrant": "nobody", "root": str(tmp_path), "size": "mini", "steps": 5, "precision": "fp32", "threads": 1}
    with (
        launch.Launched(tmp_path, sys.executable, task, tmp_path / "kernels") as launched,
        pytest.raises(RealmError, match=r"No module named 'training\.bench\.entrants\.nobody'"),
    ):
        launched.answer()


# Ingest


@pytest.fixture
def ingest_of(monkeypatch):
    """The ingest bench on a few rows, datasets not installed."""
    monkeypatch.setattr(ingest, "installed", lambda python, packages: set())
    monkeypatch.setattr(launch, "PEER_PYTHON", CHECKOUT / "nowhere")
    monkeypatch.setattr(ingest, "QUICK_ROWS", 100)
    return lambda: ingest.run_ingest(True, 1, lambda text: None)


def test_the_ingest_bench_measures_ours_alone_where_datasets_is_missing(ingest_of):
    result = json.loads(json.dumps(ingest_of()))
    ours = result["ways"]["ours"]
    assert result["ratio"] is None and result["tokens"] > 5000 and list(result["ways"]) == ["ours"]
    assert 0 < ours["megabytes_per_second"]["min"] <= ours["megabytes_per_second"]["median"]
    assert f"{result['tokens']:,} tokens" in ingest.ingest_text(result)


def test_the_ingest_bench_takes_the_median_of_rounds_and_refuses_to_compare_unlike_work():
    ours, theirs = ([{"seconds": seconds, "trained_tokens": 5} for seconds in each] for each in ((1, 2, 4), (3, 10, 8)))
    assert ingest._ratio({"ours": ours, "map": theirs}, "map") == 3
    ingest._assert_same({"ours": ours, "map": theirs})
    with pytest.raises(RealmError, match="not the same work"):
        ingest._assert_same({"ours": ours, "map": [{"trained_tokens": 6}]})
