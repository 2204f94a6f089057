"""A checkpoint is whole or it is none: whatever happens to its files is noticed, and an older whole one takes its place."""

import itertools
import json
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.checkpoints import (
    MANIFEST,
    Manifest,
    add_to,
    commit,
    holds,
    manifests,
    newest_verified,
    pointed,
    read,
    set_champion,
    set_current,
    set_tip,
    sweep,
    verify,
)
from core.durable import write_bytes
from core.errors import CheckpointError

FILES = {"config.json": b'{"a": 1}', "model.safetensors": bytes(range(256)) * 64, "tokenizer.json": b"{}"}


def build(folder):
    for name, data in FILES.items():
        (folder / name).write_bytes(data)


def saved(realm, step=0, hero="DIO", **facts) -> Manifest:
    return commit(realm, Manifest(hero=hero, campaign="first", step=step, **facts), build)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    os.truncate(path, path.stat().st_size * 9 // 10)


def zero(path):
    path.write_bytes(bytes(path.stat().st_size))


def empty(path):
    path.write_bytes(b"")


def replace_by_a_link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


HARM = (os.unlink, truncate, zero, flip_a_bit, empty, replace_by_a_link)


def test_what_was_committed_is_read_back_as_it_was(realm):
    made = saved(realm, 12, parent="DIO-x", quest=4, quest_sha256="ab", trained=((1, 3),), open={4: 9, 7: 2},
                 validation_loss=0.1 + 0.2, settings={"seed": 7}, versions={"torch": "2"})  # fmt: skip
    assert verify(realm.vault / made.id) == made
    assert made.id.startswith("DIO-first-00000012-")
    assert made.bytes == sum(map(len, FILES.values()))
    assert made.files.keys() == FILES.keys()
    assert sorted(os.listdir(realm.vault)) == [made.id]


@pytest.mark.parametrize("harm", HARM, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_every_harm_to_every_file_is_noticed(realm, name, harm):
    made = saved(realm)
    harm(realm.vault / made.id / name)
    if name == MANIFEST and harm is replace_by_a_link:
        assert verify(realm.vault / made.id) == made  # still the very same bytes
        return
    with pytest.raises(CheckpointError, match=name):
        verify(realm.vault / made.id)


def test_a_bit_that_flips_anywhere_in_the_manifest_is_noticed(realm):
    made = saved(realm, 12, quest=4, trained=((1, 3),), open={4: 9})
    path = realm.vault / made.id / MANIFEST
    whole = path.read_bytes()
    blind = []
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            if read(realm.vault / made.id) != made:
                blind.append(place)
        except CheckpointError:
            pass
    assert not blind


def test_a_checkpoint_of_another_version_says_so(realm):
    made = saved(realm)
    path = realm.vault / made.id / MANIFEST
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CheckpointError):
        read(realm.vault / made.id)


def test_a_build_that_fails_leaves_nothing(realm):
    def fail(folder):
        (folder / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        commit(realm, Manifest(hero="DIO", campaign="first", step=1), fail)
    assert os.listdir(realm.vault) == []


def test_two_saves_of_the_same_step_and_content_both_stay(realm):
    first, second = saved(realm, 5), saved(realm, 5)
    assert first.id != second.id
    assert {manifest.id for manifest in manifests(realm)} == {first.id, second.id}
    assert verify(realm.vault / first.id) == first and verify(realm.vault / second.id) == second


def test_other_content_at_the_same_step_has_another_name(realm):
    first = saved(realm, 5)
    second = commit(
        realm, Manifest(hero="DIO", campaign="first", step=5), lambda folder: write_bytes(folder / "a", b"b")
    )
    assert first.id.rpartition("-")[0] == second.id.rpartition("-")[0] and first.id != second.id


def test_pointers_lead_to_checkpoints_also_after_the_realm_moved(realm):
    one, two = saved(realm, 1), saved(realm, 2)
    set_tip(realm, two.id), set_current(realm, one.id), set_champion(realm, one.id)
    assert [pointed(link) for link in (realm.tip, realm.current_model, realm.champion)] == [two.id, one.id, one.id]
    realm.root.rename(realm.root.with_name("moved"))
    assert (realm.root.with_name("moved") / "models" / "current_model" / "config.json").read_bytes() == FILES[
        "config.json"
    ]


def test_a_pointer_that_is_not_there_leads_nowhere(realm):
    assert pointed(realm.tip) is None


# Falling back


def test_the_tip_is_taken_even_when_a_later_step_exists(realm):
    one, _ = saved(realm, 1), saved(realm, 2)
    set_tip(realm, one.id)
    assert newest_verified(realm, "DIO") == one


def test_without_a_tip_the_newest_step_is_taken_and_numbers_are_compared_as_numbers(realm):
    saved(realm, 9)
    newest = saved(realm, 1_000_000_000)
    saved(realm, 99_999_999)
    assert newest_verified(realm, "DIO") == newest


@pytest.mark.parametrize("harm", HARM[:4], ids=lambda harm: harm.__name__)
def test_a_broken_tip_gives_way_to_the_newest_whole_one_and_each_broken_one_is_told(realm, harm):
    made = [saved(realm, step) for step in range(4)]
    set_tip(realm, made[3].id)
    harm(realm.vault / made[3].id / "model.safetensors")
    harm(realm.vault / made[2].id / MANIFEST)
    told = []
    assert newest_verified(realm, "DIO", lambda checkpoint, why: told.append((checkpoint, why))) == made[1]
    assert told[0][0] == made[3].id and "model.safetensors" in told[0][1]


def test_a_tip_that_is_gone_gives_way_too(realm):
    made = [saved(realm, step) for step in range(2)]
    set_tip(realm, made[1].id)
    shutil.rmtree(realm.vault / made[1].id)
    assert newest_verified(realm, "DIO") == made[0]


def test_nothing_is_taken_when_nothing_is_whole(realm):
    made = saved(realm)
    zero(realm.vault / made.id / "model.safetensors")
    assert newest_verified(realm, "DIO") is None


def test_a_hero_never_wakes_up_as_another(realm):
    own, other = saved(realm, 1, hero="DIO"), saved(realm, 5, hero="DIO_2")
    set_tip(realm, other.id)
    assert newest_verified(realm, "DIO") == own
    assert newest_verified(realm, "JOTARO") is None


def test_barred_checkpoints_are_never_gone_back_to(realm):
    made = [saved(realm, step) for step in range(3)]
    assert newest_verified(realm, "DIO", barred=frozenset({made[2].id})) == made[1]


def test_folders_that_are_no_checkpoints_are_passed_over(realm):
    made = saved(realm)
    (realm.vault / "stray").mkdir()
    (realm.vault / "file").write_text("x")
    (realm.vault / ".building-abc").mkdir()
    shutil.copytree(realm.vault / made.id, realm.vault / "copy")
    set_tip(realm, made.id)
    assert manifests(realm) == [made]


def test_sweeping_removes_what_was_half_built_and_nothing_else(realm):
    made = saved(realm)
    (realm.vault / ".building-abc").mkdir()
    (realm.vault / ".building-abc" / "model.safetensors").write_bytes(b"half")
    sweep(realm)
    assert os.listdir(realm.vault) == [made.id]


def test_sweeping_leaves_what_another_process_is_building(realm):
    def build(folder):
        sweep(realm)
        (folder / "model.safetensors").write_bytes(b"weights")

    made = commit(realm, Manifest("DIO", "first", 3), build)
    sweep(realm)
    assert verify(realm.vault / made.id) == made


def test_a_manifest_is_plain_json_with_a_sum_per_file(realm):
    made = saved(realm)
    values = json.loads((realm.vault / made.id / MANIFEST).read_bytes())
    assert values["files"]["config.json"].keys() == {"sha256", "bytes"}


# What the weights hold


@given(st.lists(st.integers(1, 60), max_size=60))
def test_ranges_hold_exactly_what_was_added_in_as_few_ranges_as_can_be(quests):
    ranges = ()
    for quest in quests:
        ranges = add_to(ranges, quest)
    assert [quest for quest in range(70) if holds(ranges, quest)] == sorted(set(quests))
    assert all(first <= last for first, last in ranges)
    assert all(one[1] + 1 < two[0] for one, two in itertools.pairwise(ranges)), "neighbours are merged"


def test_a_quest_is_open_until_it_is_finished():
    manifest = Manifest(hero="DIO", campaign="first", step=0)
    begun = manifest.reached(3, 10, "a").reached(4, 5, "b").reached(3, 20, "a")
    assert begun.open == {3: 20, 4: 5} and not holds(begun.trained, 3)
    done = begun.finished(3)
    assert done.open == {4: 5} and holds(done.trained, 3) and manifest.open == {}
