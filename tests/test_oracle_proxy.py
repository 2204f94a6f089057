"""The Tavern passes chat on to a box that it trusts in nothing: seen at real sockets, from both sides."""

import json
import time

import pytest
from hostile_box import Box
from starlette.testclient import TestClient
from tavern_realm import empty_realm, fill
from tavern_server import tavern

from core.checkpoints import pointed
from core.config import check_config
from core.durable import write_json
from core.errors import UserError
from core.oracle_config import check_url
from core.upstream import refusal
from monitoring import oracle as oracle_module
from monitoring.servers.tavern.app import create_app
from monitoring.servers.tavern.security import read_or_make_token

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def box():
    box = Box()
    yield box
    box.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory, box):
    """A Tavern whose box is `box`; an answer may take three seconds in all."""
    paths = empty_realm(tmp_path_factory.mktemp("realm"))
    write_json(paths.config, {"oracle": {"url": f"http://127.0.0.1:{box.port}/v1/", "seconds": 3.0}})
    with tavern(paths.root) as server:
        server.root = paths.root
        yield server


def ask(server, how: str, stream: bool = True, headers: dict | None = None, model: str = "hero"):
    """The open connection and its response."""
    connection = server.connect()
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": how}], "stream": stream})
    connection.request("POST", CHAT, body, {"content-type": "application/json", **(headers or {})})
    return connection, connection.getresponse()


def said(server, how: str, stream: bool = True, **more) -> tuple[int, str]:
    connection, response = ask(server, how, stream, **more)
    try:
        return response.status, response.read().decode()
    finally:
        connection.close()


def get(server, path: str) -> dict:
    connection = server.connect()
    connection.request("GET", path)
    try:
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def well(server) -> bool:
    return get(server, "/healthz") == {"ok": True} and said(server, "answer")[1].endswith("[DONE]\n\n")


def test_a_stream_is_passed_on_unchanged_and_tells_who_speaks(server, box):
    connection, response = ask(server, "answer")
    text = response.read().decode()
    assert [json.loads(line[6:])["choices"][0]["delta"]["content"] for line in text.split("\n\n")[:3]] == [
        "one",
        " two",
        " three",
    ]
    assert text.endswith("data: [DONE]\n\n")
    assert response.getheader("content-type").startswith("text/event-stream")
    assert response.getheader("x-oracle-by") == "remote" and response.getheader("x-oracle-model") == "some-model"
    assert "'some-model', which does not say what checkpoint it is" in response.getheader("x-oracle-notice")
    assert response.getheader("set-cookie") is None
    assert box.seen[-1]["body"]["model"] == "some-model"
    whole = json.loads(said(server, "answer", stream=False)[1])
    assert whole["choices"][0]["message"]["content"] == "well"
    connection.close()


def test_nothing_of_the_visitor_reaches_the_box(server, box):
    token = read_or_make_token(empty_realm(server.root))
    private = {
        "authorization": f"Bearer {token}",
        "cookie": "realm=secret",
        "x-forwarded-for": "1.2.3.4",
        "x-own": "mine",
    }
    assert said(server, "answer", headers=private)[0] == 200
    raw = box.seen[-1]["raw"].lower()
    assert token.lower() not in raw and not {"authorization", "cookie", "x-forwarded-for", "x-own"} & set(
        box.seen[-1]["headers"]
    )


@pytest.mark.alone
def test_the_first_word_comes_at_once(server, box):
    late = []
    for _ in range(7):
        connection, response = ask(server, "answer")
        response.readline()
        late.append(time.monotonic() - box.wrote[-1] if len(box.wrote) % 3 == 1 else 0.0)
        response.read()
        connection.close()
    assert sorted(late)[3] <= 0.1, late


@pytest.mark.parametrize("how", ["never_ends", "says_nothing"])
def test_whoever_leaves_is_not_answered_any_further(server, box, how):
    box.gone.clear()
    connection = server.connect()
    body = json.dumps({"messages": [{"role": "user", "content": how}], "stream": True})
    connection.request("POST", CHAT, body, {"content-type": "application/json"})
    if how == "never_ends":
        with connection.getresponse() as response:
            assert response.readline().startswith(b"data: ")
    else:
        time.sleep(0.3)
        assert not box.gone.is_set()
    connection.close()
    began = time.monotonic()
    assert box.gone.wait(2), "the box still works for somebody who left"
    assert time.monotonic() - began < 1.5


def test_an_answer_that_breaks_off_says_so_inside_the_stream(server):
    status, text = said(server, "dies")
    assert status == 200 and '"half"' in text and "[DONE]" not in text
    assert json.loads(text.strip().split("\n\n")[-1][6:])["error"]["code"] == "oracle_lost"
    assert well(server)


