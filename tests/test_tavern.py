"""The Tavern by its pages, its API and its door; over HTTP in this process, and over a real server where it matters."""

import json
import random
import re
import socket
import subprocess
import sys
import time

import anyio
import pytest
from tavern_realm import HOSTILE, empty_realm, fill
from tavern_server import OURS, PAGE, ROUTES, Stream, client_of, tavern

from core import control
from core.config import Config
from core.ledger import Ledger
from core.paths import CHECKOUT
from monitoring.servers.tavern.charts import _ticks
from monitoring.servers.tavern.events import QUEUE_BATCHES, Client, Hub
from monitoring.servers.tavern.pages import PAGES
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.sigil import layers_of, sigil
from monitoring.servers.tavern.uploads import plain_stem
from monitoring.servers.tavern.words import ago, compact, duration, precise, size, tiny


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    paths = empty_realm(tmp_path_factory.mktemp("full"))
    fill(paths, hostile=HOSTILE).close()
    return paths


@pytest.fixture
def empty(tmp_path):
    return empty_realm(tmp_path)


# Pages and API


@pytest.mark.parametrize(
    "path", [*(page.path for page in PAGES), "/live?range=200", "/live?range=all", "/live?range=x", "/jobs?before=2"]
)
@pytest.mark.parametrize("realm", ["empty", "full"])
def test_every_page_answers(realm, path, request):
    with client_of(request.getfixturevalue(realm)) as client:
        answer = client.get(path, headers=PAGE)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    assert "<h1" in answer.text and 'aria-current="page"' in answer.text


@pytest.mark.parametrize("realm", ["empty", "full"])
def test_every_part_and_every_reading_of_the_api_answers(realm, request):
    with client_of(request.getfixturevalue(realm)) as client:
        for method, path in ROUTES:
            named = ("/api/events", "/api/quests/", "/api/oracle/weights/", "/sigil", "/fav", "/static", "/vault/",
                     "/quests/", "/jobs/", "/api/jobs/")  # fmt: skip
            if method == "GET" and not path.startswith(named):
                answer = client.get(path)
                asleep = path == "/readyz" and realm == "empty"
                assert answer.status_code == (503 if asleep else 200), (path, answer.text)
                if path.startswith("/api/"):
                    json.loads(answer.content)


def test_the_api_tells_what_the_realm_holds(full):
    with client_of(full) as client:
        status, quests = client.get("/api/status").json(), client.get("/api/quests?limit=1000").json()
        assert status["battle"]["quest"] == "house_style_answers_2026-11" and status["state"] == "battle"
        assert set(status) >= {"hero", "battle", "queue", "services", "disk", "gpus", "alerts"}
        assert client.get("/api/hero").json()["level"] == 3
        assert len(quests) == 13 and {"stem", "state", "priority", "rows"} <= set(quests[0])
        vault = client.get("/api/vault").json()
        promised = {"id", "step", "state", "parent", "quest", "verified", "champion", "pinned", "bytes", "created"}
        assert promised <= set(vault[0])
        assert vault[0]["verified"] and vault[0]["pointers"] == ["tip"]
        jobs = client.get("/api/jobs").json()
        assert jobs[0]["live"] and [job["state"] for job in jobs] == ["running", "done", "done", "done"]
        rejected = next(quest for quest in quests if quest["stem"] == "chat_export_broken")
        assert client.get(f"/api/quests/{rejected['id']}").json()["report"]["errors"][0]["line"] == 3
        curves = client.get("/api/metrics?buckets=50&first=100&last=1099").json()
        assert (curves["first"][0], curves["last"][-1], len(curves["first"])) == (100, 1099, 50)


def test_the_heros_answers_are_shown_beside_the_expected_ones(full, empty):
    with client_of(full) as client:
        looks = client.get("/api/previews?limit=1").json()
        assert [len(look["answers"]) for look in looks] == [3] and looks[0]["answers"][0]["score"] == 1.0
        assert client.get("/api/previews?quest=1").json() == []
        for path in ("/", "/live"):
            shown = re.search(r'<section class="card previews".*?</section>', client.get(path).text, re.DOTALL)[0]
            assert "Yes, within 30 days." in shown and "house_style_answers" in shown and "&lt;img src=x" in shown
    with client_of(empty) as client:
        assert re.search(r'<section class="card previews"[^>]* hidden>', client.get("/").text)


def test_the_rolls_of_a_battle_are_shown_in_colour_and_in_words(full, empty):
    with client_of(full) as client:
        part, said = client.get("/parts/dice").text, " ".join(client.get("/parts/dice").text.split())
        assert part.count("<li") == 5 and '<li class="critical-failure">' in part
        assert "<b>20</b> <small>critical success</small>" in said
        assert "12 of 40 hit points" in said and "Gradient Ooze of level 2 appears" in said
    with client_of(empty) as client:
        assert "hidden" in client.get("/parts/dice").text and "<li" not in client.get("/parts/dice").text


