"""Exams after battles: levels rise by proof alone, fall by proof alone, and cost no more than their share."""

import random
from functools import lru_cache
from types import SimpleNamespace

import pytest

from core.examination import CANARY, DOUBT, EXAM, Syllabus, after_battle, asked_canaries, baseline
from core.mastery import BAR, ERROR
from core.skills import skill
from core.skills.base import Skill
from core.standing import FIRST_CREDIT, Standing

SYLLABUS = Syllabus({"REV": 1.0}, seed=7)
PLENTY = 1e9


def newborn(**facts):
    return SimpleNamespace(**{"standing": {}, "canaries": {}, "baseline": {}} | facts)


def hero(accuracy, seed=0):
    """One that is right by chance, `accuracy(level)` of the time; what it was asked is kept."""
    draw, asked = random.Random(seed), []

    def ask(problems):
        asked.extend(problems)
        return [draw.random() < accuracy(problem.level) for problem in problems]

    return ask, asked


def sit(before, ask, step=10, own=None, tokens=PLENTY, syllabus=SYLLABUS, price=len, strange=False):
    return SimpleNamespace(**after_battle(before, syllabus, step, own, tokens, ask, price, strange))


def test_whoever_knows_several_levels_rises_by_all_of_them_at_once_and_no_further():
    ask, asked = hero(lambda level: float(level <= 3))
    found = sit(newborn(), ask)
    standing = Standing.of(found.standing)
    assert standing.levels("REV") == (1, 2, 3) and standing.frontier("REV") == 4
    assert standing.looks == {"REV/1": 1, "REV/2": 1, "REV/3": 1}, "canaries that fail cost no look"
    assert [row["outcome"] for row in found.exams if row["kind"] == "exam"] == ["mastered"] * 3
    assert found.canaries["REV/4"] == [0, CANARY]
    assert all(skill("REV").held_out(problem.prompt) for problem in asked)


def test_problems_of_exams_are_new_each_time_and_canaries_are_not():
    ask, asked = hero(lambda level: float(level == 2 and len(asked) < CANARY + 250))
    higher = Syllabus({"REV": 1.0}, first=2, seed=7)
    first = sit(newborn(), ask, step=10, syllabus=higher)
    one = list(asked)
    ask, asked = hero(lambda level: float(level == 2))
    sit(first, ask, step=20, syllabus=higher)
    canaries = {problem.prompt for problem in one[:CANARY]}
    assert canaries == {problem.prompt for problem in asked[:CANARY]}
    exam_one, exam_two = ({problem.prompt for problem in each[CANARY:]} for each in (one, asked))
    assert exam_one and exam_two and len(exam_one & exam_two) < 0.05 * len(exam_one)


def test_an_exam_that_is_lost_ends_early_and_one_that_is_passed_does_not():
    ask, asked = hero(lambda level: 0.0 if len(asked) > CANARY else 1.0)
    sit(newborn(), ask)
    assert CANARY < len(asked) < CANARY + EXAM / 2
    ask, asked = hero(lambda level: float(level == 1))
    sit(newborn(), ask)
    assert len(asked) == CANARY + EXAM + CANARY


def test_a_small_closed_world_is_asked_whole_however_often_it_was_looked_at():
    ask, asked = hero(lambda level: float(level == 1))
    before = newborn(standing=Standing(looks={"BIN/1": 40}).as_json())
    found = sit(before, ask, syllabus=Syllabus({"BIN": 1.0}))
    assert Standing.of(found.standing).levels("BIN") == (1,)
    assert sum(problem.level == 1 for problem in asked) == CANARY + 117


def test_a_level_is_lost_when_canaries_die_and_fresh_problems_agree():
    known = Standing({"REV": (1, 2, 3)}).as_json()
    ask, _ = hero(lambda level: float(level != 2))
    found = sit(newborn(standing=known), ask)
    assert Standing.of(found.standing).levels("REV") == (1, 3)
    assert Standing.of(found.standing).frontier("REV") == 2
    assert [(row["level"], row["asked"]) for row in found.exams if row["outcome"] == "lost"] == [(2, DOUBT)]
    canaries = {problem.prompt for problem in skill("REV").evaluation(2, SYLLABUS.seed, CANARY)}
    unlucky, _ = hero(lambda level: 1.0)

    def only_canaries_fail(problems):
        return [
            right and problem.prompt not in canaries for right, problem in zip(unlucky(problems), problems, strict=True)
        ]

    found = sit(newborn(standing=known), only_canaries_fail)
    assert found.canaries["REV/2"] == [0, CANARY] and 2 in Standing.of(found.standing).levels("REV")


def test_of_a_thousand_heroes_just_under_the_bar_no_more_rise_than_the_interval_promises(monkeypatch):
    monkeypatch.setattr(Skill, "evaluation", lru_cache(None)(Skill.evaluation))
    risen = 0
    for seed in range(1000):
        ask, _ = hero(lambda level: BAR - 0.001 if level == 2 else float(level == 1), seed)
        before = newborn(standing=Standing({"REV": (1,)}).as_json())
        for step in range(12):
            before = sit(before, ask, step, syllabus=Syllabus({"REV": 1.0}, first=2))
        risen += 2 in Standing.of(before.standing).levels("REV")
    assert risen <= 1000 * ERROR + 2 * (1000 * ERROR * (1 - ERROR)) ** 0.5


def test_a_hero_well_above_the_bar_rises_soon():
    risen = 0
    for seed in range(50):
        ask, _ = hero(lambda level: 0.98 * (level == 1), seed)
        risen += 1 in Standing.of(sit(newborn(), ask).standing).levels("REV")
    assert risen >= 48


