"""The board of quests, its API and a quest's preview: nothing is lost or doubled, whoever moves a quest meanwhile."""

import json
import os
import re
import threading
import time
from urllib.parse import quote

import pytest
from resident import accept_sums, resident
from tavern_realm import HOSTILE, empty_realm, fill, services
from tavern_server import OURS, PAGE, client_of

from core import control, jobs
from core.config import Config
from core.glance import glance
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, PRIORITIES, QUEUE_STATES
from core.quest import ANSWERS, COMPANIONS, Sidecar, freeze, quest_name
from core.rendering import Renderer
from core.row_preview import preview
from core.training_queue import TrainingQueue
from monitoring.servers.tavern import quest_views
from monitoring.servers.tavern.previewer import Previewer
from monitoring.servers.tavern.quest_views import file_of, quest_row
from monitoring.servers.tavern.realm import Realm

ROW = {"messages": [{"role": "user", "content": "Hi <|im_end|>"}, {"role": "assistant", "content": "Hello 🌌 there"}]}


@pytest.fixture
def queue(realm, ledger):
    return TrainingQueue(realm, ledger)


@pytest.fixture
def client(realm):
    with client_of(realm) as client:
        client.headers.update(OURS)
        yield client


def waits(queue, stem="quest", priority="normal", **facts) -> int:
    """A quest that waits, with its companions."""
    common = {"origin": "user", "priority": priority, "created": 1.0, "updated": 1.0}
    number = queue.ledger.add("quests", stem=stem, state="arriving", **common)
    claimed = queue.paths.claims / f"{quest_name(stem, number)}.jsonl"
    claimed.write_text(json.dumps({"text": stem}) + "\n")
    claimed.with_suffix(".bad.jsonl").write_text("{\n")
    card = {"sha256": stem, "rows": 1, "form": "text", "school": "scribe", "settings": {}, **facts}
    queue.accept(claimed, priority, card, {"quest": number}).companion(ANSWERS).touch()
    return number


def line(queue, priority="normal"):
    return [quest.id for quest in queue.in_line(priority)]


def move(client, quest, **where):
    return client.post(f"/api/quests/{quest}/move", json=where)


# Order


def test_a_moved_quest_stands_where_it_was_put_and_all_others_keep_their_order(queue, client):
    a, b, c, d = (waits(queue, stem) for stem in "abcd")
    assert move(client, d, before=a).json()["place"] == 0
    assert line(queue) == [d, a, b, c]
    for where, expected in (
        ({"after": b}, [d, b, a, c]),
        ({"to": "up"}, [d, a, b, c]),
        ({"to": "first"}, [a, d, b, c]),
        ({"to": "up"}, [a, d, b, c]),
        ({"to": "last"}, [d, b, c, a]),
        ({"to": "down"}, [d, b, c, a]),
    ):
        assert move(client, a, **where).status_code == 200
        assert line(queue) == expected, where
    late = waits(queue, "late")
    assert line(queue) == [d, b, c, a, late]
    assert [queue.claim().id for _ in range(5)] == [d, b, c, a, late]


def test_between_priorities_a_quest_takes_its_companions_along(queue, client):
    a, b, x = waits(queue, "a"), waits(queue, "b"), waits(queue, "x", "low")
    assert move(client, x, priority="normal", before=b).json()["priority"] == "normal"
    assert (line(queue), line(queue, "low")) == ([a, x, b], [])
    assert move(client, a, before=x, priority="low").status_code == 409  # x does not wait in low any more
    assert move(client, a, priority="high").status_code == 200
    assert line(queue, "high") == [a]
    folder = queue.paths.queued("high")
    assert {path.name for path in folder.iterdir()} == {f"a-q{a:06d}{end}" for end in (".jsonl", *COMPANIONS)}
    assert queue.ledger.one("SELECT priority FROM quests WHERE id=?", (a,))["priority"] == "high"


def test_the_order_survives_a_restart_and_a_quest_that_failed_gives_up_its_place(realm, queue, client):
    a, b, c = (waits(queue, stem) for stem in "abc")
    move(client, c, to="first")
    again = TrainingQueue(realm, Ledger(realm.ledger))
    again.reconcile()
    assert line(again) == [c, a, b]
    again.blame(again.claim(), "it stumbled")
    assert line(again) == [a, b, c]
    move(client, c, to="up")  # who moves it by hand wants it there all the same
    assert line(again) == [a, c, b]


