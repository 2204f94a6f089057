"""Alerts on their way out: to a real server that works, is down, is slow, fails or sends elsewhere; each once."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from processes import until

from core.alert_config import Alerts
from core.config import check_config
from core.durable import write_json
from core.errors import UserError
from core.paths import CHECKOUT
from core.status import alerts as shown_alerts
from monitoring.alert_targets import Unsent, targets
from monitoring.alerts import trial
from monitoring.herald import Herald

SECRET = "s3cr3t-in-the-path"


class Box(ThreadingHTTPServer):
    """Keeps what is posted to it; `status` is its answer, `pause` the seconds it takes."""

    daemon_threads = True

    def __init__(self, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.got, self.status, self.pause = [], 200, 0.0
        self.url = f"http://127.0.0.1:{self.server_port}/{SECRET}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self):
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        box = self.server
        time.sleep(box.pause)
        if box.status == 200:
            box.got.append(body | {"path": self.path, "authorization": self.headers["authorization"]})
        self.send_response(box.status)
        if 300 <= box.status < 400:
            self.send_header("location", f"{box.url}/elsewhere")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.fixture
def box():
    box = Box()
    yield box
    box.close()


def herald_of(realm, ledger, **policy):
    return Herald(realm, Alerts(**policy), "DIO", ledger, backoff=(0.05, 0.2))


def turns(herald, until, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not happen in time"
        herald.turn(time.monotonic())
        time.sleep(0.01)


def quest(ledger, origin="user"):
    now = time.time()
    return ledger.add("quests", stem="rows", origin=origin, state="done", priority="low", created=now, updated=now)


def tell_everything(realm, ledger):
    ledger.event("trainer", "quest_done", "rows is trained.", quest=quest(ledger))
    ledger.event("trainer", "quest_done", "binary is trained.", quest=quest(ledger, "skill"))
    ledger.event("trainer", "quest_failed", "rows waits behind the others.", "warning")
    ledger.event("trainer", "quest_failed", "rows is given up.", "alert")
    ledger.event("watchdog", "service_failed", "trainer died again and again.", "alert")
    ledger.event("daemon", "disk_low", "91 % is in use.", "alert")
    ledger.event("daemon", "greeting", "Nobody's news.")
    write_json(realm.status, {"hero": {"global_step": 3000}})


def test_each_kind_is_told_once_and_in_order(realm, ledger, box):
    ledger.event("trainer", "quest_failed", "before anybody listened", "alert")
    herald = herald_of(realm, ledger, webhook=box.url)
    tell_everything(realm, ledger)
    turns(herald, lambda: len(box.got) == 5)
    for _ in range(20):
        herald.turn(time.monotonic())
        time.sleep(0.01)
    assert [told["kind"] for told in box.got] == ["done", "failed", "blocked", "disk", "level_up"]
    assert box.got[0]["text"] == "rows is trained." and box.got[0]["title"] == "DIO: Quest done"
    assert "level 4" in box.got[4]["text"] and box.got[1]["level"] == "alert"
    assert [told["id"] for told in box.got[:4]] == sorted({told["id"] for told in box.got[:4]})


def test_only_what_is_wanted_is_told(realm, ledger, box):
    herald = herald_of(realm, ledger, webhook=box.url, on=["blocked", "level_up"])
    tell_everything(realm, ledger)
    turns(herald, lambda: len(box.got) == 2)
    assert [told["kind"] for told in box.got] == ["blocked", "level_up"]


@pytest.mark.parametrize("trouble", ["down", "500", "redirect"])
def test_what_does_not_arrive_is_kept_tried_again_and_shown_until_it_arrives(realm, ledger, box, trouble, caplog):
    herald = herald_of(realm, ledger, webhook=box.url)
    port = box.server_port
    if trouble == "down":
        box.close()
    box.status = {"500": 500, "redirect": 307}.get(trouble, 200)
    tell_everything(realm, ledger)
    turns(herald, lambda: ledger.events_of("alerts_unsent"))
    why = {"down": "Connection refused", "500": "HTTP 500", "redirect": "HTTP 307, a redirect, which is not followed"}
    told = ledger.events_of("alerts_unsent")
    assert len(told) == 1 and why[trouble] in told[0]["text"] and f"127.0.0.1:{port}" in told[0]["text"]
    assert "alerts_unsent" in [alert["code"] for alert in shown_alerts(ledger)] and box.got == []
    works = Box(port) if trouble == "down" else box
    works.status = 200
    turns(herald, lambda: len(works.got) == 5)
    turns(herald, lambda: ledger.events_of("alerts_sent"))
    assert "alerts_unsent" not in [alert["code"] for alert in shown_alerts(ledger)]
    assert SECRET not in caplog.text and not any(SECRET in row["text"] + str(row["data"]) for row in ledger.events())
    if trouble == "down":
        works.close()
        box._thread = threading.Thread(target=lambda: None)
        box._thread.start()
        box.shutdown = lambda: None


def test_a_slow_target_keeps_neither_the_herald_nor_another_target_waiting(realm, ledger, box):
    quick = Box()
    box.pause = 1.0
    herald = herald_of(realm, ledger, webhook=box.url, ntfy=quick.url)
    tell_everything(realm, ledger)
    longest = 0.0
    deadline = time.monotonic() + 3
    while len(quick.got) < 5 and time.monotonic() < deadline:
        began = time.monotonic()
        herald.turn(began)
        longest = max(longest, time.monotonic() - began)
        time.sleep(0.01)
    assert len(quick.got) == 5 and len(box.got) <= 1 and longest < 0.5
    assert quick.got[0]["topic"] == SECRET and quick.got[0]["path"] == "/" and quick.got[1]["priority"] == 5
    quick.close()


def test_a_restart_tells_nothing_twice_and_forgets_nothing(realm, ledger, box):
    herald = herald_of(realm, ledger, webhook=box.url)
    tell_everything(realm, ledger)
    turns(herald, lambda: len(box.got) == 5)
    turns(herald, lambda: ledger.mark(targets(Alerts(webhook=box.url))[0].key)["level"] == 4)
    ledger.event("trainer", "quest_failed", "while nobody looked", "alert")
    again = herald_of(realm, ledger, webhook=box.url)
    turns(again, lambda: len(box.got) == 6)
    assert box.got[5]["text"] == "while nobody looked"


def test_a_flood_comes_as_one(realm, ledger, box):
    herald = herald_of(realm, ledger, webhook=box.url, per_hour=3)
    for place in range(40):
        ledger.event("trainer", "quest_failed", f"quest {place} is given up.", "alert")
    turns(herald, lambda: len(box.got) == 3)
    assert [told["code"] for told in box.got] == ["quest_failed", "quest_failed", "many"]
    assert "38 × Something failed" in box.got[2]["text"] and "quest 39 is given up." in box.got[2]["text"]
    ledger.event("trainer", "quest_failed", "one more", "alert")
    for _ in range(10):
        herald.turn(time.monotonic())
        time.sleep(0.01)
    assert len(box.got) == 3
    turns_an_hour_later(herald, box)
    assert box.got[3]["text"] == "one more"


def turns_an_hour_later(herald, box):
    for _ in range(200):
        herald.turn(time.monotonic() + 3601)
        time.sleep(0.01)
        if len(box.got) == 4:
            return


def test_secrets_in_addresses_are_shown_nowhere(realm, box):
    address = f"http://user:{SECRET}@127.0.0.1:{box.server_port}/hook"
    target = targets(Alerts(webhook=address))[0]
    assert SECRET not in target.name + target.key
    target.send(trial("DIO"))
    assert box.got[0]["authorization"].startswith("Basic ") and box.got[0]["path"] == "/hook"
    for wrong in (
        {"webhook": f"ftp://{SECRET}"},
        {"ntfy": f"https://ntfy.sh/{SECRET}/x"},
        {"apprise": [f"{SECRET} x"]},
        {"apprise": SECRET},
    ):
        with pytest.raises(UserError) as problem:
            check_config({"alerts": wrong})
        assert SECRET not in str(problem.value) and "alerts." in str(problem.value)
    with pytest.raises(Unsent) as unsent:
        targets(Alerts(webhook=f"http://127.0.0.1:99999/{SECRET}"))[0].send(trial("DIO"))
    assert SECRET not in str(unsent.value)


@pytest.mark.filterwarnings("ignore:'imghdr'")
def test_apprise_takes_what_it_knows_and_is_missed_where_it_is_not_there(box):
    url = f"json://127.0.0.1:{box.server_port}/{SECRET}"
    target = targets(Alerts(apprise=[url]))[0]
    try:
        import apprise  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(Unsent, match=r"requirements-alerts.txt"):
            target.send(trial("DIO"))
        return
    target.send(trial("DIO"))
    assert box.got[0]["message"].startswith("This is a test") and box.got[0]["path"] == f"/{SECRET}"
    box.status = 500
    with pytest.raises(Unsent, match="could not deliver"):
        target.send(trial("DIO"))
    with pytest.raises(Unsent, match="does not understand"):
        targets(Alerts(apprise=["nonsense://x"]))[0].send(trial("DIO"))


def test_the_herald_is_a_process_of_its_own_that_survives_being_killed(realm, ledger, box):
    realm.config.write_text(json.dumps({"alerts": {"webhook": box.url, "ntfy": "http://127.0.0.1:9/topic"}}))
    command = [sys.executable, "-m", "training.herald_process", "--root", str(realm.root), "--parent", str(os.getpid())]
    key = targets(Alerts(webhook=box.url))[0].key

    def live(end, code, told_before):
        process = subprocess.Popen(command, cwd=CHECKOUT)
        try:
            until(lambda: ledger.mark(key) is not None and len(box.got) == told_before)
            newest = ledger.event("trainer", "quest_failed", f"until {end.name}", "alert")
            until(lambda: ledger.mark(key)["event"] >= newest)
            process.send_signal(end)
            assert process.wait(5) == code
        finally:
            process.kill()
            process.wait()

    live(signal.SIGKILL, -9, 0)
    ledger.event("trainer", "quest_failed", "meanwhile", "alert")
    live(signal.SIGTERM, 0, 2)
    assert [told["text"] for told in box.got] == ["until SIGKILL", "meanwhile", "until SIGTERM"]
    assert SECRET not in "".join(path.read_text() for path in realm.logs.iterdir())


def test_doctor_sends_a_test_and_says_what_became_of_it(realm, box):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{closed.getsockname()[1]}/{SECRET}"
        realm.config.write_text(json.dumps({"alerts": {"webhook": box.url, "ntfy": down}}))
        command = [sys.executable, "-m", "training", "--root", str(realm.root), "doctor", "--alert", "--json"]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    found = [finding for finding in json.loads(done.stdout) if finding["code"] == "alerts"]
    assert done.returncode == 1 and [finding["level"] for finding in found] == ["ok", "error"]
    assert box.got[0]["code"] == "test" and SECRET not in done.stdout + done.stderr
