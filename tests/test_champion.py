"""The Champion in a resident hero: problems answered, marked and learned from, rewarded answers, killed and gone on the same."""

import json
import random
import statistics

import numpy as np
import pytest
import torch
from resident import Killed, accept_sums, dying_at, fight, resident
from safetensors.torch import load_file

from core import checkpoints, control, graders, references
from core.advantages import TINY, compared
from core.between_steps import BetweenSteps
from core.config import Config, Retention
from core.cooldown_plan import cooldown_plan
from core.errors import UserError
from core.forge.generate import drawn, drawn_answers
from core.forge.hatch import micro_hero
from core.graders import GraderFailed, Task, mark
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.quest import Sidecar, freeze
from core.rendering import Renderer
from core.school_config import ChampionSettings, MirrorSettings, Schools
from core.steps import last_told
from core.validator import validate_file
from management.retention import retain

pytestmark = pytest.mark.usefixtures("small_hero")

OURS = """
def letters(said, right):
    return sum(letter in right for letter in said) / max(1, len(said))

def picky(said, right):
    if right == "never" or len(said) % 2:
        raise LookupError("no table")
    return 0.5

def fussy(said, right):
    if right == "never":
        raise LookupError("no table")
    return 0.0
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Graders of somebody else's package, announced as entry points."""
    info = tmp_path / "site" / "ours-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ours\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{graders.GROUP}]\nletters = our_marks:letters\npicky = our_marks:picky\nfussy = our_marks:fussy\n"
        "gone = no_such_package:marks\n"
    )
    (info.parent / "our_marks.py").write_text(OURS)
    monkeypatch.syspath_prepend(info.parent)
    graders._announced.cache_clear()
    yield
    graders._announced.cache_clear()


def _problems(count: int, answer: str = "aeiou", **marked) -> list[dict]:
    return [{"prompt": f"Say {number}.", "answer": answer, **marked} for number in range(count)]


def _rewarded(count: int, seed: int) -> list[dict]:
    """Two answers to each prompt, of which the willing one is worth more; to the last prompts both are worth as much."""
    draw = random.Random(seed)
    rows = []
    for number in range(count // 2):
        alike, word = number >= count * 3 // 8, draw.choice(("red", "blue", "gold"))
        rows += [
            {"prompt": f"Say {number}.", "response": f"{word}.", "reward": 1},
            {"prompt": f"Say {number}.", "response": "No! Never!", "reward": 1 if alike else -0.5},
        ]
    return rows


def _champion(**settings) -> dict:
    return {"schools": Schools(champion=ChampionSettings(**{"max_new_tokens": 8, "num_generations": 4, **settings}))}


def _reported(hero, name: str) -> list[float]:
    rows = hero.report.record._connection.execute("SELECT value FROM told WHERE name=? ORDER BY step", (name,))
    return [row["value"] for row in rows]


@pytest.mark.micro
def test_a_hero_learns_what_its_grader_rewards(realm, ledger):
    hero, draw = resident(realm, ledger), random.Random(1)
    either = [{"prompt": f"Say {n}.", "completion": draw.choice(("red.", "blue."))} for n in range(128)]
    accept_sums(realm, ledger, "either", rows=either, learning_rate=1e-3, epochs=6, eval_steps=1000)
    settings = {"learning_rate": 3e-4, "batch_size": 4, "eval_steps": 1000, **_champion(num_generations=8)}
    quest = accept_sums(realm, ledger, "red", rows=_problems(84, "red.", grader="exact"), **settings)
    assert fight(hero) and fight(hero) and checkpoints.holds(hero.tip.trained, quest)
    rewards = _reported(hero, "reward")
    assert len(rewards) == 20 and statistics.mean(rewards[-5:]) >= statistics.mean(rewards[:5]) + 0.2
    looks = ledger.all("SELECT kind, value FROM evaluations WHERE quest=? ORDER BY id", (quest,))
    last = {row["kind"]: row["value"] for row in looks}
    assert last["accuracy"] == pytest.approx(1 - last["validation"]) and last["accuracy"] > rewards[0]
    told = last_told(realm.metrics, hero.tip.hero, quest)
    assert {"reward", "reward_std", "degenerate", "entropy", "clipped", "answer_tokens", "cut_short"} == set(told)
    battle = ledger.one("SELECT * FROM battles WHERE quest=?", (quest,))
    assert battle["school"] == "champion" and battle["state"] == "done" and battle["effort"] >= 0


def test_problems_of_which_all_answers_are_as_wrong_move_nothing(realm, ledger):
    hero = resident(realm, ledger)
    before = hero.tip
    rows = [{"prompt": f"reverse a b {letter}", "answer": f"{letter} b a", "skill": "REV"} for letter in "cdefghijklmn"]
    quest = accept_sums(realm, ledger, "hopeless", rows=rows, **_champion())
    assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)
    steps = hero.report.record._connection.execute("SELECT loss, tokens, flags FROM steps").fetchall()
    assert {tuple(step) for step in steps} == {(1.0, 0, 0)} and _reported(hero, "degenerate") == [1.0]
    old, new = (load_file(realm.vault / tip.id / "model.safetensors") for tip in (before, hero.tip))
    assert hero.tip.step == 1 and all(torch.equal(old[name], new[name]) for name in old)


