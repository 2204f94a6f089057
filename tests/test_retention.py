"""Old checkpoints go, and what anybody may still need stays."""

import os
import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.checkpoints import Manifest, commit, holding, set_champion, set_current, set_tip, verify
from core.config import Retention
from management import retention
from management.retention import Whole, plan, retain

NOW = 1_000_000.0
POLICY = Retention(keep_last=2, keep_promoted=2)


def made(step, hero="DIO", age=1000.0):
    return Manifest(hero=hero, campaign="first", step=step, created=NOW - age, id=f"{hero}-{step}")


def doomed(found, promoted=(), kept=(), policy=POLICY):
    return {manifest.step for manifest in plan(found, set(promoted), set(kept), policy, NOW)}


def test_the_newest_stay_and_the_rest_goes():
    assert doomed(made(step) for step in (5, 1, 4, 2, 3)) == {1, 2, 3}


def test_the_newest_promoted_stay_beyond_those():
    assert doomed([made(step) for step in range(8)], promoted={"DIO-0", "DIO-2", "DIO-3"}) == {0, 1, 4, 5}


def test_what_is_pinned_or_pointed_to_stays():
    assert doomed([made(step) for step in range(6)], kept={"DIO-0", "DIO-2"}) == {1, 3}


def test_what_is_younger_than_two_minutes_stays():
    assert doomed([made(1, age=119), made(2, age=121), made(3), made(4)]) == {2}


def test_every_hero_keeps_its_own_newest():
    found = [made(step) for step in range(1, 4)] + [made(step, hero="BIG") for step in range(101, 105)]
    assert doomed(found) == {1, 101, 102}


def test_nothing_goes_where_there_is_little():
    assert doomed([]) == set() and doomed([made(1)]) == set()


# On disk


def write_weights(folder):
    (folder / "model.safetensors").write_bytes(b"weights")


@pytest.fixture
def vault(realm, ledger):
    """Ten checkpoints, old enough to go; tip, current and champion on 9, 5 and 0, 2 pinned, none promoted."""
    ids, parent = [], None
    for step in range(10):
        facts = Manifest(hero="DIO", campaign="first", step=step, parent=parent)
        manifest = commit(realm, facts, write_weights)
        ledger.add("checkpoints", id=manifest.id, hero="DIO", campaign="first", step=step, state="saved", bytes=manifest.bytes,
                   created=manifest.created, pinned=int(step == 2))  # fmt: skip
        ids.append(manifest.id)
        parent = manifest.id
    set_tip(realm, ids[9]), set_current(realm, ids[5]), set_champion(realm, ids[0])
    return ids


def later() -> float:
    return time.time() + 1000


def test_tip_current_champion_their_parents_and_the_pinned_stay(realm, ledger, vault):
    deleted = retain(realm, Retention(keep_last=2, keep_promoted=1), ledger, later)
    stay = {vault[step] for step in (0, 2, 4, 5, 8, 9)}
    assert set(deleted) == set(vault) - stay
    assert {name for name in os.listdir(realm.vault) if name not in ("tip", "champion")} == stay
    gone = {row["id"] for row in ledger.all("SELECT id FROM checkpoints WHERE gone IS NOT NULL")}
    assert gone == set(deleted)


def test_fresh_checkpoints_stay_all(realm, ledger, vault):
    assert retain(realm, Retention(keep_last=2, keep_promoted=1), ledger) == []


def test_promoted_ones_stay_up_to_the_limit(realm, ledger, vault):
    for step in (1, 3, 6):
        ledger.change("checkpoints", vault[step], state="promoted")
    deleted = retain(realm, Retention(keep_last=2, keep_promoted=2), ledger, later)
    assert vault[6] not in deleted and vault[3] not in deleted and vault[1] in deleted


def test_retaining_again_does_nothing_more(realm, ledger, vault):
    retain(realm, POLICY, ledger, later)
    assert retain(realm, POLICY, ledger, later) == []


def test_the_ledger_hears_of_checkpoints_that_somebody_deleted(realm, ledger, vault):
    (realm.vault / vault[3]).rename(realm.root / "taken_away")
    retain(realm, POLICY, ledger, later)
    assert ledger.one("SELECT gone FROM checkpoints WHERE id=?", (vault[3],))["gone"]


def test_branches_are_counted_apart_so_that_many_do_not_push_out_what_training_goes_back_to():
    branches = [replace(made(step), branch="cooldown", id=f"branch-{step}") for step in range(90, 94)]
    found = [*(made(step) for step in range(4)), *branches]
    assert doomed(found) == {0, 1, 90, 91}


def test_what_somebody_reads_is_not_taken_away(realm, ledger, vault):
    with holding(realm.vault / vault[3]):
        assert vault[3] not in retain(realm, POLICY, ledger, later)
    assert vault[3] in retain(realm, POLICY, ledger, later)


# Roles and bytes

DAY = 86400.0


def aged(days, size=10, hero="DIO", **facts):
    """A checkpoint so many days old, the older the smaller its step."""
    step = int(100_000 - 100 * days)
    files = {"model.safetensors": {"sha256": "", "bytes": size}}
    return Manifest(
        hero=hero, campaign="first", step=step, created=NOW - days * DAY, files=files, id=f"{hero}-{step}", **facts
    )


def days_of(doomed_ones):
    return sorted(round((NOW - manifest.created) / DAY, 2) for manifest in doomed_ones)


