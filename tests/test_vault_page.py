"""The Vault's pages: what they tell of every checkpoint, the lineage, what goes next; and what their buttons do."""

import html
import os
import random
import re
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
from tavern_realm import HOSTILE, empty_realm, fill
from tavern_server import OURS, PAGE, client_of

from core import checkpoints, control
from core.config import Config, Retention
from core.ledger import Ledger
from core.previews import Preview
from core.steps import StepRecord
from management import outlook, retention, trash
from management.lineage import lineage
from management.model_versioner import tag
from monitoring.servers.tavern import lineage_view, views
from monitoring.servers.tavern.realm import Realm

SETTINGS = {"batch_size": 8, "trainer": {"weight_decay": 0.1}, "seed": 7}


def save(paths, ledger, parent, step, stem=None, state="saved", loss=1.5, settings=SETTINGS):
    """A checkpoint after `parent` that was trained on one more quest."""
    quest = ledger.add("quests", stem=stem or f"quest_{step}", origin="user", state="recently_completed",
                       priority="normal", created=time.time(), updated=time.time())  # fmt: skip
    facts = checkpoints.Manifest("DIO", "c1", step, parent.id if parent else None, quest, validation_loss=loss,
                                 trained=checkpoints.add_to(parent.trained if parent else (), quest), settings=settings)  # fmt: skip

    def build(folder):
        (folder / "model.safetensors").write_bytes(random.randbytes(64))
        (folder / "config.json").write_text('{"model_type": "qwen3"}')

    manifest = checkpoints.commit(paths, facts, build)
    checkpoints.record(ledger, manifest, state)
    return manifest


@pytest.fixture
def vault(realm, ledger):
    """A birth, four quests, a rollback that left two of them, two more; tip, current and champion."""
    made = [save(realm, ledger, None, 0)]
    for step in (100, 200, 300, 400):
        made.append(save(realm, ledger, made[-1], step))
    for left in made[3:]:
        ledger.change("checkpoints", left.id, rolled_back=time.time())
    made.append(save(realm, ledger, made[2], 310, "second_try", "promoted", 1.1, SETTINGS | {"batch_size": 16}))
    made.append(save(realm, ledger, made[5], 410, HOSTILE, loss=1.0, settings=SETTINGS | {"batch_size": 16}))
    checkpoints.set_tip(realm, made[6].id)
    checkpoints.set_current(realm, made[5].id)
    checkpoints.set_champion(realm, made[1].id)
    ledger.change("checkpoints", made[2].id, state="cursed")
    return made


@pytest.fixture
def client(realm):
    with client_of(realm) as client:
        yield client


def text_of(answer):
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", answer.text)))


def press(client, checkpoint, verb, **fields):
    return client.post(f"/vault/{checkpoint}/{verb}", data=fields, headers=OURS | PAGE)


# What is told


def test_the_page_tells_of_every_checkpoint_its_state_pointers_and_files(client, vault, realm):
    (realm.vault / vault[4].id / "config.json").write_text("altered")
    told = text_of(client.get("/vault"))
    for manifest in vault:
        row = told.split(manifest.id, 1)[1]
        assert row.index(f"step {manifest.step:,}") < 120
    assert "damaged" in told.split(vault[4].id)[1][:200] and "whole" in told.split(vault[3].id)[1][:200]
    assert "cursed" in told.split(vault[2].id)[1][:200] and "champion" in told.split(vault[1].id)[1][:60]
    for words in ("Tip training goes on from here step 410", "Current models/current_model leads here step 310"):
        assert words in told


def test_a_checkpoints_own_page_has_manifest_sums_lineage_and_the_way_to_use_it(client, vault, realm):
    page = client.get(f"/vault/{vault[5].id}", headers=PAGE)
    told = text_of(page)
    for name, entry in vault[5].files.items():
        assert f"{name} {entry['bytes']} B {entry['sha256']}" in told
    assert f"vault export {vault[5].id}" in told and f'from_pretrained("{realm.exports / vault[5].id}")' in told
    assert f"Comes from {vault[2].id}" in told and f"Led to {vault[6].id}" in told
    assert "current; the tip comes from it" in told or "Why it stays current" in told
    assert "batch_size 16" in told and "trainer.weight_decay 0.1" in told
    assert client.get("/vault/tip").status_code == 200 and client.get("/vault/DIO-no").status_code == 404
    assert client.get("/vault/..%2f..%2fstate%2ftoken").status_code == 404