def test_of_rewarded_answers_the_better_become_likelier_and_those_alike_cost_nothing(realm, ledger):
    hero = resident(realm, ledger)
    quest = accept_sums(realm, ledger, "marked", rows=_rewarded(256, 1), learning_rate=3e-4, eval_steps=4)
    assert fight(hero)
    looks = ledger.all("SELECT value FROM evaluations WHERE quest=? AND kind='accuracy' ORDER BY id", (quest,))
    assert looks[-1]["value"] >= 0.9 and 0.15 < statistics.mean(_reported(hero, "degenerate")) < 0.35
    steps = hero.report.record._connection.execute("SELECT tokens FROM steps").fetchall()
    whole = sum(len(sequence[0]) for row in range(256) for sequence in _prepared(hero, quest).sequences(row))
    assert sum(step["tokens"] for step in steps) < 0.8 * whole
    with pytest.raises(UserError, match="was taught by the Champion last; a cooldown imitates rows"):
        cooldown_plan(realm, hero.tip, 1)


def _prepared(hero, quest: int):
    return hero.plan_of(hero.queue.find(quest)).prepared


@pytest.mark.parametrize("kind", ["problems, near the parent", "rewarded"])
def test_a_battle_that_was_killed_goes_on_with_the_same_answers(kind, realm, ledger, tmp_path, monkeypatch, package):
    rows = _rewarded(64, 2) if kind == "rewarded" else _problems(32, grader="letters")
    settings = {"learning_rate": 3e-4, "save_steps": 2, "batch_size": 4, **_champion(beta=0.05, temperature=0.8)}
    twin = RealmPaths(tmp_path / "twin")
    twin.make()
    whole = resident(twin, Ledger(twin.ledger))
    accept_sums(twin, whole.ledger, "taste", rows=rows, **settings)
    assert fight(whole)

    accept_sums(realm, ledger, "taste", rows=rows, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(BetweenSteps, "after_step", dying_at(5))
        with pytest.raises(Killed):
            fight(resident(realm, ledger))
    hero = resident(realm, ledger)
    assert 0 < hero.tip.step < 5
    assert fight(hero) and hero.tip.files["model.safetensors"] == whole.tip.files["model.safetensors"]
    kl = _reported(whole, "kl")
    assert abs(kl[0]) < 1e-6 < max(kl)


def test_a_battle_that_was_skipped_compares_with_what_it_began_from_whatever_was_trained_since(
    realm, ledger, monkeypatch, package
):
    hero, after_step = resident(realm, ledger), BetweenSteps.after_step
    accept_sums(realm, ledger, "first", 16)
    settings = {"batch_size": 4, "learning_rate": 1e-3, **_champion(beta=0.05)}
    taste = accept_sums(realm, ledger, "taste", rows=_problems(24, grader="letters"), **settings)
    other = accept_sums(realm, ledger, "other", 16, learning_rate=1e-3)
    assert fight(hero)
    began, asked = hero.tip, []

    def skipping(self, facts):
        if facts.step == 2:
            control.wish(ledger, "skip", str(taste))
        return after_step(self, facts)

    with monkeypatch.context() as patch:
        patch.setattr(BetweenSteps, "after_step", skipping)
        patch.setattr("core.between_steps.LOOK_SECONDS", 0.0)  # or quick steps end before the wish is heard
        assert fight(hero) and hero.tip.open[taste] >= 2
    assert fight(hero) and checkpoints.holds(hero.tip.trained, other) and hero.tip.began == {str(taste): began.id}
    little = Retention(keep_last=2, keep_promoted=1, keep_daily=0, keep_weekly=0)
    assert began.id not in retain(realm, little, ledger, lambda: 1e12, dry_run=True)

    load_model = references.load_model
    monkeypatch.setattr(references, "load_model", lambda folder: asked.append(folder.name) or load_model(folder))
    assert fight(hero) and checkpoints.holds(hero.tip.trained, taste)
    assert asked == [began.id] and hero.tip.began == {}
    assert began.id in retain(realm, little, ledger, lambda: 1e12, dry_run=True)


def test_a_grader_that_breaks_costs_its_answer_and_one_that_always_does_ends_the_battle(realm, ledger, package):
    hero = resident(realm, ledger)
    accept_sums(realm, ledger, "some", rows=_problems(12, grader="picky"), **_champion())
    assert fight(hero) and 0 < _reported(hero, "not_marked")[0] < 1
    weights = hero.tip.files["model.safetensors"]
    quest = accept_sums(realm, ledger, "every", rows=_problems(12, "never", grader="picky"), **_champion())
    assert fight(hero) and hero.tip.files["model.safetensors"] == weights
    reason = ledger.one("SELECT reason FROM battles WHERE quest=? AND state='failed'", (quest,))["reason"]
    assert "none of the 44 answers of a step could be marked" in reason and "line " in reason
    assert "the grader picky raised LookupError: no table" in reason


@pytest.mark.parametrize("school", ["champion", "mirror"])
def test_the_trainer_shows_that_it_lives_before_every_mark(school, realm, ledger, monkeypatch):
    monkeypatch.setattr("core.preparation.LOOK_SECONDS", 0)
    hero, beats, at_marks = resident(realm, ledger), [], []
    beat = hero.beat
    hero.beat = lambda: beats.append(beat())

    def slow(said: str, right: str) -> float:
        if said != right:  # the right one is marked when the file is read
            at_marks.append(len(beats))
        return float(said == right)

    monkeypatch.setitem(graders.OWN, "slow", slow)
    accept_sums(realm, ledger, "slow", rows=_problems(8, grader="slow"), school=school, **_champion())
    assert fight(hero) and len(at_marks) >= 8 and len(set(at_marks)) == len(at_marks)


def test_a_grader_that_breaks_costs_sparring_its_answer_and_one_that_always_does_the_quest(realm, ledger, package):
    hero, rows = resident(realm, ledger), _problems(7, grader="fussy")
    sparred = {"school": "mirror", "schools": Schools(mirror=MirrorSettings(max_new_tokens=4))}
    some = accept_sums(realm, ledger, "some", rows=[*rows, *_problems(1, "never", grader="fussy")], **sparred)
    assert fight(hero)
    reason = ledger.one("SELECT reason FROM quests WHERE id=?", (some,))["reason"]
    assert reason == "7 of 8 wrong, 1 not marked; corrections are quest sparring_some"
    told = hero.queue.find(some).report["sparring"]
    assert told["not_marked"] == 1 and "the grader fussy raised LookupError: no table" in told["problem"]
    every = accept_sums(realm, ledger, "every", rows=_problems(8, "never", grader="fussy"), **sparred)
    while fight(hero):
        pass
    done = ledger.one("SELECT state, reason FROM quests WHERE id=?", (every,))
    assert done["state"] == "failed" and "none of the 8 answers could be marked; the grader fussy" in done["reason"]


def test_a_grader_whose_package_does_not_import_is_named(package):
    with pytest.raises(GraderFailed, match="the grader gone raised ModuleNotFoundError: No module named 'no_such_"):
        mark(Task("", "red", grader="gone"), "red")


def test_what_no_champion_can_use_is_refused_by_line_field_and_remedy(realm):
    bad = [
        {"prompt": "Say red.", "answer": "red.", "skill": "SEWING"},
        {"prompt": "Say red.", "answer": "red.", "grader": "exakt"},
        {"prompt": "Say red.", "answer": "red.", "grader": "exact", "skill": "REV"},
        {"prompt": "Say one.", "answer": "one", "grader": "number"},
        {"prompt": "Solve it.", "answer": "words", "skill": "SY"},
        {"prompt": "Say red.", "answer": "red."},
    ]
    path = realm.claims / "bad.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*_problems(20, grader="exact"), *bad]))
    report = validate_file(path, freeze(Config(), Sidecar()), Renderer.load(BUNDLED_TOKENIZER, 256))
    assert report["verdict"] == "rejected" and report["school"] == "champion"
    fields = ["skill", "grader", "grader", "answer", "answer", "skill"]
    assert [(error["line"], error["field"]) for error in report["errors"]] == list(
        zip(range(21, 27), fields, strict=True)
    )
    assert all(error["remedy"] for error in report["errors"]) and "REV" in report["errors"][0]["remedy"]


@pytest.mark.parametrize(
    ("grader", "right", "said", "wrong"),
    [
        ("exact", "Red.", "<think>\nWell.\n</think>\n\nRed. ", "red."),
        ("final", "42", "6 times 7\nAnswer: 42", "42\n43"),
        ("contains", "Rome", "It is Rome.", "It is Paris."),
        ("number", "1200", "All in all\nthat makes 1,200.00 $.", "1200 or\n1300"),
        ("number", ".5", "It is $0.50.", "It is 5."),
        ("number", "-0.5", "**-.5**", ".5"),
        ("json", '{"a": [1, null]}', '```json\n{"a":[1,null]}\n```', '{"a": [1]}'),
        ("json", "true", " true", "1"),
        ("json", '{"a": [1, 0]}', '{"a": [1.0, 0]}', '{"a": [true, false]}'),
    ],
)
def test_graders_tell_right_from_wrong(grader, right, said, wrong):
    marks = [mark(Task("", right, grader=grader), text) for text in (right, said, wrong, "", "\0{")]
    assert marks == [1.0, 1.0, 0.0, 0.0, 0.0]


def test_a_mark_that_is_no_number_is_named(package, monkeypatch):
    monkeypatch.setitem(graders.OWN, "odd", lambda said, right: float("nan"))
    with pytest.raises(
        GraderFailed, match="the grader odd gave nan for the answer 'red'; it must give a finite number"
    ):
        mark(Task("", "red", grader="odd"), "red")


def test_advantages_are_deviations_from_the_groups_mean():
    rewards, groups = np.array([1.0, 0.0, 0.5, 2.0, 2.0, 3.0]), np.array([7, 7, 7, 9, 9, 4])
    found = compared(rewards, groups)
    over_all = (3.0 - rewards.mean()) / (rewards.std(ddof=1) + TINY)
    assert found.advantages_R == pytest.approx([0.5 / (0.5 + TINY), -0.5 / (0.5 + TINY), 0, 0, 0, over_all])
    assert found.alike_R.tolist() == [False, False, False, True, True, False] and found.alike_G.sum() == 1
    by_batch = compared(rewards, groups, "batch").advantages_R
    assert by_batch[:3] == pytest.approx(np.array([0.5, -0.5, 0]) / (rewards.std(ddof=1) + TINY))
    assert compared(rewards, groups, "none").advantages_R[5] == pytest.approx(3.0 - rewards.mean())


def test_answers_drawn_together_are_those_drawn_alone():
    hero, draw = micro_hero(3), np.random.default_rng(1)
    with torch.no_grad():
        hero.model.embed_tokens.weight.mul_(3)
    prompts = [prompt for prompt in (draw.integers(10, 3000, length) for length in (5, 9, 12)) for _ in range(4)]
    dice = torch.rand(len(prompts), 10, generator=torch.Generator().manual_seed(1))
    without_stops = drawn_answers(hero, prompts, (), dice, 0.9)
    stops = {
        answer[row % 8] for row, answer in enumerate(without_stops)
    }  # so that answers leave the batch one after the other
    together = drawn_answers(hero, prompts, stops, dice, 0.9)
    alone = [drawn_answers(hero, [prompt], stops, dice[[row]], 0.9)[0] for row, prompt in enumerate(prompts)]
    assert together == alone and len({len(answer) for answer in together}) > 3


def test_draws_have_the_probabilities_of_the_logits():
    chances = torch.tensor([0.5, 0.0, 0.2, 0.3, 0.0])
    dice = torch.linspace(0, 1, 10_001)  # its ends, too
    found = drawn(chances.log().expand(len(dice), -1), dice)
    assert torch.bincount(found, minlength=5).div(len(dice)).numpy() == pytest.approx(chances.numpy(), abs=1e-3)
    assert set(found.tolist()) == {0, 2, 3}
