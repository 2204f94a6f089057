"""`skill eval` and `skill serve`: a checkpoint examined from the command line, a skill for machines without a realm; the page."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from itertools import takewhile

import pytest
from processes import free_port
from starlette.testclient import TestClient
from tavern_server import OURS, PAGE, client_of

from core import checkpoints
from core.checkpoints import Manifest, commit
from core.config import Config, Hero, Tavern
from core.forge.hatch import hatch
from core.ledger import Ledger
from core.paths import CHECKOUT
from core.progress import mastered
from core.skills import skill
from core.standing import Standing
from monitoring.servers.skills import create_app
from monitoring.servers.tavern import views
from monitoring.servers.tavern.heat import COLUMNS, heat
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.security import Rules
from training.cli import main


def test_a_checkpoint_is_examined_at_its_frontier_on_the_problems_of_a_seed(realm, capsys):
    hatch(realm, Config(hero=Hero(name="DIO")))
    command = ["--root", str(realm.root), "skill", "eval", "rev", "-n", "24", "--seed", "5", "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["skill"], told["level"], told["asked"], told["seed"]) == ("REV", 1, 24, 5)
    assert told["low"] <= told["accuracy"] == told["right"] / 24 <= told["high"] < 0.5
    assert told["checkpoint"] == checkpoints.pointed(realm.tip)
    assert main(["--root", str(realm.root), "skill", "eval", "REV", "--level", "99"]) == 1
    assert "choose one from 1 to 30" in capsys.readouterr().err
    assert main(["--root", str(realm.root), "skill", "eval", "REV", "--checkpoint", "nobody"]) == 1
    assert "no model 'nobody'" in capsys.readouterr().err
    assert main(["--root", str(realm.root), "skill", "eval", "REV", "--on", "oracle"]) == 1
    assert "the realm does not run" in capsys.readouterr().err


@pytest.fixture
def served(tmp_path):
    """REV, served by a process of its own; its address."""
    port = free_port()
    command = [sys.executable, "-m", "training", "--root", tmp_path, "skill", "serve", "REV", "--port", port, "--json"]
    process = subprocess.Popen(list(map(str, command)), cwd=CHECKOUT, stdout=subprocess.PIPE, env=os.environ)
    try:
        lines = list(
            takewhile(lambda line: line != b"}\n", iter(process.stdout.readline, b""))
        )  # up to its end, or ours
        assert process.poll() is None, f"it ended with {process.returncode}"
        assert json.loads(b"".join(lines) + b"}")["skill"] == "REV"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)
        process.stdout.close()


def ask(url, body=None):
    headers = {"content-type": "application/json"} if body else {}
    request = urllib.request.Request(url, json.dumps(body).encode() if body else None, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, json.loads(refused.read())


def test_one_skill_is_served_to_other_machines_and_no_other(served):
    status, drawn = ask(f"{served}/api/skills/REV/sample?level=4&seed=9&count=3")
    assert status == 200 and [one["prompt"] for one in drawn] == [one.prompt for one in skill("REV").sample(4, 9, 3)]
    grade = {"problem": drawn[1]["id"], "answer": drawn[1]["answer"]}
    assert ask(f"{served}/api/skills/rev/grade", grade)[1]["score"] == 1.0
    assert ask(f"{served}/api/skills/REV/grade", grade | {"answer": "z"})[1]["score"] == 0.0
    assert ask(f"{served}/api/skills/BIN/sample")[0] == 404
    assert ask(f"{served}/api/skills/REV/sample?level=77")[0] == 400
    assert ask(f"{served}/api/skills")[1][0]["name"] == "REV"


def test_what_a_served_skill_refuses_stands_behind_the_door_and_is_told_as_in_the_tavern():
    rules = Rules.of(Tavern(require_token=True), "the right one", frozenset())
    with TestClient(create_app("REV", rules), base_url="http://127.0.0.1:8888") as client:
        assert client.get("/api/skills/BIN/sample").status_code == 401
        client.headers["authorization"] = "Bearer the right one"
        other = client.get("/api/skills/BIN/sample")
        assert other.status_code == 404 and other.json()["error"]["text"] == "Only REV is served here."
        assert other.headers["x-content-type-options"] == "nosniff"
        assert client.get("/api/skills/BIN/sample", headers={"host": "elsewhere.example"}).status_code == 400
        assert client.get("/api/skills/REV/sample?count=0").json()["error"]["text"].startswith("count: ")
        assert client.get("/api/skills/REV").json()["error"]["code"] == "not_found"


@pytest.fixture
def climbed(realm):
    """A realm whose hero has mastered two levels of REV and looked at the third twice."""
    ledger = Ledger(realm.ledger)
    at = {"skill": "REV", "asked": 32, "look": None, "outcome": None}
    for step in range(1, 40):
        level = 1 + step // 15
        exams = [{"kind": "canary", "level": level, "right": min(32, 2 * (step % 15) + 3), **at}]
        if step % 15 == 14:
            exams.append(
                at | {"kind": "exam", "level": level, "right": 250, "asked": 256, "look": 1, "outcome": "mastered"}
            )
        standing = Standing({"REV": tuple(range(1, level))}, {"REV/3": 2}).as_json()
        facts = Manifest("DIO", "first", 40 * step, standing=standing, exams=exams, baseline={"REV/1": [1, 32]})
        manifest = commit(realm, facts, lambda folder: (folder / "model.safetensors").write_bytes(b"") and None)
        checkpoints.record(ledger, manifest, "saved")
    checkpoints.set_tip(realm, manifest.id)
    yield realm
    ledger.close()


def test_the_hero_card_tells_what_exams_found_and_not_what_was_right_once(climbed):
    ledger = Ledger(climbed.ledger)
    facts = {"stem": "q", "origin": "user", "priority": "low", "created": 0, "updated": 0}
    quest = ledger.add("quests", skill="REV", state="recently_completed", **facts)
    fought = {"school": "scribe", "state": "done", "start_step": 0, "total_steps": 9, "started": 0}
    ledger.add("battles", quest=quest, hero="DIO", **fought)
    ledger.add("evaluations", hero="DIO", kind="preview", quest=quest, step=9, value=1.0, created=0)
    ledger.close()
    (card,) = views.skills(Realm(climbed, Config()))
    assert (card["mastered"], card["level"], card["right"]) == (2, 3, 21 / 32)


def test_what_was_kept_is_told_level_by_level_and_checkpoint_by_checkpoint(climbed):
    with client_of(climbed) as client:
        page = client.get("/skills", headers=PAGE).text
    assert [page.count(f'<th scope="row">REV {level}</th>') for level in (1, 2, 3, 4)] == [1, 1, 1, 0]
    assert "REV level 1, step 560: 250 of 256 right" in page, "the exam, which came after the canaries of its step"
    assert "REV level 3, step 1,560: 21 of 32 right" in page
    first = page.split('<th scope="row">REV 1</th>')[1].split("</tr>")[0]
    assert first.count("<td") == COLUMNS and first.count("<td></td>") == COLUMNS - 9, "not asked since it was mastered"
    assert first.index("shade-2") < first.index("shade-9") < first.index("shade-10")


def test_a_table_is_as_wide_as_the_life_is_long_and_a_field_is_its_newest_row():
    row = {"skill": "BIN", "level": 1, "asked": 4}
    few = heat(
        [row | {"step": 7, "right": 1}, row | {"step": 9, "right": 4}, row | {"step": 9, "level": 2, "right": 0}]
    )
    assert few["ends"] == ["7", "9"] and [line["level"] for line in few["lines"]] == [1, 2]
    assert [[field and field["shade"] for field in line["fields"]] for line in few["lines"]] == [[2, 10], [None, 0]]
    many = heat(row | {"step": step, "right": step % 5} for step in range(1, 1001))
    assert len(many["ends"]) == COLUMNS and many["ends"][-1] == "1,000"
    assert many["lines"][0]["fields"][-1]["told"] == "BIN level 1, step 1,000: 0 of 4 right"
    assert heat([]) == {"ends": [], "lines": []}


def test_the_skills_page_shows_levels_scores_with_intervals_and_the_way_there(climbed):
    with client_of(climbed) as client:
        told = {one["name"]: one for one in client.get("/api/skills", headers=OURS).json()}
        page = client.get("/skills?skill=REV", headers=PAGE).text
    rev = told["REV"]
    assert (rev["mastered"], rev["frontier"], rev["looks"], rev["weight"]) == ([1, 2], 3, 2, 1.0)
    assert rev["score"]["right"] == 21 and rev["score"]["low"] == pytest.approx(0.483, abs=5e-3)
    assert rev["baseline"]["accuracy"] == 1 / 32 and told["SY"]["score"] is None
    assert "2 of 30 levels mastered" in page and 'class="interval"' in page and "2 exams" in page
    assert "level 2 begins" in page and "level 3 begins" in page
    assert "answered 1 of 32 problems of level 1" in page
    assert mastered(climbed, "DIO") == {"REV": [1, 2]}
