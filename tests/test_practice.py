"""What the idle hero writes: around its frontier, with nothing twice, at the level that its exams call for, or nothing at all."""

import json
import random
from collections import Counter

import pytest
from resident import accept_sums

from core import checkpoints
from core.checkpoints import Manifest, commit
from core.config import Config, IdleGeneration
from core.durable import write_json
from core.hero_loop import IN_VAIN, STRAINED, HeroLoop
from core.practice import LOOKED_THROUGH, MOST_OF_A_KIND, mixture, prompt_of, rows_of
from core.prompt_memory import PromptMemory
from core.quest import IDLE
from core.skills import skill
from core.standing import Standing
from core.training_daemon import TrainingDaemon
from core.training_queue import TrainingQueue


@pytest.fixture
def loop(realm, ledger):
    """The loop of an idle hero with these weights for skills."""
    return lambda **weights: HeroLoop(realm, Config(skill_priorities=weights), ledger)


def stand(realm, standing: Standing, step: int = 100) -> None:
    """The tip's weights have come so far."""
    facts = Manifest("DIO", "first", step, standing=standing.as_json())
    tip = commit(realm, facts, lambda folder: (folder / "model.safetensors").write_bytes(b"") and None)
    checkpoints.set_tip(realm, tip.id)


def written(realm) -> list[tuple[str, dict, list[str]]]:
    """Name, sidecar and prompts of each quest that lies in the inbox, in the order of their numbers."""
    found = []
    for path in sorted(
        (realm.inbox / "low").glob("*.jsonl"), key=lambda path: (path.stem.startswith("train"), path.stem[-5:])
    ):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found.append(
            (path.stem, json.loads(path.with_suffix(".quest.json").read_text()), [prompt_of(row) for row in rows])
        )
    return found


def fought(ledger, losses, name="REV", origin=IDLE):
    for loss in losses:
        quest = ledger.add(
            "quests", stem="q", origin=origin, skill=name, state="recently_completed", priority="low", rows=100,
            created=0, updated=0,
        )  # fmt: skip
        ledger.add(
            "battles", quest=quest, hero="DIO", school="scribe", state="done", start_step=0, total_steps=1, seconds=1.0,
            validation_loss=loss, started=0,
        )  # fmt: skip


def test_most_of_a_quest_is_of_the_frontier_and_the_rest_around_it():
    standing = Standing({"REV": (1, 2), "BIN": (1,)})
    shares = mixture(standing, ("REV", 3), {("BIN", 2): 0.25, ("SEQ", 1): 0.75}, 1000, random.Random(1))
    assert sum(shares.values()) == 1000 and shares["REV", 3] == 500
    assert (shares["BIN", 2], shares["SEQ", 1]) == (62, 188) and shares["REV", 4] == 50
    assert shares["REV", 2] == 100 and shares["REV", 1] == shares["BIN", 1] == 50, "below, and revised"
    assert mixture(Standing(), ("REV", 1), {}, 100, random.Random(1)) == {("REV", 1): 95, ("REV", 2): 5}
    behind = mixture(Standing(), ("REV", 6), {("BIN", 2): 3.0}, 1000, random.Random(1))
    assert behind["BIN", 2] == 250, "the heavier one is not paid for its own weight"
    assert ("REV", 31) not in mixture(Standing(), ("REV", 30), {}, 100, random.Random(1))


def test_no_prompt_comes_twice_in_a_life_as_long_as_the_level_has_others(tmp_path):
    memory, draw, seen = PromptMemory(tmp_path / "prompts.db", "DIO"), random.Random(5), []
    for _ in range(4):
        rows = rows_of("REV", 1, 3500, draw, memory)
        memory.add(map(prompt_of, rows))
        seen += map(prompt_of, rows)
    assert len(seen) == len(set(seen)) == 14_000
    memory.close()
    again = PromptMemory(tmp_path / "prompts.db", "DIO")
    assert seen[0] in again and seen[0] not in PromptMemory(tmp_path / "prompts.db", "Other")
    last = [prompt_of(row) for row in rows_of("REV", 1, 5000, draw, again)]
    assert len(last) == 5000 and set(last) - set(seen), "what is new comes first, then what was there before"