def test_two_checkpoints_are_compared_by_facts_settings_quests_and_answers(client, vault, realm):
    record = StepRecord(realm.metrics, "DIO")
    for place, said in ((4, "four"), (6, "five")):
        record.previews(
            vault[place].step, vault[place].quest, time.time(), [Preview("2+2?", said, "four", said == "four")]
        )
    told = text_of(client.get(f"/vault/compare?a={vault[4].id}&b=tip"))
    assert "Neither comes from the other" in told and "Validation loss 1.5000 1.0000" in told
    assert "batch_size 8 16" in told and "weight_decay" not in told and "2 are the same in both" in told
    left, right = told.split("only the left one holds")[1].split("only the right one holds")
    assert "quest_300 quest_400" in left and "quest_100" not in left + right
    assert "second_try" in right and "Left four Right five Expected four" in right
    assert "comes from" in text_of(client.get(f"/vault/compare?a={vault[5].id}&b=tip"))
    assert client.get("/vault/compare?a=nothing&b=tip", headers=PAGE).status_code == 404


def test_what_somebody_named_a_quest_is_inert_on_every_page_of_the_vault(client, vault, realm, ledger):
    ledger.event("vault", "export_failed", HOSTILE, "warning", checkpoint=vault[6].id)
    control.carried_out(ledger, control.wish(ledger, "promote", vault[6].id), HOSTILE)
    fought = {"hero": "DIO", "school": "scribe", "state": "done", "start_step": 0, "total_steps": 9, "started": 0}
    ledger.add("battles", quest=vault[6].quest, **fought)
    for path in ("", "/tip", "/compare", "/current/rollback", f"?done=pin&of={HOSTILE}", f"/{vault[3].id}/delete"):
        text = client.get(f"/vault{path}", headers=PAGE).text
        assert ("&lt;img src=x" in text or "delete" in path) and "<img src=x" not in text, path
        assert not re.search(r"\sstyle=|<style|<script(?![^>]*\ssrc=)", text), path


# Lineage


def grown(count, seed, forks):
    """Nodes as management/lineage.py gives them: a way that now and then is left for one that forks off a little before."""
    dice, nodes = random.Random(seed), []
    for place in range(count):
        above = (
            nodes[max(0, len(nodes) - 1 - (dice.randrange(1, 5) if dice.random() < forks else 0))]["id"]
            if nodes
            else None
        )
        nodes.append({"id": f"c{place}", "step": place * 10, "above": above, "parent": above, "branch": None, "state": "saved",
                      "pinned": dice.random() < 0.01, "rolled_back": False, "names": ["tip"] if place == count - 1 else [],
                      "validation_loss": 1.0, "trained": [{"quest": place, "stem": f"q{place}"}], "begun": []})  # fmt: skip
    return nodes


@pytest.mark.parametrize(
    ("count", "forks", "most"), [(1, 0, 1), (5, 0.3, 5), (40, 0.1, 40), (500, 0.01, 60), (500, 0, 16)]
)
def test_a_lineage_has_every_checkpoint_once_and_long_stretches_are_folded(count, forks, most):
    nodes = grown(count, 3, forks)
    lines = lineage_view.lines(nodes)
    shown = Counter(
        node["id"] for line in lines for node in (line["fold"]["nodes"] if line["fold"] else [line["node"]])
    )
    assert shown == Counter(node["id"] for node in nodes) and len(lines) <= most
    assert sum(line["opens"] for line in lines) == sum(line["up"] + line["ends"] for line in lines)
    assert sum(line["up"] for line in lines) == sum(line["holds"] for line in lines)
    children = Counter(node["above"] for node in nodes)
    folded = {node["id"]: node for line in lines if line["fold"] for node in line["fold"]["nodes"]}
    for node in folded.values():
        assert not node["names"] and not node["pinned"] and children[node["id"]] == 1


def test_the_way_that_a_rollback_left_is_set_in_below_its_fork(client, vault):
    tree = client.get("/parts/lineage").text
    found, inside = {}, []
    for sign, name, step in re.findall(r"<(/?)(ol|li)\b|>step (\d+)<", tree):
        if step:
            found[int(step)] = inside.count("ol")
        elif sign:
            assert inside.pop() == name
        else:
            assert name == "ol" or inside[-1] == "ol"  # lists hold items only, and items may hold lists
            assert name == "li" or inside[-1:] in ([], ["li"])
            inside.append(name)
    assert inside == [] and found == {0: 1, 100: 1, 200: 1, 300: 2, 400: 2, 310: 1, 410: 1}


def test_two_ways_that_left_the_same_checkpoint_are_two(realm, ledger):
    root = save(realm, ledger, None, 0)
    for step in (10, 20, 30):
        save(realm, ledger, save(realm, ledger, root, step), step + 5)
    rows = lineage_view.lines(lineage(realm, ledger))
    assert [(row["node"]["step"], row["depth"], row["opens"], row["ends"]) for row in rows] == [
        (0, 0, True, False), (20, 1, True, False), (25, 1, False, True), (10, 1, True, False), (15, 1, False, False),
        (30, 0, False, False), (35, 0, False, True)]  # fmt: skip


