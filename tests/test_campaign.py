"""Campaigns: chapters of a hero's life on the command line, told by its checkpoints."""

import json

import pytest
from resident import accept_sums, fight, resident

from core.campaign import active
from core.checkpoints import pointed, read
from training.cli import main


@pytest.fixture
def call(realm, capsys):
    def run(*words, code=0):
        capsys.readouterr()
        assert main(["--root", str(realm.root), *words, "--json"]) == code
        said = capsys.readouterr()
        return json.loads(said.out) if code == 0 else said.err

    return run


def train(worker, stem):
    quest = accept_sums(worker.paths, worker.ledger, stem, 32)
    assert fight(worker)
    return quest


def test_a_life_in_chapters(realm, ledger, call):
    worker = resident(realm, ledger)
    train(worker, "one")
    start = worker.tip
    (first,) = call("campaign", "list")
    assert (first["name"], first["active"], first["last_step"], first["quests"]) == ("first", True, 2, 1)
    call("campaign", "new", "second")
    train(worker, "two")
    assert worker.tip.campaign == "second" and "-second-" in worker.tip.id and worker.tip.parent == start.id
    second, first = call("campaign", "list")
    assert (second["from"], second["first_step"], second["quests"], first["active"]) == (start.id, 4, 1, False)
    assert first["tokens"] > 0 and second["tokens"] > 0
    call("campaign", "new", "third", "--from", start.id)
    assert pointed(realm.tip) == start.id and read(realm.vault / start.id).campaign == "first"
    again = resident(realm, ledger)
    train(again, "three")
    assert again.tip.campaign == "third" and again.tip.parent == start.id and again.tip.step == 4
    call("campaign", "archive", "second")
    assert [campaign["name"] for campaign in call("campaign", "list")] == ["third", "first"]
    assert [campaign["name"] for campaign in call("campaign", "list", "--all")] == ["third", "second", "first"]
    assert call("campaign", "show", "second")["archived"]


def test_what_cannot_be_is_refused_with_its_reason(realm, ledger, call):
    resident(realm, ledger)
    assert "letters, digits" in call("campaign", "new", "a/b", code=1)
    assert "already" in call("campaign", "new", "first", code=1)
    assert "no campaign 'frist'" in call("campaign", "show", "frist", code=1)
    assert "goes on" in call("campaign", "archive", "first", code=1)
    assert active(ledger, "DIO") == "first"