@pytest.mark.parametrize(("level", "count"), [(1, 512), (7, 512)])
def test_where_all_is_known_it_is_soon_given_up_to_look_for_more(level, count, monkeypatch):
    class Everything:
        asked = 0

        def __contains__(self, prompt):
            self.asked += 1
            return True

    draws, draw = [], type(skill("REV")).draw
    monkeypatch.setattr(type(skill("REV")), "draw", lambda self, *how: draws.append(how) or draw(self, *how))
    known = Everything()
    prompts = [prompt_of(row) for row in rows_of("REV", level, count, random.Random(4), known)]
    assert len(prompts) == len(set(prompts)) == count, "what was given before is given again"
    assert known.asked <= LOOKED_THROUGH * count and len(draws) < 2 * LOOKED_THROUGH * count


def test_closed_worlds_are_practised_together_as_exams_ask_them():
    worlds = [{problem.prompt for problem in skill("BIN").sample(level, 3, 4096)} for level in (1, 2, 3)]
    prompts = [prompt_of(row) for row in rows_of("BIN", 1, 2000, random.Random(2), ())]
    inside = [sum(prompt in world for prompt in prompts) for world in worlds]
    assert len(prompts) == 2000 and inside[0] < inside[1] < inside[2] and inside[2] > 0.97 * 2000
    kinds = Counter(map(skill("BIN").kind, prompts))
    asked = Counter(skill("BIN").kind(problem.prompt) for problem in skill("BIN").evaluation(3, 4, 200))
    assert kinds.keys() == asked.keys() and min(kinds.values()) > 0.15 * max(kinds.values())
    alone = [prompt_of(row) for row in rows_of("BIN", 3, 4000, random.Random(2), ())]
    assert len(set(alone)) > 0.5 * len(worlds[2])


@pytest.mark.parametrize(("name", "level"), [("BIN", 9), ("SEQ", 12), ("SY", 3), ("REV", 4)])
def test_rows_are_of_several_kinds_where_the_level_has_several_and_none_is_kept_for_evaluations(name, level):
    prompts = [prompt_of(row) for row in rows_of(name, level, 400, random.Random(3), ())]
    kinds = Counter(map(skill(name).kind, prompts))
    assert len(set(prompts)) == 400 and not any(map(skill(name).held_out, prompts))
    assert (len(kinds) == 1 and name == "REV") or kinds.most_common(1)[0][1] <= MOST_OF_A_KIND * 400


def test_the_idle_hero_practises_the_level_that_its_exams_call_for(realm, loop):
    assert loop(REV=1.0).write(0)
    stand(realm, Standing({"REV": (1, 2)}))
    assert loop(REV=1.0, BIN=0.0).write(1)
    (first, card, _), (second, other, prompts) = written(realm)
    assert (first, second) == ("starter_REV_level1", "train_REV_level3_00001")
    assert card["origin"] == IDLE and card["priority"] == "low" and card["batch_size"] == IdleGeneration().batch_size
    assert card["seed"] != other["seed"], "another share of a closed world is held out each time"
    lengths = Counter(len(prompt.split()) - 1 for prompt in prompts)
    assert lengths.most_common(1)[0][0] == 5 and set(lengths) == {3, 4, 5, 6}


def test_its_quests_have_the_rows_of_a_step_and_the_cooldown_that_are_set_for_them(realm, loop):
    assert loop(REV=1.0).write(0)
    ((_, card, _),) = written(realm)
    assert (card["batch_size"], card["cooldown_share"]) == (
        IdleGeneration().batch_size,
        IdleGeneration().cooldown_share,
    )


def test_a_hero_that_has_mastered_everything_rests_and_says_so_once(realm, ledger, loop):
    stand(realm, Standing({"REV": tuple(range(1, 31))}))
    assert not loop(REV=1.0).write(7) and not loop(REV=1.0).write(7)
    assert [event["code"] for event in ledger.events()] == ["maxed_out"] and not written(realm)
    assert loop(REV=1.0, SEQ=0.5).write(7), "until there is something else to learn"
    assert written(realm)[0][0] == "train_SEQ_level1_00007"


def test_overload_that_changes_nothing_leads_one_level_back_and_in_the_end_to_rest(realm, ledger, loop):
    ledger.add("evaluations", hero="DIO", kind="validation", school="scribe", quest=1, step=1, value=0.1, created=0)
    stand(realm, Standing({"REV": (1, 2)}))
    fought(ledger, [0.9] * (STRAINED - 1))
    assert loop(REV=1.0).write(1) and written(realm)[-1][0] == "train_REV_level3_00001"
    fought(ledger, [0.9])
    assert loop(REV=1.0).write(2) and written(realm)[-1][0] == "train_REV_level2_00002"
    fought(ledger, [0.9] * (IN_VAIN - STRAINED))
    assert not loop(REV=1.0).write(3) and not loop(REV=1.0).write(3)
    assert [event["code"] for event in ledger.events()] == ["level_back", "overload"]
    fought(ledger, [0.2], name=None, origin="user")
    assert loop(REV=1.0).write(3) and written(realm)[-1][0] == "train_REV_level3_00003"