def test_the_last_of_each_day_and_of_each_week_stay_as_many_as_are_wanted():
    found = [aged(day + part) for day in range(1, 40) for part in (0.0, 0.3)]
    policy = Retention(keep_last=2, keep_promoted=1, keep_daily=5, keep_weekly=3)
    left = {manifest.id for manifest in found} - {manifest.id for manifest in plan(found, set(), set(), policy, NOW)}
    days = {int(manifest.created // DAY) for manifest in found if manifest.id in left}
    assert len(days) == 5 + 2, "five days, and two weeks whose last day is not among them"
    newest_of_day = {max(m.created for m in found if int(m.created // DAY) == day) for day in days}
    assert newest_of_day <= {manifest.created for manifest in found if manifest.id in left}


def test_only_whole_ones_count_as_something_to_go_back_to():
    found = [made(step) for step in range(6)]
    policy = Retention(keep_last=2, keep_promoted=1, keep_daily=0, keep_weekly=0)
    broken = {"DIO-5", "DIO-4", "DIO-2"}
    going = plan(found, set(), set(), policy, NOW, whole=lambda manifest: manifest.id not in broken)
    assert {manifest.step for manifest in going} == {0, 2}, "3 and 1 are the two newest whole ones"


def test_over_its_bytes_the_oldest_go_that_need_not_stay():
    found = [aged(day) for day in range(1, 9)]
    policy = Retention(keep_last=2, keep_promoted=1, keep_daily=8, bytes=45)
    going = plan(found, set(), {aged(8).id}, policy, NOW)
    assert days_of(going) == [4.0, 5.0, 6.0, 7.0] and days_of(plan(found, set(), set(), policy, NOW, budget=70)) == [
        5.0,
        6.0,
        7.0,
        8.0,
    ]


checkpoint = st.builds(
    aged,
    days=st.floats(0, 60, allow_nan=False),
    size=st.integers(1, 100),
    hero=st.sampled_from(["DIO", "BIG"]),
    branch=st.sampled_from([None, None, None, "cooldown"]),
)
policies = st.builds(
    Retention,
    keep_last=st.integers(2, 4),
    keep_promoted=st.integers(1, 4),
    keep_daily=st.integers(0, 9),
    keep_weekly=st.integers(0, 9),
    bytes=st.none() | st.integers(0, 2000),
)


@settings(max_examples=300, deadline=None)
@given(found=st.lists(checkpoint, max_size=40, unique_by=lambda manifest: manifest.id), policy=policies, data=st.data())
def test_whatever_the_vault_holds_protected_ones_never_go_and_the_budget_is_met_where_it_can_be(found, policy, data):
    ids = [manifest.id for manifest in found]
    some = st.sets(st.sampled_from(ids)) if ids else st.just(set())
    held, promoted, broken = data.draw(some), data.draw(some), data.draw(some)
    budget = data.draw(st.none() | st.integers(0, 2000))
    going = plan(found, promoted, held, policy, NOW, lambda manifest: manifest.id not in broken, budget)
    gone = {manifest.id for manifest in going}
    left = [manifest for manifest in found if manifest.id not in gone]
    assert not gone & held and not [manifest for manifest in going if NOW - manifest.created <= 120]
    must = set(held) | {manifest.id for manifest in found if NOW - manifest.created <= 120}
    for hero in ("DIO", "BIG"):
        for branch in (None, "cooldown"):
            line = [each for each in found if (each.hero, each.branch) == (hero, branch)]
            line.sort(key=lambda each: (each.step, each.created), reverse=True)
            whole = [each for each in line if each.id not in broken]
            blessed = [each for each in line if each.id in promoted]
            must |= {each.id for each in (*line[: policy.keep_last], *whole[: policy.keep_last], *blessed[:1])}
    assert not gone & must
    limits = [limit for limit in (policy.bytes, budget) if limit is not None]
    if limits and sum(manifest.bytes for manifest in left) > min(limits):
        assert {manifest.id for manifest in left} == must, "all that may go is gone"


def test_what_a_battle_that_goes_on_began_from_stays_as_long_as_it_goes_on(realm, ledger, vault):
    facts = {"stem": "long", "origin": "user", "priority": "normal", "created": 0, "updated": 0}
    quest = ledger.add("quests", state="processing", **facts)
    ledger.add(
        "battles", quest=quest, hero="DIO", school="scribe", state="running", start_step=3, total_steps=9, started=0
    )
    policy = Retention(keep_last=2, keep_promoted=1, keep_daily=0, keep_weekly=0)
    assert vault[3] not in retain(realm, policy, ledger, later)
    ledger.change("quests", quest, state="recently_completed")
    assert vault[3] in retain(realm, policy, ledger, later)


def test_a_broken_checkpoint_is_no_safety_net_and_one_that_is_read_twice_is_hashed_once(
    realm, ledger, vault, monkeypatch
):
    for step in (9, 8, 7):
        (realm.vault / vault[step] / "model.safetensors").write_bytes(b"weighty")
    hashed = []
    monkeypatch.setattr(retention, "verify", lambda folder: (hashed.append(folder.name), verify(folder)))
    whole = Whole(realm)
    policy = Retention(keep_last=2, keep_promoted=1, keep_daily=0, keep_weekly=0)
    deleted = retain(realm, policy, ledger, later, whole)
    assert {vault[6], vault[5]} & set(deleted) == set() and vault[3] in deleted
    assert [name in hashed for name in (vault[9], vault[6], vault[5], vault[4])] == [True, True, True, False]
    hashed.clear()
    retain(realm, policy, ledger, later, whole)
    assert vault[6] not in hashed and vault[9] in hashed
