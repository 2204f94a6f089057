"""The local Oracle's life, with the real supervisor, Tavern and server: started when asked, replaced when it dies, ended when idle."""

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from model_folders import write_model
from oracle_realm import hatched
from processes import free_port, until
from starlette.testclient import TestClient

from core.chat_request import read_request
from core.config import Config, Tavern
from core.durable import write_json
from core.forge.voices import Voices
from core.paths import CHECKOUT, RealmPaths
from core.status import service_states
from management.model_shelf import FolderShelf, VaultShelf
from monitoring.servers.oracle.app import Oracle, create_app
from monitoring.servers.tavern.app import create_app as create_tavern
from monitoring.servers.tavern.security import Rules
from training import ports

CHAT = "/v1/chat/completions"
SUPERVISOR = """
import sys
from pathlib import Path
from core.logs import start_logging
from core.paths import RealmPaths
from training.watchdog_process import services, supervise
paths = RealmPaths(Path(sys.argv[1]))
start_logging(paths, "watchdog")
port = int(sys.argv[2])
supervise(paths, port, kept=[one for one in services(paths, port) if one.name in ("tavern", "oracle")])
"""


def ask(port: int, path: str, body: dict | None = None) -> tuple[int, dict[str, str], dict]:
    """Status, headers and JSON of what a Tavern answers; it may take its time."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    given = json.dumps(body) if body is not None else None
    connection.request("POST" if given else "GET", path, given, {"content-type": "application/json"} if given else {})
    try:
        with connection.getresponse() as response:
            return response.status, dict(response.getheaders()), json.loads(response.read() or b"null")
    finally:
        connection.close()


def asking(text: str = "Hello", **more) -> dict:
    return {"messages": [{"role": "user", "content": text}], "max_tokens": 5, **more}


def oracle_row(paths: RealmPaths) -> dict:
    return next(service for service in service_states(paths) if service["name"] == "oracle")


def test_it_is_started_when_asked_replaced_when_it_dies_and_ended_with_the_realm(tmp_path):
    paths, (first, hero) = hatched(tmp_path / "realm", 2)
    port = free_port()
    write_json(paths.config, {"oracle": {"port": free_port(), "idle_minutes": 0.05}})
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(paths.root), str(port)], cwd=CHECKOUT)
    talk = partial(ask, port)
    try:
        until(lambda: ports.answers("127.0.0.1", port, "/healthz"))
        assert talk("/api/oracle")[2]["state"] == "off" and oracle_row(paths)["state"] == "off"
        assert {model["id"] for model in talk("/v1/models")[2]["data"]} == {"hero", "champion", first, hero}

        status, headers, answer = talk(CHAT, asking(model="hero"))
        assert status == 200 and answer["usage"]["completion_tokens"] == 5, answer
        assert headers["x-oracle-by"] == "local" and headers["x-oracle-checkpoint"] == hero
        assert talk(CHAT, asking(model=first))[1]["x-oracle-checkpoint"] == first
        assert talk(CHAT, asking(model="../../etc"))[0] == talk(CHAT, asking(model=str(paths.vault / hero)))[0] == 404
        life = until(lambda: (row := oracle_row(paths))["state"] == "running" and row)
        process = psutil.Process(life["pid"])
        assert process.nice() >= 10 and Path(f"/proc/{process.pid}/oom_score_adj").read_text().strip() == "900"
        assert {connection.laddr.ip for connection in process.net_connections() if connection.status == "LISTEN"} == {
            "127.0.0.1"
        }

        os.kill(life["pid"], signal.SIGKILL)
        assert talk(CHAT, asking())[0] == 200
        until(
            lambda: (
                (row := oracle_row(paths))["state"] == "running" and row["pid"] != life["pid"] and row["restarts"] == 1
            )
        )

        until(lambda: oracle_row(paths)["state"] == "off")  # nobody asks for three seconds
        assert talk("/api/oracle/wake", {})[0] == 202
        until(lambda: oracle_row(paths)["state"] == "running")
        living = psutil.Process(supervisor.pid).children(recursive=True)
        assert len(living) == 2
    finally:
        supervisor.terminate()
        assert supervisor.wait(20) == 0
    assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in living)
    assert oracle_row(paths)["pid"] is None


def test_without_a_supervisor_it_is_said_what_to_do(tmp_path):
    paths, _ = hatched(tmp_path / "realm")
    with TestClient(create_tavern(paths, Config()), base_url="http://127.0.0.1:8888") as client:
        answer = client.post(CHAT, json=asking())
        assert answer.status_code == 503 and "start-all" in answer.json()["error"]["text"]
        assert client.post("/api/oracle/wake").status_code == 503
    assert not paths.oracle_wish.exists()


# The server itself, in this process


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    return hatched(tmp_path_factory.mktemp("vault") / "realm", 2)


def client_of(shelf) -> TestClient:
    rules = Rules.of(Tavern(), "t" * 43, frozenset())
    return TestClient(create_app(shelf, Voices(2.0), rules), base_url="http://127.0.0.1:8765")


@pytest.fixture
def client(vault):
    with client_of(VaultShelf(vault[0])) as client:
        yield client


def test_a_stream_has_openais_form(client):
    ask = asking(stream=True, stream_options={"include_usage": True}, temperature=0)
    with client.stream("POST", CHAT, json=ask) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        *events, done, _ = answer.read().decode().split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[-2]["choices"][0]["finish_reason"] == "length" and chunks[-1]["usage"]["completion_tokens"] == 5
    assert len({chunk["id"] for chunk in chunks}) == 1
    told = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks[:-1])
    assert told == client.post(CHAT, json=asking(temperature=0)).json()["choices"][0]["message"]["content"]


def test_two_who_ask_at_once_are_answered_side_by_side(vault):
    paths, names = vault
    oracle, order = Oracle(VaultShelf(paths), Voices(2.0)), []

    async def listen(name: str) -> None:
        async for _ in oracle.parts(read_request(asking(model=name, max_tokens=60)), {}):
            order.append(name)

    async def both() -> None:
        await asyncio.gather(*map(listen, names))

    asyncio.run(both())
    assert sum(one != other for one, other in pairwise(order)) > 40, order


def test_a_checkpoint_that_was_altered_does_not_speak(tmp_path):
    paths, (hero,) = hatched(tmp_path / "realm")
    weights = paths.vault / hero / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with client_of(VaultShelf(paths)) as client:
        answer = client.post(CHAT, json=asking())
        assert answer.status_code == 409 and "was altered" in answer.json()["error"]["text"]


def test_a_folder_answers_by_its_name_and_a_strangers_code_never(tmp_path):
    folder = write_model(tmp_path / "My-Model")
    with client_of(FolderShelf(folder)) as client:
        assert [model["id"] for model in client.get("/v1/models").json()["data"]] == ["hero", "My-Model"]
        assert client.post(CHAT, json=asking(model="My-Model")).status_code == 200
        assert client.post(CHAT, json=asking(model="champion")).status_code == 404
    (folder / "modeling.py").write_text("raise SystemExit")
    with client_of(FolderShelf(folder)) as client:
        answer = client.post(CHAT, json=asking())
        assert answer.status_code == 400 and "program" in answer.json()["error"]["text"]


def test_its_door_is_the_taverns(client):
    for headers in ({"host": "evil.example"}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        assert client.post(CHAT, json=asking(), headers=headers).status_code in (400, 403)
    assert client.post(CHAT, json=asking(), headers={"authorization": "Bearer anything"}).status_code == 200
    evil = {"authorization": "Bearer anything", "origin": "http://evil.example"}
    assert client.post(CHAT, json=asking(), headers=evil).status_code == 403


def test_the_word_of_a_dead_oracle_is_not_believed(tmp_path):
    paths, _ = hatched(tmp_path / "realm")
    write_json(paths.oracle_place, {"pid": 1, "started": 12.0, "port": 9})
    with TestClient(create_tavern(paths, Config()), base_url="http://127.0.0.1:8888") as client:
        assert client.get("/api/oracle").json()["local"]["pid"] is None
        assert client.post(CHAT, json=asking()).status_code == 503
    assert oracle_row(paths)["state"] == "off"
