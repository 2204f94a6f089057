"""The schools beside TRL's trainers: the arithmetic and the page from made-up runs, and one quick pair for real."""

import json

import pytest

from training.bench import peers
from training.bench.launch import PEER_PYTHON
from training.bench.peers import OURS, PEERS, PeerOptions, compared, run_peers
from training.bench.peers_page import peers_text, write_peers
from training.bench.school_work import LOADS
from training.bench.standing import Run
from training.cli import main

LOAD = LOADS["mini"]["judge"]


def run(name: str, number: int, seconds: float, mebibytes: int, references: float = 0.0, **others) -> Run:
    """A run of two steps of 50 tokens."""
    found = {"tokens": [50, 50], "seconds": [seconds, seconds], "reference_seconds": references,
             "peak_bytes": mebibytes << 20}  # fmt: skip
    return Run(number, name, 0.0, found | others)


@pytest.fixture
def school():
    """Two rounds; ours asks for references for a second each time, one peer failed once and another always."""
    return compared("judge", LOAD, 24, [
        run(OURS, 0, 2, 500, 1), run("dpo", 0, 10, 1000), run("dpo_precomputed", 0, 4, 800, 2),
        run("dpo_precomputed", 1, 4, 700, 2, problem="ended with -9"), run("dpo", 1, 5, 1000), run(OURS, 1, 2, 700, 1),
        run("dpo_precomputed_one", 0, 1, 1, problem="broken")])  # fmt: skip


def test_ratios_are_of_whole_rounds_with_what_the_references_took(school):
    assert school["contestants"][OURS]["tokens_per_second"]["median"] == pytest.approx(100 / 5)
    assert school["ratio"] == {"dpo": pytest.approx((20 / 5 + 10 / 5) / 2), "dpo_precomputed": pytest.approx(10 / 5)}
    assert school["ratio_quickest"] == pytest.approx(2)
    assert school["memory_ratio"] == {"dpo": pytest.approx(0.6), "dpo_precomputed": pytest.approx(500 / 800)}
    assert school["contestants"]["dpo_precomputed_one"]["state"] == "failed"


def test_each_school_has_its_own_part_of_the_page(school, tmp_path):
    machine = {"cpu": "a CPU", "cores": 2, "threads": 2, "memory_bytes": 1 << 34, "gpus": []}
    answer = {"schools": {"judge": school}, "machine": machine, "versions": {"torch": "1"}, "date": "today",
              "quick": True, "size": "mini"}  # fmt: skip
    page = tmp_path / "benchmarks.md"
    page.write_text("# Benchmarks\n\n<!-- bench peers oracle -->\nkept\n<!-- end of bench peers oracle -->\n")
    write_peers(answer, tmp_path)
    once = page.read_text()
    assert write_peers(answer, tmp_path) == [page] and page.read_text() == once
    assert "kept" in once and once.count("### Judge") == once.count("## The schools against TRL") == 1
    assert "|TRL DPO, a second model|8|5-10|3.00 x|" in once and "failed" in once
    assert "bench schools --peers --quick --schools judge" in once and "3.00 x" in peers_text(answer)


def test_without_trl_the_school_is_told_alone():
    found = compared("judge", LOAD, 32, [run(OURS, 0, 2, 500, 1)])
    assert found["ratio_quickest"] is None and found["memory_ratio"] == {}
    assert {name: each["state"] for name, each in found["contestants"].items()} == {
        OURS: "measured", **dict.fromkeys((peer.name for peer in PEERS["judge"]), "not installed")}  # fmt: skip


@pytest.mark.skipif(not PEER_PYTHON.exists(), reason="the peers are not installed: bash scripts/bootstrap_bench.sh")
def test_both_sides_train_the_same_tokens_in_as_many_steps(monkeypatch):
    monkeypatch.setattr(peers, "PEERS", {"judge": (PEERS["judge"][2],)})
    found = run_peers(PeerOptions(("judge",), quick=True, rounds=1), lambda text: None)["schools"]["judge"]
    ours, theirs = found["contestants"].values()
    assert ours["tokens"] == theirs["tokens"] and found["ratio_quickest"] > 0
    assert len(ours["runs"][0]["seconds"]) == len(theirs["runs"][0]["seconds"]) == LOAD.steps
    assert min(each["reference_seconds"]["median"] for each in (ours, theirs)) > 0
    json.dumps(found)


def test_a_school_without_a_peer_is_answered_with_those_that_have_one(capsys):
    assert main(["bench", "schools", "--peers", "--schools", "mirror"]) == 1
    assert f"Known: {', '.join(PEERS)}" in capsys.readouterr().err


def test_every_way_to_run_a_peer_takes_a_whole_number_of_passes_a_step():
    for size in LOADS.values():
        for school, load in size.items():
            rows = load.rows * (load.answers or 1)
            assert all(rows % min(peer.micro or rows, rows) == 0 for peer in PEERS[school])
