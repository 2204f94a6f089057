"""An inference box pulls champions from a trainer's Tavern, whatever happens on the way; and the verbs that go with it."""

import hashlib
import json
import os
from contextlib import closing

import pytest
from oracle_realm import another, hatched
from starlette.testclient import TestClient
from tavern_server import tavern

from core.chat_reply import Piece
from core.checkpoints import STATE_FILES, pointed, read, verify
from core.config import Config
from core.durable import write_json
from core.errors import CheckpointError, UserError
from core.paths import RealmPaths
from management.model_shelf import VaultShelf
from management.weight_sync import pull
from monitoring.servers.tavern.app import create_app
from monitoring.servers.tavern.security import read_or_make_token
from monitoring.tavern_client import TavernClient, TavernProblem
from training.cli import main


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    """(paths, Tavern) of a realm with a champion, whose Tavern asks for the token."""
    paths, _ = hatched(tmp_path_factory.mktemp("trainer") / "realm")
    write_json(paths.config, {"tavern": {"require_token": True}})
    with tavern(paths.root) as server:
        yield paths, server


@pytest.fixture
def source(trainer):
    paths, server = trainer
    with closing(TavernClient(server.url, read_or_make_token(paths))) as client:
        yield client


@pytest.fixture
def box(tmp_path):
    return RealmPaths(tmp_path / "box")


def champion(paths: RealmPaths) -> str | None:
    return pointed(paths.champion)


def test_a_box_gets_what_answering_needs_and_swaps_when_there_is_a_new_champion(trainer, source, box):
    first = champion(trainer[0])
    done = pull(box, source, "champion")
    assert done.checkpoint == first == champion(box) == pointed(box.current_model) and done.new
    held = verify(box.vault / first)
    theirs = read(trainer[0].vault / first)
    assert set(theirs.files) - set(held.files) == {"optimizer.safetensors"} < set(STATE_FILES)
    assert done.bytes == held.bytes and not box.tip.exists()
    again = pull(box, source, "champion")
    assert (again.bytes, again.new) == (0, False)
    seen = {first}
    for step in (1, 2, 3):
        seen.add(newest := another(trainer[0], step))
        assert pull(box, source, "champion").checkpoint == newest == champion(box)
    kept = {folder.name for folder in box.vault.iterdir() if not folder.is_symlink()}
    assert len(seen) == 4 and len(kept) == 2 and newest in kept, "the one to go back to stays, older ones go"
    assert VaultShelf(box).find("hero")[0] == newest


class Breaking:
    """The source over a line that breaks after so many bytes."""

    def __init__(self, client: TavernClient, after: int):
        self.url, self._client, self._left = client.url, client, after
        self.begins: list[int] = []

    def get(self, path: str) -> dict:
        return self._client.get(path)

    def download(self, path: str, begin: int = 0):
        self.begins.append(begin)
        for place, part in self._client.download(path, begin):
            self._left -= len(part)
            yield place, part
            if self._left < 0:
                raise TavernProblem("the line broke")


def test_a_pull_that_breaks_off_shows_nothing_and_goes_on_where_it_was(trainer, source, box):
    with pytest.raises(TavernProblem, match="broke"):
        pull(box, Breaking(source, 200_000), "champion")
    assert champion(box) is None and VaultShelf(box).models() == []
    whole = Breaking(source, 1 << 40)
    done = pull(box, whole, "champion")
    assert max(whole.begins) > 0 and 0 < done.bytes < verify(box.vault / done.checkpoint).bytes
    assert champion(box) == done.checkpoint


def test_bytes_that_were_altered_on_the_way_or_lie_altered_in_the_box_are_fetched_anew(trainer, source, box):
    with pytest.raises(TavernProblem):
        pull(box, Breaking(source, 200_000), "champion")
    (half,) = (file for file in box.vault.glob(".pulled-*/model.safetensors"))
    half.write_bytes(b"?" + half.read_bytes()[1:])
    checkpoint = pull(box, source, "champion").checkpoint
    verify(box.vault / checkpoint)
    weights = box.vault / checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    assert pull(box, source, "champion").bytes > 0
    verify(box.vault / checkpoint)


class Hostile:
    """A Tavern that means ill."""

    url = "http://evil"

    def __init__(self, content: bytes = b"{}", **changes):
        facts = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        self._content = content
        self._offer = {"checkpoint": "DIO-first-00000001-0123abcd", "hero": "DIO", "campaign": "first", "step": 1,
                       "created": 1.0, "files": {"config.json": facts}} | changes  # fmt: skip

    def get(self, path: str) -> dict:
        return self._offer

    def download(self, path: str, begin: int = 0):
        yield begin, self._content[begin:]


FACTS = {"sha256": "0" * 64, "bytes": 2}