def test_before_the_first_word_it_is_tried_again_and_after_it_never(server, box):
    box.tries = 0
    assert said(server, "dies_at_first")[1].endswith("[DONE]\n\n") and box.tries == 3
    before = len(box.seen)
    said(server, "dies")
    assert len([one for one in box.seen[before:] if one["path"] == CHAT]) == 1


@pytest.mark.parametrize(
    ("how", "status", "code"),
    [
        ("busy", 503, "oracle_down"),
        ("refuses", 400, "upstream_refused"),
        ("wants_a_key", 502, "key_needed"),
        ("breaks", 502, "upstream_failed"),
        ("sends_html", 502, "no_stream"),
        ("compresses", 502, "compressed"),
        ("is_no_http", 502, "oracle_lost"),
        ("endless_head", 502, "oracle_lost"),
        ("says_nothing", 504, "too_long"),
    ],
)
def test_whatever_the_box_does_the_visitor_gets_a_reason(server, how, status, code):
    got, text = said(server, how)
    error = json.loads(text)["error"]
    assert (got, error["code"]) == (status, code)
    assert error["message"] == error["text"] and len(text) < 1000 and "<script>" not in text


@pytest.mark.parametrize("stream", [True, False])
def test_a_redirect_is_not_followed(server, box, stream):
    canary = Box()
    box.canary = f"http://127.0.0.1:{canary.port}/v1/models"
    try:
        status, text = said(server, "redirects", stream)
        assert status == 502 and json.loads(text)["error"]["code"] == "redirect"
        assert canary.seen == []
    finally:
        canary.close()


@pytest.mark.parametrize(("how", "stream"), [("floods", True), ("is_huge", False)])
def test_an_endless_answer_is_cut_off_and_the_box_let_go(server, box, how, stream):
    box.gone.clear()
    _, text = said(server, how, stream)
    assert '"code":"too_large"' in text and len(text) < 17 << 20
    assert box.gone.wait(2)
    assert well(server)


def test_what_cannot_be_understood_is_refused_before_anybody_is_asked(server, box):
    before = len(box.seen)
    connection = server.connect()
    for body in (b"{", b"[]", b'{"stream": "yes"}', b'{"model": 7}', b'{"a":' * 200 + b"1" + b"}" * 200):
        connection.request("POST", CHAT, body, {"content-type": "application/json"})
        response = connection.getresponse()
        assert response.status == 400 and json.loads(response.read())["error"]["text"]
    connection.close()
    assert said(server, "answer", headers={"x-realm-hop": "1"})[0] == 508
    assert said(server, "answer", model="nobody")[0] == 404
    assert not [one for one in box.seen[before:] if one["path"] == CHAT]


def test_it_is_told_whether_the_box_speaks_with_the_heros_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(oracle_module, "FRESH_SECONDS", 0.0)
    box, paths = Box(), empty_realm(tmp_path / "realm")
    fill(paths).close()
    hero, ask_hero = (
        pointed(paths.current_model),
        {"model": "hero", "messages": [{"role": "user", "content": "answer"}]},
    )
    with client_of_config(paths, {"oracle": {"url": f"http://127.0.0.1:{box.port}"}}) as client:
        for models, same, words in (
            ([{"id": "some-model"}], None, "does not say what checkpoint it is"),
            (
                [{"id": "hero", "checkpoint": "DIO-old"}],
                False,
                "The box serves checkpoint DIO-old; the hero's is " + hero,
            ),
            ([{"id": "other"}, {"id": f"/srv/models/{hero}/"}], True, None),
            ([{"id": "m", "root": f"models/{hero}"}], True, None),
        ):
            box.models = models
            state = client.get("/api/oracle").json()
            assert (state["kind"], state["state"], state["same"]) == ("remote", "ready", same)
            answer = client.post(CHAT, json=ask_hero)
            told = answer.headers.get("x-oracle-notice")
            assert told == state["notice"] and (words in told if words else told is None)
            assert box.seen[-1]["body"]["model"] == answer.headers["x-oracle-model"] == state["model"]
            assert answer.headers.get("x-oracle-checkpoint") == state["checkpoint"]
        listed = {model["id"]: model["answered_by"] for model in client.get("/v1/models").json()["data"]}
        assert (
            listed["hero"] == listed[hero] == "remote"
            and listed["champion" if "champion" in listed else "m"] == "remote"
        )
        assert "local" in listed.values()
        box.close()
        assert client.get("/api/oracle").json()["state"] == "down"
        answer = client.post(CHAT, json=ask_hero)
        assert answer.status_code == 503 and "cannot be reached" in answer.json()["error"]["text"]


