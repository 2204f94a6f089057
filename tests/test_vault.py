"""The Vault's own acts, without a trainer: names, pins, the trash, pointers set by hand, and the tree of what made what."""

import json
import shutil
import struct

import pytest

from core import turning_back
from core.checkpoints import Manifest, commit, holding, pointed, record, set_champion, set_current, set_tip
from core.control import waiting, wish
from core.errors import CheckpointError, UserError
from core.hero import tokenizer_folder
from core.paths import BUNDLED_TOKENIZER
from core.realm_lock import held
from core.training_queue import TrainingQueue
from management import model_versioner, trash, vault
from management.lineage import lineage, tree
from training.cli import main


def weights(number: float):
    """A builder of a model of one tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()

    def build(folder):
        data = struct.pack("<2f", number, 1.0)
        (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)

    return build


@pytest.fixture
def keep(realm, ledger):
    """Commit a checkpoint of the hero and tell the ledger."""

    def commit_one(step, parent=None, number=1.0, state="saved", hero="DIO", **facts) -> str:
        manifest = commit(realm, Manifest(hero, "first", step, parent=parent, **facts), weights(number))
        record(ledger, manifest, state)
        return manifest.id

    return commit_one


def finished(realm, ledger, stem: str) -> int:
    """A quest that was trained to its end."""
    now = {"created": 0, "updated": 0}
    quest = ledger.add("quests", stem=stem, origin="user", state="recently_completed", priority="normal", **now)
    (realm.queued("recently_completed") / f"{stem}-q{quest:06d}.jsonl").write_text("{}\n")
    ledger.add(
        "battles", quest=quest, hero="DIO", school="scribe", state="done", start_step=0, total_steps=4, started=0
    )
    return quest


@pytest.fixture
def line(realm, ledger, keep) -> list[str]:
    """Birth, two finished quests and the beginning of a third; tip at the end, current before it, champion at birth."""
    one, two = finished(realm, ledger, "one"), finished(realm, ledger, "two")
    three = ledger.add(
        "quests", stem="three", origin="user", state="processing", priority="normal", created=0, updated=0
    )
    ids = [keep(0)]
    ids.append(keep(10, ids[0], quest=one, trained=((one, one),)))
    ids.append(keep(20, ids[1], quest=two, trained=((one, two),)))
    ids.append(keep(25, ids[2], quest=three, trained=((one, two),), open={three: 5}))
    ids.append(keep(28, ids[3], quest=three, trained=((one, two),), open={three: 8}))
    set_tip(realm, ids[4]), set_current(realm, ids[2]), set_champion(realm, ids[0])
    return ids


def do(realm, *words) -> int:
    return main(["--root", str(realm.root), "vault", *words])


def ask(realm, capsys, *words):
    assert do(realm, *words, "--json") == 0
    return json.loads(capsys.readouterr().out)


# Pointers


def test_promoting_moves_what_is_shown_and_nothing_else(realm, ledger, line):
    assert do(realm, "promote", line[1]) == 0
    assert (pointed(realm.current_model), pointed(realm.tip)) == (line[1], line[4])
    assert ledger.one("SELECT state FROM checkpoints WHERE id=?", (line[1],))["state"] == "promoted"


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_never_promoted(realm, keep, line, number, capsys):
    assert do(realm, "promote", keep(30, line[4], number)) == 1
    assert "holds a NaN or an infinity" in capsys.readouterr().err and pointed(realm.current_model) == line[2]


def test_neither_a_broken_checkpoint_nor_another_heros_is_promoted(realm, ledger, keep, line):
    (realm.vault / line[1] / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError):
        turning_back.promote(realm, ledger, "DIO", line[1])
    with pytest.raises(UserError, match="is DIO_2's"):
        turning_back.promote(realm, ledger, "DIO", keep(5, hero="DIO_2"))
    assert pointed(realm.current_model) == line[2]


def test_a_rollback_takes_tip_and_current_back_and_its_quests_stay_finished_but_marked(realm, ledger, line, capsys):
    told = ask(realm, capsys, "rollback", line[1])
    assert pointed(realm.tip) == pointed(realm.current_model) == line[1] and told["lacking"] == [2]
    assert TrainingQueue(realm, ledger).find(2).state == "recently_completed"
    assert "rolled back" in ledger.one("SELECT reason FROM quests WHERE id=2")["reason"]
    assert [row["state"] for row in ledger.all("SELECT state FROM battles ORDER BY quest")] == ["done", "rolled_back"]
    rolled = {row["id"] for row in ask(realm, capsys, "list") if row["rolled_back"]}
    assert rolled == set(line[2:])


def test_a_rollback_without_a_name_leads_to_where_the_tip_comes_from(realm, line):
    assert do(realm, "rollback") == 0 and pointed(realm.tip) == line[3]


def test_what_was_rolled_back_is_trained_again_only_if_that_is_wanted(realm, ledger, line):
    assert do(realm, "rollback", line[1], "--again") == 0
    queue = TrainingQueue(realm, ledger)
    assert queue.find(2).state == "normal" and queue.find(1).state == "recently_completed"


def test_going_forward_again_undoes_a_rollback(realm, ledger, line):
    assert do(realm, "rollback", line[1]) == do(realm, "rollback", line[4]) == 0
    assert {row["state"] for row in ledger.all("SELECT state FROM battles")} == {"done"}
    assert not ledger.all("SELECT id FROM checkpoints WHERE rolled_back IS NOT NULL")
    assert ledger.one("SELECT reason FROM quests WHERE id=2")["reason"] is None


def test_a_broken_tip_never_leads_forward_to_what_was_rolled_back(realm, ledger, line):
    do(realm, "rollback", line[1])
    (realm.vault / line[1] / "model.safetensors").unlink()
    newest = turning_back.newest_on_the_way(realm, ledger, "DIO", lambda *told: None)
    assert newest.id == line[0]
    shutil.rmtree(realm.vault / line[0])
    assert turning_back.newest_on_the_way(realm, ledger, "DIO", lambda *told: None).id == line[4]


def test_a_branch_is_promoted_and_not_gone_back_to(realm, keep, line, capsys):
    branch = keep(20, line[2], branch="cooldown")
    assert do(realm, "promote", branch) == 0 and pointed(realm.current_model) == branch
    assert do(realm, "rollback", branch) == 1 and line[2] in capsys.readouterr().err


def test_while_the_realm_runs_the_trainer_is_asked_and_its_answer_is_the_verbs(
    realm, ledger, line, monkeypatch, capsys
):
    monkeypatch.setattr("training.commands.vault_acts.PATIENCE_SECONDS", 0.3)
    with held(realm, 8888):
        assert do(realm, "promote", line[1]) == 1
        assert "has not come to it" in capsys.readouterr().err
        assert [(row["verb"], row["argument"]) for row in waiting(ledger)] == [("promote", line[1])]
    assert pointed(realm.current_model) == line[2]
    with pytest.raises(UserError, match="give a checkpoint"):
        wish(ledger, "rollback")


# Whose it is


def test_a_hero_whose_name_begins_like_anothers_does_not_speak_with_its_tokenizer(realm, keep, config):
    other = keep(0, hero="DIO_2")
    set_current(realm, other)
    assert tokenizer_folder(realm, config) == BUNDLED_TOKENIZER
    mine = keep(0)
    set_current(realm, mine)
    assert tokenizer_folder(realm, config) == realm.vault / mine


# Names and pins


def test_a_name_stands_for_its_checkpoint_and_pins_it_beside_a_pin_by_hand(realm, ledger, line, capsys):
    assert do(realm, "tag", "release-1", line[1]) == do(realm, "pin", "release-1") == 0
    assert vault.find(realm, ledger, "release-1") == line[1]
    assert [(one["name"], one["step"]) for one in model_versioner.versions(ledger)] == [("release-1", 10)]
    assert do(realm, "promote", "release-1") == 0 and pointed(realm.current_model) == line[1]
    assert do(realm, "untag", "release-1") == 0
    assert ledger.one("SELECT pinned FROM checkpoints WHERE id=?", (line[1],))["pinned"] == vault.BY_HAND
    assert do(realm, "unpin", line[1]) == 0
    capsys.readouterr()
    assert not ask(realm, capsys, "show", line[1])["pinned"]


@pytest.mark.parametrize("name", ["tip", "1st", "a/b", "", "DIO-first", "x" * 65])
def test_a_name_that_could_be_mistaken_is_refused(realm, ledger, line, name):
    with pytest.raises(UserError):
        model_versioner.tag(realm, ledger, name, line[1])


def test_a_name_is_never_moved_in_silence(realm, ledger, line):
    model_versioner.tag(realm, ledger, "v1", line[1])
    with pytest.raises(UserError, match="vault untag v1"):
        model_versioner.tag(realm, ledger, "v1", line[2])


# The trash


def test_what_is_deleted_comes_back_whole_and_only_for_a_day(realm, ledger, line, capsys):
    assert do(realm, "delete", line[1]) == 0
    capsys.readouterr()
    assert not (realm.vault / line[1]).exists() and line[1] not in [row["id"] for row in ask(realm, capsys, "list")]
    assert [row["id"] for row in ask(realm, capsys, "list", "--deleted")] == [line[1]]
    assert trash.empty(realm, room_is_short=False) == []
    assert do(realm, "undelete", line[1]) == 0
    assert vault.problem_of(realm, line[1]) is None
    assert ledger.one("SELECT gone FROM checkpoints WHERE id=?", (line[1],))["gone"] is None
    trash.delete(realm, ledger, line[1])
    later = trash.deleted(realm)[line[1]]["goes"]
    assert trash.empty(realm, room_is_short=False, clock=lambda: later) == [line[1]] and not trash.deleted(realm)
    assert do(realm, "undelete", line[1]) == 1


def test_the_trash_makes_room_when_it_is_short(realm, ledger, line):
    trash.delete(realm, ledger, line[1])
    assert trash.empty(realm, room_is_short=True) == [line[1]]


@pytest.mark.parametrize(("place", "why"), [(4, "goes on"), (2, "promoted"), (0, "champion"), (3, "last two whole")])
def test_what_is_needed_is_not_deleted(realm, ledger, line, place, why):
    with pytest.raises(UserError, match=why):
        trash.delete(realm, ledger, line[place])
    assert vault.problem_of(realm, line[place]) is None


def test_neither_the_pinned_nor_the_battles_parent_nor_what_is_read_is_deleted(realm, ledger, line):
    set_current(realm, line[0])
    with pytest.raises(UserError, match="battle"):
        trash.delete(realm, ledger, line[2])
    vault.pin(realm, ledger, line[1])
    with pytest.raises(UserError, match="pinned"):
        trash.delete(realm, ledger, line[1])
    vault.unpin(ledger, line[1])
    with holding(realm.vault / line[1]), pytest.raises(UserError, match="being read"):
        trash.delete(realm, ledger, line[1])
    trash.delete(realm, ledger, line[1])
    with pytest.raises(CheckpointError), holding(realm.vault / line[1]):
        pass


def test_a_whole_older_checkpoint_counts_as_one_of_the_last_two_when_a_newer_one_is_broken(realm, ledger, line):
    set_current(realm, line[0])
    (realm.vault / line[3] / "model.safetensors").write_bytes(b"broken")
    assert vault.last_whole(realm, ledger, "DIO") == [line[4], line[2]]


# Lineage


def test_the_tree_names_the_quests_behind_each_checkpoint_and_sets_forks_in(realm, ledger, keep, line, capsys):
    fork = keep(22, line[1], quest=2, trained=((1, 1),), open={2: 12}, validation_loss=1.25)
    shutil.rmtree(realm.vault / line[0])
    set_champion(realm, line[1])
    nodes = {node["id"]: node for node in lineage(realm, ledger)}
    assert nodes[line[1]]["above"] is None and [one["quest"] for one in nodes[line[1]]["trained"]] == [1]
    assert [one["quest"] for one in nodes[line[2]]["trained"]] == [2] and nodes[line[3]]["begun"][0]["steps"] == 5
    shown = tree(list(nodes.values()))
    assert [text.split("● ")[1].split()[0] for text in shown] == [line[1], fork, *line[2:]]
    assert shown[1].startswith("│ ●") and "q2 two to step 12  loss 1.2500" in shown[1] and "champion" in shown[0]
    only = {node["id"] for node in ask(realm, capsys, "lineage", line[2])}
    assert only == set(line[1:])


def test_pruning_can_be_looked_at_before(realm, ledger, line, capsys, monkeypatch):
    monkeypatch.setattr("management.retention.YOUNG_SECONDS", -1.0)
    set_current(realm, line[0])
    realm.config.write_text(json.dumps({"retention": {"keep_last": 2, "keep_promoted": 1}}))
    would = ask(realm, capsys, "prune", "--dry-run")["deleted"]
    assert would and all((realm.vault / key).exists() for key in would)
    assert ask(realm, capsys, "prune")["deleted"] == would and not any((realm.vault / key).exists() for key in would)