@pytest.mark.parametrize(
    "changes",
    [
        {"checkpoint": "champion"}, {"checkpoint": "../../x-00000001-0123abcd"}, {"checkpoint": ".building-00000001-0123abcd"},
        {"checkpoint": "a/b-00000001-0123abcd"}, {"checkpoint": "x-00000001-0123abcd\n"}, {"checkpoint": None}, {"step": "1"},
        {"files": {}}, {"files": []}, {"files": {"../../config.json": FACTS}}, {"files": {"/etc/passwd": FACTS}},
        {"files": {"manifest.json": FACTS}}, {"files": {"model.py": FACTS}}, {"files": {"model.bin": FACTS}},
        {"files": {"rng_state.pth": FACTS}}, {"files": {".hidden": FACTS}}, {"files": {"a\0b": FACTS}},
        {"files": {"a": {"sha256": "0" * 64, "bytes": -1}}}, {"files": {"a": {"sha256": "0" * 64, "bytes": 1 << 60}}},
        {"files": {"a": {"sha256": "zz", "bytes": 1}}}, {"files": {"a": {"sha256": "0" * 64, "bytes": True}}},
        {"files": {f"f{number}": FACTS for number in range(101)}},
    ],
)  # fmt: skip
def test_an_offer_that_would_leave_its_folder_is_refused(box, changes):
    with pytest.raises(UserError, match="http://evil"):
        pull(box, Hostile(**changes), "champion")
    assert not box.root.exists()


def test_a_source_that_does_not_keep_its_word_changes_nothing(trainer, source, box):
    before = pull(box, source, "champion").checkpoint
    liar = {"files": {"config.json": {"sha256": "0" * 64, "bytes": 2}}}
    short = {"files": {"config.json": {"sha256": "0" * 64, "bytes": 1}}}
    for hostile, words in (
        (Hostile(**liar), "another SHA-256"),
        (Hostile(**short), "sends more"),
        (Hostile(), "no model that is taken"),
    ):
        with pytest.raises(CheckpointError, match=words):
            pull(box, hostile, "champion")
        assert champion(box) == before and verify(box.vault / before)


def test_a_realm_that_trains_is_not_pulled_into(trainer, source):
    with pytest.raises(UserError, match="trains a hero of its own"):
        pull(trainer[0], source, "champion")


def test_only_what_the_manifest_names_is_served_and_not_what_training_needs(tmp_path):
    paths, (hero,) = hatched(tmp_path / "realm")
    (paths.vault / hero / "stray.txt").write_text("secret")
    with TestClient(create_app(paths, Config()), base_url="http://127.0.0.1:8888") as client:
        offered = client.get("/api/oracle/weights/champion").json()
        assert offered["checkpoint"] == hero == client.get(f"/api/oracle/weights/{hero}").json()["checkpoint"]
        config = client.get(f"/api/oracle/weights/{hero}/config.json")
        assert hashlib.sha256(config.content).hexdigest() == offered["files"]["config.json"]["sha256"]
        part = client.get(f"/api/oracle/weights/{hero}/config.json", headers={"range": "bytes=5-"})
        assert part.status_code == 206 and part.content == config.content[5:]
        for name in (
            "optimizer.safetensors", "stray.txt", "manifest.json", "..%2f..%2f..%2fstate%2ftoken", "..%5cx", "%2e%2e", "a%00",
        ):  # fmt: skip
            assert client.get(f"/api/oracle/weights/{hero}/{name}").status_code == 404, name
        for name in ("nobody", "tip", "..", "%2e%2e", "..%2fvault", hero[:-1], hero.upper()):
            assert client.get(f"/api/oracle/weights/{name}/config.json").status_code == 404, name


# Verbs


def verb(capsys, *words: str) -> tuple[int, str, str]:
    code = main(["oracle", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_sync_asks_for_the_token_and_takes_it_from_flag_or_environment(trainer, box, capsys, monkeypatch):
    paths, server = trainer
    common = ("sync", "--root", str(box.root), "--from", server.url, "--json")
    code, _, told = verb(capsys, *common)
    assert code == 1 and "asks for the token" in told and champion(box) is None
    assert verb(capsys, *common, "--token", "wrong")[0] == 1
    monkeypatch.setenv("REALM_TOKEN", read_or_make_token(paths))
    code, told, _ = verb(capsys, *common)
    assert code == 0 and json.loads(told)["checkpoint"] == champion(box) == champion(paths)
    assert verb(capsys, "sync", "--root", str(box.root), "--from", "http://2130706433/")[0] == 1


def test_a_question_is_answered_without_a_running_realm_too(tmp_path, capsys, monkeypatch):
    paths, (first, hero) = hatched(tmp_path / "realm", 2)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    ask = ("ask", "How much is 1 + 1?", "--root", str(paths.root), "--tokens", "6", "--json", "--temperature", "0")
    code, told, _ = verb(capsys, *ask)
    answer = json.loads(told)
    assert code == 0 and answer["checkpoint"] == hero and answer["answer"] and answer["answered_by"] == "process"
    assert json.loads(verb(capsys, *ask, "--model", first)[1])["checkpoint"] == first
    code, _, told = verb(capsys, *ask, "--model", "../x")
    assert code == 1 and "There is no model" in told
    code, _, told = verb(capsys, "ask", "", "--root", str(paths.root))
    assert code == 1 and "is empty" in told


def test_what_the_hero_says_cannot_steer_the_terminal(tmp_path, capsys, monkeypatch):
    paths, _ = hatched(tmp_path / "realm")
    monkeypatch.setattr("training.commands.oracle._answer_here", lambda *_: iter([Piece("a\x1b[2J\nb\u202ec")]))
    assert verb(capsys, "ask", "Hello", "--root", str(paths.root))[1] == "a\\u001b[2J\nb\\u202ec\n"