@pytest.mark.parametrize("listing", ["huge_list", "sends_html", "redirects", "is_no_http"])
def test_a_list_of_models_that_is_none_does_not_hurt(tmp_path, listing):
    box = Box(listing=listing)
    paths = empty_realm(tmp_path / "realm")
    config = {"oracle": {"url": f"http://127.0.0.1:{box.port}", "model": "given"}}
    with client_of_config(paths, config) as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "given"
    with client_of_config(paths, {"oracle": {"url": f"http://127.0.0.1:{box.port}"}}) as client:
        assert client.get("/v1/models").json()["data"] == []
        assert client.get("/api/oracle").json()["state"] == "down"
    box.close()


def client_of_config(paths, config: dict):
    return TestClient(create_app(paths, check_config(config)), base_url="http://127.0.0.1:8888")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "gopher://box/", "ftp://box/", "//box", "http:/box", "http://", "http:///v1",
        "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://0x7f.1/", "http://1/",
        "http://127.0.0.1.:80/", "http://[::ffff:7f00:1%25eth0]/", "http://[0:0:0:0:0:0:0:1]/", "http://１２７.0.0.1/",
        "http://user:word@box/", "http://user@box/", "http://box/?a=b", "http://box/#x", "http://box?", "http://box#",
        "http://box/../admin", "http://box/%2e%2e/", "http://box\\@evil/", "http://bo x/", "http://box:0/", "http://box:99999/",
        "http://box/a b", "http://-box/", "http://box\n.evil/", "http://box/\r\nx: y",
    ],
)  # fmt: skip
def test_an_url_that_two_readers_may_understand_in_two_ways_is_refused(url):
    with pytest.raises(UserError, match=r"oracle\.url"):
        check_config({"oracle": {"url": url}})


def test_an_url_as_people_write_it_is_taken():
    for url, kept in {
        "http://192.168.1.20:8000": "http://192.168.1.20:8000",
        "http://192.168.1.20:8000/v1": "http://192.168.1.20:8000",
        "https://box.example/llm/v1/": "https://box.example/llm",
        "http://[::1]:8080/": "http://[::1]:8080",
        "http://my_box:11434": "http://my_box:11434",
        "http://localhost": "http://localhost",
    }.items():
        assert check_url(url) == kept == check_url(kept)


def test_addresses_where_no_box_can_be_are_refused():
    for address in (
        "169.254.169.254", "169.254.0.1", "::ffff:169.254.169.254", "fe80::1", "fe80::1%eth0", "fd00:ec2::254", "0.0.0.0", "::",
        "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "100.100.100.200",
    ):  # fmt: skip
        assert refusal(address), address
    for address in ("127.0.0.1", "::1", "10.0.0.7", "192.168.1.20", "fd12::7", "8.8.8.8", "100.64.0.9"):
        assert refusal(address) is None, address


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254", "http://[::ffff:a9fe:a9fe]", "http://0.0.0.0:80", "http://[fe80::1]"]
)
def test_an_address_that_is_refused_is_not_connected_to(tmp_path, url):
    with client_of_config(empty_realm(tmp_path / "realm"), {"oracle": {"url": url}}) as client:
        answer = client.post(CHAT, json={"messages": [{"role": "user", "content": "x"}]})
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "address_refused"


def test_a_name_that_leads_to_a_refused_address_too_is_not_connected_to_at_all(tmp_path, monkeypatch):
    box, asked = Box(), []

    async def look_up(host, port, **more):
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in ("127.0.0.1", "169.254.169.254")]

    monkeypatch.setattr("core.upstream.anyio.getaddrinfo", look_up)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{box.port}")
    monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{box.port}")
    with client_of_config(
        empty_realm(tmp_path / "realm"), {"oracle": {"url": f"http://box.example:{box.port}"}}
    ) as client:
        answer = client.post(CHAT, json={"messages": [{"role": "user", "content": "answer"}]})
        assert answer.status_code == 503 and "169.254.169.254" in answer.json()["error"]["text"]
    assert asked == ["box.example"] and box.seen == []
    box.close()


def test_a_page_does_not_wait_for_a_box_that_is_silent(tmp_path):
    box = Box(health="says_nothing")
    with client_of_config(
        empty_realm(tmp_path / "realm"), {"oracle": {"url": f"http://127.0.0.1:{box.port}"}}
    ) as client:
        began = time.monotonic()
        state = client.get("/api/oracle").json()
        assert time.monotonic() - began < 3
        assert state["state"] == "down" and "has not answered yet" in state["problem"]
        while "fallen silent" not in (problem := client.get("/api/oracle").json()["problem"]):
            assert time.monotonic() - began < 15, problem
    box.close()