def test_a_mover_that_was_killed_between_companions_and_data_loses_nothing(queue, client):
    quest = waits(queue, "torn")
    for suffix in COMPANIONS:
        name = f"torn-q{quest:06d}{suffix}"
        os.replace(queue.paths.queued("normal") / name, queue.paths.queued("high") / name)
    claimed = queue.claim()
    assert claimed.card["sha256"] == "torn" and claimed.companion(".bad.jsonl").exists()


# Cancel and retry


def test_a_waiting_quest_is_cancelled_at_once_and_one_in_training_by_the_trainer(realm, queue, client):
    quest, running = waits(queue), waits(queue, "running", "high")
    assert queue.claim().id == running
    assert client.post(f"/api/quests/{quest}/cancel").status_code == 200
    assert queue.find(quest).state == "failed" and queue.find(quest).report["reason"] == "cancelled"
    services(realm)  # a trainer lives: what is in training is its own
    asked = client.post(f"/api/quests/{running}/cancel")
    assert asked.status_code == 202 and queue.find(running).state == "processing"
    assert [wish["argument"] for wish in control.waiting(queue.ledger)] == [str(running)]
    assert client.post(f"/api/quests/{quest}/retry").status_code == 200
    assert queue.find(quest).state == "normal"
    assert client.post(f"/api/quests/{quest}/retry").status_code == 409


def test_a_rejected_file_goes_back_once_however_often_one_asks_and_a_duplicate_only_by_force(queue, client):
    number = queue.ledger.add(
        "quests", stem="twin", origin="user", state="arriving", priority="low", created=1, updated=1
    )
    claimed = queue.paths.claims / f"{quest_name('twin', number)}.jsonl"
    claimed.write_text("{}\n" * 200_000)
    queue.reject(claimed, {"reason": "duplicate", "duplicate_of": 1})
    refused = client.post(f"/api/quests/{number}/retry")
    assert refused.status_code == 409 and "duplicate" in refused.json()["error"]["text"]
    answers, start = [], threading.Barrier(4)

    def ask():
        start.wait()
        answers.append(client.post(f"/api/quests/{number}/retry", json={"force": True}).status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200, 409, 409, 409]
    assert sorted(path.name for path in (queue.paths.inbox / "low").iterdir()) == ["twin.jsonl", "twin.quest.json"]
    assert json.loads((queue.paths.inbox / "low" / "twin.quest.json").read_bytes())["force"] is True


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("move", {"priority": "urgent"}, 422),
        ("move", {}, 400),
        ("move", {"before": 1, "to": "up"}, 400),
        ("move", {"before": 99}, 400),
        ("move", {"before": "x"}, 422),
        ("move", {"before": -1}, 422),
        ("move", {"nonsense": 1}, 422),
        ("retry", {"force": "perhaps"}, 422),
        ("retry", {}, 409),
        ("dance", {}, 404),
    ],
)
def test_a_wrong_wish_gets_a_reason(queue, client, verb, body, status):
    quest = waits(queue)
    answer = client.post(f"/api/quests/{quest}/{verb}", json=body)
    assert answer.status_code == status and answer.json()["error"]["text"], answer.text
    for unknown in (quest + 1, 10**30):
        assert client.post(f"/api/quests/{unknown}/{verb}", json=body).status_code in (404, 422)
    assert line(queue) == [quest]


def test_the_buttons_work_without_javascript(queue, client):
    a, b = waits(queue, "a"), waits(queue, "b")
    answer = client.post(f"/quests/{b}/move", data={"to": "up"})
    assert answer.status_code == 303 and line(queue) == [b, a]
    client.post(f"/quests/{a}/move", data={"priority": "high"})
    client.post(f"/quests/{b}/cancel")
    assert (queue.find(a).state, queue.find(b).state) == ("high", "failed")
    assert client.post(f"/quests/{b}/retry").status_code == 303 and queue.find(b).state == "normal"
    wrong = client.post(f"/quests/{b}/move", data={"to": "moon"}, headers=PAGE)
    assert wrong.status_code == 400 and "moon" in wrong.text and wrong.headers["content-type"].startswith("text/html")


# Races


