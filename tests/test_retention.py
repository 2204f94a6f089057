"""Old checkpoints go, and what anybody may still need stays."""

import os
import time
from dataclasses import replace

import pytest

from core.checkpoints import Manifest, commit, holding, set_champion, set_current, set_tip
from core.config import Retention
from management.retention import plan, retain

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