@pytest.mark.parametrize("tokens", [300.0, 5_000.0, 50_000.0])
def test_exams_cost_their_share_of_the_battles_and_what_could_not_be_paid_is_held_later(tokens):
    spent = 0
    before, step = newborn(), 0
    ask, asked = hero(lambda level: 1.0 if level < 3 else 0.0)
    while 2 not in Standing.of(before.standing).levels("REV") and step < 1000:
        step += 1
        before = sit(before, ask, step, tokens=tokens, price=lambda problems: 20 * len(problems))
        spent = 20 * len(asked)
        assert spent <= 2 * FIRST_CREDIT + step * SYLLABUS.share * tokens
    assert 2 in Standing.of(before.standing).levels("REV"), "put off, not given up"


def test_the_canaries_of_an_old_hero_stay_few_and_see_every_level_in_time():
    levels = tuple(range(1, 26))
    before = newborn(standing=Standing({"REV": levels}).as_json())
    ask, _ = hero(lambda level: 1.0 if level < 26 else 0.0)
    seen = set()
    for step in range(25):
        keys = {row["level"] for row in sit(before, ask, step).exams if row["kind"] == "canary"}
        assert {26, 25, 24, 23} <= keys and len(keys) <= 10
        seen |= keys
    assert seen >= set(levels)


def test_the_baseline_is_what_the_first_weights_knew_and_stays():
    ask, _ = hero(lambda level: 0.5, 3)
    found = SimpleNamespace(**baseline(newborn(), Syllabus({"BIN": 1.0, "REV": 2.0, "SY": 0.0}, seed=7), ask))
    assert set(found.baseline) == {"BIN/1", "REV/1"} and found.baseline == found.canaries
    later = sit(found, hero(lambda level: 1.0)[0])
    assert later.baseline == found.baseline and later.canaries["REV/1"] == [32, 32]


def test_the_quests_own_skill_is_examined_first_and_a_strange_one_not_at_all():
    ask, asked = hero(lambda level: 0.0)
    sit(newborn(), ask, own="SEQ")
    assert [problem.skill for problem in asked[::CANARY]] == ["SEQ", "REV"]
    asked.clear()
    sit(newborn(), ask, own="nothing we know")
    assert {problem.skill for problem in asked} == {"REV"}


def test_the_same_exams_come_to_the_same_results():
    results = [vars(sit(newborn(), hero(lambda level: 0.95, 4)[0])) for _ in range(2)]
    assert results[0] == results[1]


def test_what_problems_of_a_level_cost_is_asked_once_a_sitting():
    asked = []

    def price(problems):
        asked.append((problems[0].skill, problems[0].level, problems[0].prompt, len(problems)))
        return len(problems)

    before = newborn(standing=Standing({"REV": (1, 2)}).as_json())
    for accuracy in (0.0, 1.0):
        sit(before, hero(lambda level, all_right=accuracy: all_right * (level <= 5))[0], price=price)
        assert len(asked) == len(set(asked)) and {count for *_, count in asked} >= {CANARY, EXAM}
        asked.clear()


def test_when_canaries_cannot_all_be_paid_every_skill_has_its_turn():
    syllabus, before, seen = Syllabus({"BIN": 1.0, "REV": 1.0, "SEQ": 1.0}, seed=7), newborn(), []
    ask, _ = hero(lambda level: 0.3)
    for step in range(40):
        before = sit(
            before, ask, step, own="BIN", tokens=8_000, syllabus=syllabus, price=lambda problems: 30 * len(problems)
        )
        seen += [row["skill"] for row in before.exams]
    assert all(seen.count(name) >= 10 for name in ("BIN", "REV", "SEQ")) and len(seen) < 60


def test_a_battle_too_short_to_pay_for_canaries_is_judged_by_a_sentinel_of_each_skill():
    before = newborn(
        standing=Standing({"REV": (1, 2), "BIN": (1,)}, credit={"canaries": 0.0, "exams": 0.0}).as_json(),
        canaries={"REV/1": [32, 32], "REV/2": [31, 32], "BIN/1": [30, 32], "BIN/2": [20, 32]},
    )
    syllabus, ask = Syllabus({"REV": 1.0, "BIN": 1.0}, seed=7), hero(lambda level: 0.0)[0]
    spoiled = sit(before, ask, tokens=100.0, syllabus=syllabus, strange=True)
    assert asked_canaries(spoiled.exams, spoiled.canaries) == {"REV/1": [0, CANARY], "BIN/1": [0, CANARY]}
    own = sit(before, ask, tokens=100.0, syllabus=syllabus)
    assert not asked_canaries(own.exams, own.canaries) and own.canaries == before.canaries


def test_what_sentinels_cost_is_paid_back_and_is_no_debt_without_end():
    before = newborn(standing=Standing({"REV": (1, 2)}).as_json())
    ask, asked = hero(lambda level: float(level < 3))
    for step in range(200):
        before = sit(before, ask, step, tokens=100.0, price=lambda problems: 20 * len(problems), strange=True)
    credit = Standing.of(before.standing).credit
    assert -FIRST_CREDIT <= credit["canaries"] < 0 and len(asked) >= 200 * CANARY, "never blind"
    for step in range(200, 260):
        before = sit(before, ask, step, tokens=50_000.0, price=lambda problems: 20 * len(problems), strange=True)
    assert Standing.of(before.standing).credit["canaries"] >= 0