def test_while_many_move_and_cancel_and_the_trainer_claims_every_quest_is_in_one_place_with_its_companions(
    realm, queue, client
):
    everything = [waits(queue, f"q{number}", PRIORITIES[number % 3]) for number in range(30)]
    claimed, cancelled, problems, start = [], [], [], threading.Barrier(4)

    def trainer():
        own = TrainingQueue(realm, Ledger(realm.ledger))
        start.wait()
        while quest := own.claim():
            claimed.append(quest.id)
            assert quest.card["sha256"], quest

    def visitor(act):
        start.wait()
        for number in everything:
            status = act(number).status_code
            if status not in (200, 409):
                problems.append((number, status))

    def cancel(number):
        answer = client.post(f"/api/quests/{number}/cancel") if number % 4 == 0 else move(client, number, to="last")
        if number % 4 == 0 and answer.status_code == 200:
            cancelled.append(number)
        return answer

    acts = (cancel, lambda number: move(client, number, priority=PRIORITIES[number % 2], to="first"))
    threads = [threading.Thread(target=trainer), *(threading.Thread(target=visitor, args=(act,)) for act in acts)]
    for thread in threads:
        thread.start()
    start.wait()
    for thread in threads:
        thread.join()
    assert problems == [] and len(claimed) == len(set(claimed))
    places = {}
    for state in QUEUE_STATES:
        for quest in queue.quests(state):
            assert quest.id not in places
            places[quest.id] = state
            assert all(quest.companion(suffix).exists() for suffix in COMPANIONS), quest
    assert sorted(places) == everything
    # a cancel without a living trainer takes claimed quests, too: what it took is in failed/, all else was claimed
    assert {number for number, state in places.items() if state == "failed"} == set(cancelled)
    assert set(claimed) | set(cancelled) == set(everything)


def test_a_real_trainer_trains_in_the_order_that_somebody_made_and_hears_a_cancel(realm, ledger, client):
    sums = {stem: accept_sums(realm, ledger, stem, rows, eval_steps=1000) for stem, rows in
            (("first", 64), ("long", 4000), ("gone", 64), ("second", 64))}  # fmt: skip
    worker = resident(realm, ledger)
    services(realm)
    move(client, sums["second"], before=sums["long"])
    client.post(f"/api/quests/{sums['gone']}/cancel")
    ledger.close()

    def act():
        own, deadline = Ledger(realm.ledger), time.monotonic() + 120
        while time.monotonic() < deadline:
            row = own.one("SELECT state FROM battles WHERE quest=?", (sums["long"],))
            if row and row["state"] == "running":
                client.post(f"/api/quests/{sums['long']}/cancel")
                break
            time.sleep(0.05)
        while time.monotonic() < deadline and control.waiting(own):
            time.sleep(0.05)
        worker.should_exit.set()

    visitor = threading.Thread(target=act)
    visitor.start()
    worker.run()
    visitor.join()
    order = [row["quest"] for row in ledger.all("SELECT quest FROM battles ORDER BY id")]
    assert order == [sums["first"], sums["second"], sums["long"]]
    states = {stem: worker.queue.find(number).state for stem, number in sums.items()}
    done = "recently_completed"
    assert states == {"first": done, "second": done, "long": "failed", "gone": "failed"}


# Preview


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    paths = empty_realm(tmp_path_factory.mktemp("full"))
    fill(paths, hostile=HOSTILE).close()
    return paths


def rows_file(path, count=40, text=None):
    rows = [
        {"messages": [{"role": "user", "content": f"{text or 'Question'} {n}"}, ROW["messages"][1]]}
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_preview_shows_every_token_its_mask_and_control_tokens_and_goes_on_where_it_ended(tmp_path):
    path, renderer = tmp_path / "rows.jsonl", Renderer.load(BUNDLED_TOKENIZER, 1024)
    path.write_text(json.dumps(ROW) + "\n\nnonsense\n" + json.dumps(ROW) + "\n")
    shown = preview(path, {}, renderer, 2)
    (sequence,) = shown["rows"][0]["sequences"]
    learned = "".join(run["text"] for run in sequence["runs"] if run["trained"])
    assert learned == "Hello 🌌 there<|im_end|>"
    controls = [text for run in sequence["runs"] for text, control in run["tokens"] if control]
    assert controls[:3] == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]  # the one in the user's words is spelled
    assert "🌌" in "|".join(text for run in sequence["runs"] for text, _ in run["tokens"])
    assert "JSON" in shown["rows"][1]["problem"] and shown["rows"][1]["line"] == 3
    rest = preview(path, {}, renderer, 2, form=shown["form"], **shown["next"])
    assert [row["line"] for row in rest["rows"]] == [4] and rest["next"] is None
    assert rest["rows"][0]["sequences"] == shown["rows"][0]["sequences"]