def test_a_rejected_file_shows_its_lines(full):
    with client_of(full) as client:
        board = client.get("/quests").text
    assert "line 3" in board and "unknown role &#39;bot&#39;" in board
    assert "5 more in queue/rejected/chat_export_broken" in board


def test_a_damaged_checkpoint_is_not_called_verified(empty):
    fill(empty)
    newest = max(path for path in empty.vault.glob("DIO-*"))
    weights = (newest / "model.safetensors").read_bytes()
    with client_of(empty) as client:
        for damage in (b"short", weights[:-1] + b"x"):
            (newest / "model.safetensors").write_bytes(damage)
            assert [row["verified"] for row in client.get("/api/vault").json()][:2] == [False, True]
        assert "damaged" in client.get("/vault").text


def test_a_sleeping_realm_says_what_to_do(empty):
    with client_of(empty) as client:
        home = client.get("/").text
    assert "The realm is asleep" in home and "scripts/start.sh" in home and "No battle yet" in home


def test_a_broken_ledger_is_told_without_a_trace(empty):
    empty.ledger.parent.mkdir(exist_ok=True)
    empty.ledger.write_bytes(b"this is no database " * 100)
    with client_of(empty) as client:
        broken = client.get("/", headers=PAGE)
    assert broken.status_code == 500 and "Traceback" not in broken.text and "sqlite" not in broken.text.lower()
    assert broken.headers["content-security-policy"]


def test_problems_are_json_for_programs_and_pages_for_people(empty):
    with client_of(empty) as client:
        for path, status in (
            ("/api/nope", 404),
            ("/api/metrics?buckets=1", 422),
            ("/api/quests/99", 404),
            ("/api/control/pause", 405),
            ("/api/quests/99999999999999999999999", 404),
            ("/api/metrics?quest=99999999999999999999", 422),
        ):
            answer = client.get(path, headers=PAGE)
            assert answer.status_code == status and set(answer.json()["error"]) == {"code", "text"}, (path, answer.text)
        page = client.get("/nope", headers=PAGE)
        assert page.status_code == 404 and "Back to the Tavern" in page.text
        assert client.post("/api/control/dance", headers=OURS).json()["error"]["code"] == "unknown_verb"


def test_the_home_page_is_light(full):
    with client_of(full) as client:
        home = client.get("/").text
        weight = len(home.encode())
        for address in set(re.findall(r'(?:src|href)="(/static/[^"]+)"', home)):
            weight += len(client.get(address).content)
    assert weight < 300_000, weight
    assert "http://" not in home and "https://" not in home


def test_no_page_carries_inline_script_or_style(full):
    with client_of(full) as client:
        for page in PAGES:
            text = re.sub(r"&lt;.*?&gt;", "", client.get(page.path).text)
            assert not re.search(r"<style|\sstyle=|<script(?![^>]*\ssrc=)|\son\w+=(?!&)", text), page.path


def test_hostile_texts_are_inert_in_every_page_and_part(full):
    with client_of(full) as client:
        for address in [page.path for page in PAGES] + ["/parts/log", "/parts/board", "/parts/alerts"]:
            text = client.get(address).text
            assert "<img src=x" not in text and 'onclick="alert' not in text, address
        assert "&lt;img src=x" in client.get("/quests").text


# Uploads


def test_an_upload_lands_in_the_inbox_byte_for_byte(empty):
    data = random.Random(1).randbytes(3_000_001) + b"\n"
    with client_of(empty) as client:
        answer = client.post("/api/quests?name=../../etc/my%20rows.JSONL&priority=high", content=data, headers=OURS)
        taken = {"name": "my_rows.jsonl", "priority": "high", "bytes": len(data)}
        assert answer.status_code == 201 and answer.json() == {"accepted": [taken]}
        files = [("file", ("a.jsonl", data)), ("file", ("b.jsonl", b"{}\n"))]
        form = client.post("/quests", data={"priority": "low"}, files=files, headers=OURS)
        assert form.status_code == 303 and form.headers["location"] == "/quests?dropped=2"
    assert (empty.inbox / "high" / "my_rows.jsonl").read_bytes() == data
    assert (empty.inbox / "low" / "a.jsonl").read_bytes() == data
    assert (empty.inbox / "low" / "b.jsonl").read_bytes() == b"{}\n"


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.jsonl", "a"),
        ("C:\\data\\a b.jsonl", "a_b"),
        ("../../../etc/passwd.jsonl", "passwd"),
        (".hidden.jsonl", "hidden"),
        ("….jsonl", "quest"),
        ("a.bad.jsonl", "a_bad"),
        ("ü<script>.jsonl", "script"),
        ("a\0b\n.jsonl", "a_b"),
        ("x" * 300 + ".jsonl", "x" * 100),
        ("-rf.jsonl", "rf"),
    ],
)
def test_only_a_plain_stem_is_left_of_a_name(name, stem):
    assert plain_stem(name) == stem


