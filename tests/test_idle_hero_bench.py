"""The acceptance bench in small: a real realm is started, left alone, asked and tried; what it found stands on the page."""

from training.bench import garbage, idle_hero
from training.bench.idle_hero import IdleOptions, idle_hero_text, run_idle_hero, write_idle_hero


def test_a_hero_of_few_seconds_is_asked_and_tried_and_told_with_what_it_lacks(tmp_path, monkeypatch):
    monkeypatch.setattr(garbage, "ROWS", 64)
    monkeypatch.setattr(garbage, "GOOD_ROWS", 32)
    monkeypatch.setattr(idle_hero, "POLL_SECONDS", 1.0)
    said: list[str] = []
    result = run_idle_hero(IdleOptions(seeds=1, first=2, minutes=0.05, questions=3), said.append)
    (life,) = result["lives"]
    assert not result["passed"] and not life["learnt"], "nobody learns that in three seconds"
    assert (life["seed"], life["minutes"] >= 0.05) == (2, True)
    assert {name: score["asked"] for name, score in life["scores"].items()} == {"BIN": 3, "REV": 3}
    found = life["verdicts"]
    assert {found["garbage"], found["good"]} <= {"blessed", "partial", "cursed"}
    assert found["taken_back"] == (found["garbage"] == "cursed"), "that, and nothing else, takes a hero back"
    assert any(line.startswith("seed 2,") for line in said) and "NOT passed" in idle_hero_text(result)
    (page,) = write_idle_hero(result, tmp_path)
    (row,) = [line for line in page.read_text().splitlines() if line.startswith("|2|")]
    assert row.count("|") == 7 and found["garbage"] in row and f"{found['good']} (" in row