def test_a_preview_says_what_max_length_cuts_and_leaves_out_the_middle_of_what_is_long(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"prompt": "why " * 400, "response": "because " * 400}) + "\n")
    (whole,) = preview(path, {}, Renderer.load(BUNDLED_TOKENIZER, 4096), 1)["rows"][0]["sequences"]
    (cut,) = preview(path, {}, Renderer.load(BUNDLED_TOKENIZER, 100), 1)["rows"][0]["sequences"]
    assert cut["tokens"] == 100 and cut["cut_before"] + cut["cut_after"] + 100 == whole["tokens"]
    (short,) = preview(path, {}, Renderer.load(BUNDLED_TOKENIZER, 4096), 1, most_tokens=90)["rows"][0]["sequences"]
    hidden = sum(run.get("not_shown", 0) for run in short["runs"])
    assert hidden + sum(len(run.get("tokens", ())) for run in short["runs"]) == whole["tokens"]
    first = next(run for run in short["runs"] if run.get("trained"))
    assert first["text"].startswith("because")  # what is learned first is always in sight


def test_a_glance_at_a_large_file_is_near_the_truth_and_says_that_it_is_one(tmp_path, config):
    path, settings = tmp_path / "rows.jsonl", freeze(config, Sidecar())
    renderer = Renderer.load(BUNDLED_TOKENIZER, settings.max_length)
    rows_file(path, 20_000)
    seen = glance(path, settings, renderer)
    assert not seen["tokens"]["exact"] and seen["tokens"]["rows_measured"] < 12_000
    assert abs(seen["rows"] - 20_000) < 600
    rows_file(path, 50)
    whole = glance(path, settings, renderer)
    assert whole["tokens"]["exact"] and whole["rows"] == 50
    assert sum(whole["tokens"]["histogram"]["counts"]) == 50


def test_a_file_can_be_looked_at_in_the_inbox_while_it_is_checked_and_as_a_quest(full):
    hostile = '<script>alert(1)</script> \u202e "quoted"'
    rows_file(full.inbox / "fresh.jsonl", text=hostile)
    with client_of(full) as client:
        assert client.get("/quests/dropped?name=fresh.jsonl").status_code == 200
        rows = client.get("/quests/dropped/rows?name=fresh.jsonl&bare=1").text
        words = re.sub("<[^>]+>", "", rows)
        assert "<script>" not in rows and "&lt;script&gt;alert(1)" in words
        assert "\u202e" not in rows and "\\u202e" in words
        assert "<mark>" in rows and "<rect" in rows and "every row was counted" in rows
        ledger = Ledger(full.ledger)
        number = ledger.add(
            "quests", stem="fresh", origin="user", state="arriving", priority="normal", created=1, updated=1
        )
        claimed = full.claims / f"{quest_name('fresh', number)}.jsonl"
        os.rename(full.inbox / "fresh.jsonl", claimed)
        moved = client.get("/quests/dropped?name=fresh.jsonl")
        assert (moved.status_code, moved.headers["location"]) == (303, f"/quests/{number}")
        assert "arriving" in client.get(f"/quests/{number}").text
        first = client.get(f"/api/quests/{number}/preview").json()
        after = client.get(f"/api/quests/{number}/preview", params=first["next"]).json()
        assert after["rows"][0]["line"] == len(first["rows"]) + 1
        claimed.unlink()
        ledger.change("quests", number, state="vanished")
        ledger.close()


@pytest.mark.parametrize("name", ["../state/token", "..", "/etc/passwd", "nope.jsonl", "a\0b.jsonl", ".hidden.jsonl"])
def test_nothing_but_the_inboxs_own_files_is_shown(full, name):
    with client_of(full) as client:
        for path in ("/quests/dropped", "/quests/dropped/rows"):
            assert client.get(f"{path}?name={quote(name)}").status_code == 404
            assert client.get(f"{path}?name={quote(name)}&priority=..").status_code == 404