@pytest.mark.parametrize(
    ("query", "body", "status", "code"),
    [
        ("?name=a.json", b"[]", 415, "json_array"),
        ("?name=a.exe", b"x", 415, "not_jsonl"),
        ("?name=jsonl", b"x", 415, "not_jsonl"),
        ("", b"x", 400, "no_name"),
        ("?name=a.jsonl", b"", 400, "empty"),
        ("?name=a.jsonl&priority=urgent", b"x", 400, "wrong_request"),
        ("?name=a.jsonl", b"x" * 5001, 413, "too_large"),
    ],
)
def test_what_is_no_quest_is_refused_with_a_reason(empty, query, body, status, code):
    with client_of(empty, upload_bytes=5000) as client:
        for content in (body, iter([body])):  # with and without Content-Length
            answer = client.post(f"/api/quests{query}", content=content, headers=OURS)
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert [path for path in empty.inbox.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--x",
        b"nonsense" * 50,
        b"--x\r\nContent-Disposition: form-data; name=file; filename=a.jsonl\r\n\r\n{}",
        b"--x\r\nContent-Disposition: form-data; name=priority\r\n\r\nlow\r\n--x--\r\n",
    ],
)
def test_a_broken_form_leaves_nothing_behind(empty, body):
    with client_of(empty) as client:
        headers = OURS | {"content-type": "multipart/form-data; boundary=x"}
        answer = client.post("/api/quests", content=body, headers=headers)
    assert answer.status_code == 400 and answer.json()["error"]["text"]
    assert [path for path in empty.inbox.rglob("*") if path.is_file()] == []


def test_other_bodies_are_small(empty):
    with client_of(empty) as client:
        assert client.post("/api/control/pause", content=b"x" * (1 << 20 | 1), headers=OURS).status_code == 413


# Wishes


def test_buttons_and_api_write_wishes(empty):
    with client_of(empty) as client:
        assert client.post("/api/control/pause", headers=OURS).status_code == 202
        assert client.get("/api/status").json()["paused"]
        button = client.post("/control/resume", headers=OURS)
        assert button.status_code == 303 and button.headers["location"] == "/"
        client.post("/api/control/skip", headers=OURS)
    assert [wish["verb"] for wish in control.waiting(Ledger(empty.ledger))] == ["pause", "resume", "skip"]


def test_stop_ends_the_supervisor_and_only_that(empty):
    with client_of(empty) as client:
        assert client.post("/api/control/stop", headers=OURS).status_code == 409
        with subprocess.Popen(["sleep", "60"]) as supervisor:
            fill(empty, watchdog=supervisor.pid)
            assert client.post("/api/control/stop", headers=OURS).json() == {"verb": "stop", "pid": supervisor.pid}
            assert supervisor.wait(5) == -15


# Words and pictures


def test_numbers_are_written_for_people():
    assert [*map(compact, (596_049_920, 12_345, 9762.4, 0, None))] == ["596 M", "12.3 k", "9,762", "0", "–"]
    assert [size(999), size(1_234_567), size(83_600_000_000)] == ["999 B", "1.2 MB", "83.6 GB"]
    assert [*map(duration, (8040, 59.6, 0.2, 86400 * 3))] == ["2 h 14 min", "1 min", "< 1 s", "3 d"]
    assert [tiny(9.8e-4), tiny(0), precise(float("nan")), precise(2.34567)] == ["9.80e-4", "0", "nan", "2.3457"]
    assert [ago(time.time() - 7200), ago(time.time()), ago(None)] == ["2 h ago", "just now", "–"]


def test_axes_are_round_and_hold_all_values():
    for low, high in ((0.2, 0.3), (1.34, 6.6), (0, 9800), (5, 5), (0, 0), (1e-6, 1e-3), (-3, 4)):
        bottom, top, rows = _ticks(low, high)
        assert bottom <= low <= high <= top and 1 <= rows <= 8


def test_a_portrait_is_its_checkpoints_own_and_grows():
    assert sigil("DIO-1", 3) == sigil("DIO-1", 3) != sigil("DIO-2", 3)
    assert [layers_of(level) for level in (1, 2, 4, 64, 10_000)] == [1, 2, 3, 7, 9]
    assert len(sigil("DIO-1", 40)) > len(sigil("DIO-1", 1))
    assert "<" not in re.sub(r"</?(g|path|circle)\b[^<>]*>", "", sigil(HOSTILE, 9))