@pytest.fixture
def quick(tmp_path):
    """A realm in memory, where there is such a place: five hundred checkpoints are flushed at once."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path) as folder:
        yield empty_realm(Path(folder))


def test_five_hundred_checkpoints_and_ten_thousand_quests_are_a_page_within_half_a_second(quick):
    ledger = Ledger(quick.ledger)
    with ledger.together():
        for place in range(9_500):
            ledger.add("quests", stem=f"old_{place}", origin="user", state="recently_completed", priority="normal",
                       created=0, updated=0)  # fmt: skip
    with ledger.together():
        manifest = None
        for place in range(500):
            manifest = save(quick, ledger, manifest, place * 10)
    checkpoints.set_tip(quick, manifest.id)
    ledger.close()
    with client_of(quick) as client:
        client.get("/vault")  # manifests are read
        began = time.process_time()
        page = client.get("/vault")
        assert time.process_time() - began < 0.5
    assert len(page.content) < 300_000 and "500 checkpoints" in page.text


# What goes next


def test_what_the_page_says_goes_next_is_what_then_goes(realm, ledger, vault):
    policy, whole = Retention(keep_last=2, keep_promoted=1, keep_daily=0, keep_weekly=0), lambda manifest: True
    for left in vault:
        ledger.change("checkpoints", left.id, rolled_back=None)

    def later():
        return time.time() + 1000

    def seen():
        return outlook.outlook(realm, policy, ledger, checkpoints.manifests(realm), whole, later)

    told = seen()
    assert {vault[0].id} <= {key for key, own in told.roles.items() if own}  # the champion comes from it
    assert set(told.now) == set(retention.retain(realm, policy, ledger, later, whole)) != set()
    told = seen()
    assert told.now == () and told.next != ()
    newest = save(realm, ledger, vault[6], 500)
    checkpoints.set_tip(realm, newest.id)
    assert set(retention.retain(realm, policy, ledger, later, whole)) == set(told.next)


def test_loose_ones_are_named_in_the_order_in_which_they_would_go(realm, ledger, vault):
    policy = Retention(keep_last=2, keep_promoted=5, keep_daily=0, keep_weekly=0)
    for manifest in vault[2:5]:
        ledger.change("checkpoints", manifest.id, state="promoted", rolled_back=None)
    told = outlook.outlook(
        realm, policy, ledger, checkpoints.manifests(realm), lambda one: True, lambda: time.time() + 1000
    )
    room = vault[0].bytes
    gone = []
    while left := retention.retain(realm, policy, ledger, lambda: time.time() + 1000, lambda one: True, room):
        gone += [key for key in left if key in told.short]
    assert gone == list(told.short) != []


# Buttons


def test_pins_are_given_and_taken_back_by_forms_alone(client, vault, ledger, realm):
    before = views.now(Realm(realm, Config()))["versions"]["vault"]
    answer = press(client, vault[3].id, "pin")
    assert answer.status_code == 303 and answer.headers["location"] == f"/vault?done=pin&of={vault[3].id}"
    assert ledger.one("SELECT pinned FROM checkpoints WHERE id=?", (vault[3].id,))["pinned"]
    assert views.now(Realm(realm, Config()))["versions"]["vault"] != before  # so open pages follow
    page = client.get(answer.headers["location"])
    assert "is pinned" in page.text and f'action="/vault/{vault[3].id}/unpin"' in page.text
    assert (
        press(client, vault[3].id, "unpin", **{"from": "checkpoint"})
        .headers["location"]
        .startswith(f"/vault/{vault[3].id}?")
    )
    assert not ledger.one("SELECT pinned FROM checkpoints WHERE id=?", (vault[3].id,))["pinned"]


def test_promoting_and_rolling_back_are_wishes_and_the_page_says_that_they_wait(client, vault, ledger):
    press(client, vault[4].id, "promote")
    asked = text_of(client.get(f"/vault/{vault[2].id}/rollback"))
    assert "Let training go on from step 200?" in asked and control.waiting(ledger)[-1]["verb"] == "promote"
    assert "Those quests are trained again" not in asked  # no battle of this hero is lacking
    for quest in (vault[5].quest, vault[6].quest):
        ledger.add(
            "battles",
            quest=quest,
            hero="DIO",
            school="scribe",
            state="done",
            start_step=200,
            total_steps=100,
            started=0,
        )
    asked = text_of(client.get(f"/vault/{vault[2].id}/rollback"))
    assert f"It lacks what the hero learned from second_try, {HOSTILE}" in asked and vault[6].id in asked
    press(client, vault[2].id, "rollback", again="true")
    assert [(wish["verb"], wish["argument"]) for wish in control.waiting(ledger)] == [
        ("promote", vault[4].id),
        ("rollback", f"{vault[2].id} again"),
    ]
    told = text_of(client.get("/vault"))
    assert f"To be promoted : {vault[4].id}" in told.replace("promoted:", "promoted :") and "it wakes up" in told
    control.carried_out(ledger, control.waiting(ledger)[1]["id"], "it is not whole")
    assert "it is not whole" in text_of(client.get("/vault"))


def test_deleting_asks_and_is_undone(client, vault, realm, ledger):
    doomed = vault[1].id
    checkpoints.set_champion(realm, vault[5].id)
    asked = client.get(f"/vault/{doomed}/delete", headers=PAGE)
    assert "Delete this checkpoint?" in asked.text and (realm.vault / doomed).is_dir()
    answer = press(client, doomed, "delete", **{"from": "checkpoint"})
    assert answer.headers["location"] == f"/vault?done=delete&of={doomed}" and not (realm.vault / doomed).exists()
    page = client.get(answer.headers["location"])
    assert page.text.count(f'action="/vault/{doomed}/undelete"') == 2  # in the note, and in the trash
    assert "Bring back" in client.get(f"/vault/{doomed}").text
    press(client, doomed, "undelete")
    assert checkpoints.verify(realm.vault / doomed).id == doomed and trash.deleted(realm) == {}


def test_what_must_stay_is_not_deleted_and_the_api_says_why(client, vault, ledger):
    for checkpoint, why in (("tip", "training goes on from it"), ("current", "it is promoted")):
        answer = client.post(f"/api/vault/{checkpoint}/delete", headers=OURS)
        assert answer.status_code == 409 and why in answer.json()["error"]["text"]
    gone = client.post(f"/api/vault/{vault[3].id}/delete", headers=OURS).json()
    assert gone["deleted"] and gone["until"] > time.time() + 80_000
    assert vault[3].id not in [row["id"] for row in client.get("/api/vault").json()]
    assert client.post(gone["undo"], headers=OURS).json() == {
        "verb": "undelete",
        "checkpoint": vault[3].id,
        "deleted": False,
    }
    assert vault[3].id in [row["id"] for row in client.get("/api/vault").json()]
    assert client.post(gone["undo"], headers=OURS).status_code == 409


def test_a_damaged_one_is_named_by_the_button_that_verifies(client, vault, realm):
    assert press(client, vault[3].id, "verify").status_code == 303
    (realm.vault / vault[3].id / "config.json").write_text("altered")
    answer = press(client, vault[3].id, "verify")
    assert answer.status_code == 409 and "config.json has 7 bytes" in answer.text


def test_a_name_is_given_shown_and_taken_back(client, vault, realm, ledger):
    assert press(client, vault[3].id, "tag", name="v1.0").status_code == 303
    assert "v1.0" in client.get("/vault").text and client.get("/vault/v1.0").status_code == 200
    refused = press(client, vault[4].id, "tag", name="../x")
    assert refused.status_code == 409 and "cannot be a name" in refused.text
    tag(realm, ledger, "best", vault[4].id)
    press(client, vault[3].id, "untag", name="v1.0")
    assert [row["id"] for row in ledger.all("SELECT id FROM tags")] == ["best"]


def test_an_export_is_followed_to_its_end(client, vault, realm, ledger):
    wrong = client.post("/api/vault/tip/export?dtype=int3", headers=OURS)
    assert wrong.status_code == 400 and "int3" in wrong.json()["error"]["text"]
    answer = press(client, vault[6].id, "export", cooldown="0", **{"from": "checkpoint"})
    assert answer.status_code == 303 and "is being exported" in client.get("/vault").text
    assert press(client, vault[5].id, "export").status_code == 409  # one at a time
    deadline = time.monotonic() + 30
    while not ledger.events_of("model_exported") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert f"exported to {realm.exports / vault[6].id}" in text_of(client.get(f"/vault/{vault[6].id}"))
    assert str(realm.exports / vault[6].id) in client.get("/vault").text
    assert (realm.exports / vault[6].id / "model.safetensors").stat().st_size == 64
    assert press(client, vault[6].id, "export").status_code == 409  # it is there


def test_a_realm_without_a_hero_has_a_page_too(tmp_path):
    paths = empty_realm(tmp_path)
    with client_of(paths) as client:
        page = client.get("/vault")
        assert page.status_code == 200 and "The Vault is empty" in page.text and "Compare two" not in page.text
        assert client.get("/vault/tip", headers=PAGE).status_code == 404
    fill(paths).close()
    with client_of(paths) as client:
        assert Ledger(paths.ledger).one("SELECT COUNT(*) AS n FROM checkpoints")["n"] == 5
        assert client.get("/vault?page=7").status_code == client.get("/vault?page=x").status_code == 200