def test_a_level_back_is_told_once_and_of_the_skill_that_is_practised(realm, ledger, loop):
    ledger.add("evaluations", hero="DIO", kind="validation", school="scribe", quest=1, step=1, value=0.1, created=0)
    stand(realm, Standing({"REV": (1, 2)}))
    fought(ledger, [0.9] * STRAINED)
    both = loop(REV=1e-9, SEQ=1.0)
    assert both.write(1) and written(realm)[-1][0] == "train_SEQ_level1_00001" and not ledger.events()
    for number in (2, 3, 4):
        assert loop(REV=1.0).write(number) and written(realm)[-1][0] == f"train_REV_level2_0000{number}"
        fought(ledger, [0.9])
    assert [event["code"] for event in ledger.events()] == ["level_back"]
    fought(ledger, [0.2])
    assert loop(REV=1.0).write(5) and written(realm)[-1][0] == "train_REV_level3_00005"
    fought(ledger, [0.9] * STRAINED)
    assert loop(REV=1.0).write(6) and written(realm)[-1][0] == "train_REV_level2_00006"
    assert [event["code"] for event in ledger.events()] == ["level_back"] * 2, "it was up again in between"


def test_prompts_that_a_power_cut_broke_are_set_aside_and_the_hero_goes_on(realm, loop, caplog):
    realm.prompts.write_bytes(b"no database at all, but long enough to be taken for one" * 400)
    hero = loop(REV=1.0)
    assert hero.write(0) and hero.write(1) and len(written(realm)) == 2
    assert realm.prompts.with_name("prompts.db.broken").exists()
    assert [record.levelname for record in caplog.records if "prompts.db was broken" in record.message] == ["WARNING"]


def test_while_it_is_quiet_the_past_is_counted_once(realm, ledger, loop):
    for _ in range(3):
        ledger.add("quests", stem="q", hero="DIO", origin=IDLE, state="failed", priority="low", created=0, updated=0)
    hero, asked = loop(REV=1.0), []
    ledger.connection.set_trace_callback(lambda statement: asked.append("COUNT(*)" in statement))
    pause = hero.config.idle_generation.pause_seconds
    turns = [hero.turn(number * pause / 10, True) for number in range(25)]
    ledger.connection.set_trace_callback(None)
    assert sum(asked) == 1 and turns.count(True) == 2
    assert [name for name, _, _ in written(realm)] == ["train_REV_level1_00003", "train_REV_level1_00004"]


def test_a_loss_that_is_high_and_falls_is_no_overload(realm, ledger, loop):
    ledger.add("evaluations", hero="DIO", kind="validation", school="scribe", quest=1, step=1, value=0.1, created=0)
    stand(realm, Standing({"REV": (1,)}))
    fought(ledger, [4.0 * 0.9**battle for battle in range(IN_VAIN)])
    assert loop(REV=1.0).write(9) and written(realm)[0][0] == "train_REV_level2_00009"


def test_a_skill_that_runs_ahead_has_fewer_quests(realm, loop):
    stand(realm, Standing({"REV": tuple(range(1, 10))}))
    for number in range(1, 31):
        assert loop(REV=1.0, SEQ=1.0).write(number)
    names = Counter(name.split("_")[1] for name, _, _ in written(realm))
    assert names["SEQ"] > 2 * names["REV"] and names.total() == 30


@pytest.mark.parametrize(("origin", "ahead"), [(IDLE, 1), ("user", 0)])
def test_the_next_quest_is_written_while_its_own_is_trained_and_never_beside_a_users(realm, ledger, origin, ahead):
    accept_sums(realm, ledger, "fought now")
    quest = TrainingQueue(realm, ledger).claim()
    write_json(quest.companion(".quest.json"), quest.card | {"origin": origin})
    now = [0.0]
    config = Config(idle_generation=IdleGeneration(pause_seconds=0))
    daemon = TrainingDaemon(realm, config, ledger, lambda: now[0], lambda: None)
    try:
        for _ in range(50):
            now[0] += 0.0001
            daemon.loop(now[0])
        waiting = len(list(realm.inbox.glob("low/*.jsonl"))) + len(list(realm.claims.glob("*.jsonl")))
        assert waiting == ahead
    finally:
        daemon._small.close()
        daemon._large.close()