# A real server


def test_the_process_imports_no_heavy_library():
    code = (
        "import sys, training.tavern_process\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'tokenizers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_stream_replays_what_was_missed_and_goes_on(empty):
    ledger = Ledger(empty.ledger)
    ledger.connection.execute("BEGIN")
    ids = [ledger.event("daemon", "tick", f"event {place}\nwith a second line") for place in range(700)]
    ledger.connection.execute("COMMIT")
    with tavern(empty.root) as server:
        replay = Stream(server, Last_Event_ID=str(ids[9]))
        assert [int(replay.next("event")["id"]) for _ in range(690)] == ids[10:]
        begun = Stream(server)
        assert begun.next("status")["data"]["state"] == "stopped" and "text" in begun.next("now")["data"]
        fresh = ledger.event("daemon", "tick", HOSTILE)
        for stream in (replay, begun):
            told = stream.next("event")
            assert int(told["id"]) == fresh and told["data"]["text"] == HOSTILE
        again = Stream(server, f"?after={ids[-1]}")
        assert int(again.next("event")["id"]) == fresh
        for stream in (replay, begun, again):
            stream.close()


def test_a_client_that_takes_nothing_is_dropped_and_keeps_no_memory(empty):
    async def flood():
        hub, client = Hub(Realm(empty, Config())), Client()
        await hub.join(client)
        for _ in range(QUEUE_BATCHES - 1):
            hub._publish([(None, b"message")])
        assert client in hub.clients
        hub._publish([(None, b"one too many")])
        assert client not in hub.clients and client.scope.cancel_called

    anyio.run(flood)


def test_a_stalled_client_does_not_hold_up_the_others(empty):
    ledger = Ledger(empty.ledger)
    with tavern(empty.root) as server:
        stalled = socket.create_connection(("127.0.0.1", server.port))
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.sendall(f"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n\r\n".encode())
        listening = Stream(server)
        listening.next("status")
        ledger.connection.execute("BEGIN")
        for _ in range(400):
            ledger.event("daemon", "flood", "x" * 20_000)
        ledger.connection.execute("COMMIT")
        last = ledger.event("daemon", "flood", "the last")
        while int(listening.next("event")["id"]) < last:
            pass
        listening.close()
        stalled.close()
        assert server.stop() < 5


def test_sigterm_ends_within_five_seconds_with_open_streams(full):
    with tavern(full.root) as server:
        streams = [Stream(server) for _ in range(20)]
        for stream in streams:
            stream.next("status")
        assert (full.heartbeats / "tavern").exists()
        assert server.stop() < 5
        assert server.process.returncode == 0
        for stream in streams:
            stream.close()


def test_a_taken_port_is_named(empty):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "training.tavern_process",
                "--root",
                str(empty.root),
                "--port",
                str(taken.getsockname()[1]),
            ],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 1 and "--port" in done.stderr and "Traceback" not in done.stderr


def test_checkpoints_are_pinned_verified_and_wished_for_and_a_failed_export_is_told(empty):
    fill(empty).close()
    tip = empty.tip.readlink().name
    with client_of(empty) as client:

        def act(verb, checkpoint=tip):
            found = client.post(f"/api/vault/{checkpoint}/{verb}", headers=OURS)
            return found.status_code, found.json()

        def row():
            return next(row for row in client.get("/api/vault").json() if row["id"] == tip)

        assert act("pin") == (200, {"verb": "pin", "checkpoint": tip, "pinned": True}) and row()["pinned"]
        assert act("unpin")[1]["pinned"] is False and not row()["pinned"]
        assert act("verify", "tip")[1]["verified"] is True
        wishes = [act("promote")[1]["wish"], act("rollback")[1]["wish"]]
        ledger = Ledger(empty.ledger)
        assert [(wish["id"], wish["verb"], wish["argument"]) for wish in control.waiting(ledger)] == [
            (wishes[0], "promote", tip),
            (wishes[1], "rollback", tip),
        ]
        assert (
            act("pn")[0] == act("pin", "DIO-none")[0] == 404 and "did you mean 'pin'" in act("pn")[1]["error"]["text"]
        )
        (empty.vault / tip / "model.safetensors").write_bytes(b"broken")
        assert act("verify")[1]["verified"] is False
        status, told = act("export")
        assert status == 202 and told["folder"].endswith(f"exports/{tip}") and act("export")[0] == 409
        deadline = time.monotonic() + 20
        while not ledger.events_of("export_failed") and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "model.safetensors has 6 bytes" in ledger.events_of("export_failed")[0]["text"]
        ledger.close()