def test_a_link_or_a_broken_file_in_the_inbox_gets_a_reason_and_the_next_preview_works(full):
    (full.inbox / "link.jsonl").symlink_to(full.token)
    (full.inbox / "noise.jsonl").write_bytes(os.urandom(200_000))
    (full.inbox / "wide.jsonl").write_bytes(b'{"text": "' + b"x" * 9_000_000)
    rows_file(full.inbox / "good.jsonl")
    with client_of(full) as client:
        for name in ("link", "noise", "wide"):
            answer = client.get(f"/quests/dropped/rows?name={name}.jsonl&bare=1")
            assert answer.status_code == 422 and answer.json()["error"]["text"], name
        assert "<mark>" in client.get("/quests/dropped/rows?name=good.jsonl&bare=1").text
    for name in ("link", "noise", "wide", "good"):
        (full.inbox / f"{name}.jsonl").unlink()


def test_a_quest_that_moves_while_its_rows_are_read_is_found_and_read_again(queue):
    number = waits(queue, settings=freeze(Config(), Sidecar()).model_dump())
    realm = Realm(queue.paths, Config())
    previewer, folders = Previewer(), []

    def find():
        file = file_of(realm, quest_row(realm, number))
        folders.append(file.path.parent.name)
        if len(folders) == 1:
            queue.claim()
        return file

    try:
        assert len(quest_views.rows(realm, previewer, find)["preview"]["rows"]) == 1
    finally:
        previewer.close()
    assert folders == ["normal", "processing"]


# Jobs


def test_every_piece_of_work_is_listed_with_its_state_and_has_a_page_with_its_log(realm, client):
    ledger = fill(realm)
    with pytest.raises(ValueError), jobs.job(ledger, "export", "vault", "DIO-1 to /there"):
        raise ValueError("no room")
    with jobs.job(ledger, "backup", "vault", "DIO-1 to s3://away"):
        ledger.event("vault", "backup_made", "DIO-1 is backed up to s3://away.")
    left = jobs.begin(ledger, "preparation", "daemon", "gsm8k", 2)
    ledger.change("jobs", left, pid=2**22 - 1)  # its process is gone without a word
    ledger.add("evaluations", kind="validation", quest=2, step=7, value=1.5, created=time.time())
    found = client.get("/api/jobs").json()
    assert [(job["kind"], job["state"]) for job in found[:4]] == [
        ("preparation", "interrupted"),
        ("backup", "done"),
        ("export", "failed"),
        ("battle", "running"),
    ]
    assert [job["id"] for job in client.get("/api/jobs?state=failed").json()] == [found[2]["id"]]
    assert [job["kind"] for job in client.get("/api/jobs?state=left").json()] == ["preparation"]
    assert client.get("/api/jobs?kind=evaluation").json()[0]["validation_loss"] == 1.5
    one_by_one, before = [], ""
    while page := client.get(f"/api/jobs?limit=1{before}").json():
        one_by_one += page
        before = f"&before={page[0]['id']}"
    assert [job["id"] for job in one_by_one] == [job["id"] for job in found]
    log = client.get(f"/api/jobs/{found[1]['id']}").json()["events"]
    assert "DIO-1 is backed up to s3://away." in [event["text"] for event in log]
    for job in found:
        assert client.get(f"/jobs/{job['id']}").status_code == 200
    assert "no room" in client.get(f"/jobs/{found[2]['id']}").text
    for nothing in ("/jobs/battle-99", "/jobs/x", "/api/jobs/backup-1x", "/api/jobs?before=nope"):
        assert client.get(nothing).status_code == 404


# Speed


def test_with_ten_thousand_quests_in_the_ledger_no_page_takes_a_tenth_of_a_second(realm, client):
    ledger = fill(realm)
    with ledger.together():
        for number in range(10_000):
            state = ("recently_completed", "failed", "rejected", "queued")[number % 4]
            facts = {"stem": f"old{number}", "origin": "user", "priority": "normal", "sha256": str(number), "rows": 9}
            times = {"created": number, "updated": number, "failures": number % 2}
            quest = ledger.add("quests", state=state, **facts, **times)
            steps = {"start_step": 0, "total_steps": 1, "started": number, "finished": number + 1}
            ledger.add("battles", quest=quest, hero="DIO", school="scribe", state="done", **steps)
            ledger.add("jobs", kind="backup", service="vault", title="x", state="done", started=number, finished=number)
    ledger.event("trainer", "x", "y", quest=5)
    for path in (
        "/quests",
        "/quests/5",
        "/jobs",
        "/jobs?kind=battle&state=failed",
        "/jobs/battle-9",
        "/jobs?before=battle-5000",
    ):
        times = []
        for _ in range(4):
            began = time.process_time()
            assert client.get(path).status_code == 200
            times.append(time.process_time() - began)
        assert min(times) < 0.1, (path, times)
