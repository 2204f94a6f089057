"""Who may come into the Tavern, and how they get in; every rule over every route is in test_tavern_matrix.py."""

import stat

import pytest
from tavern_realm import HOSTILE, empty_realm, fill
from tavern_server import OURS, PAGE, client_of

from core.config import Config
from monitoring.servers.tavern.app import create_app


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    paths = empty_realm(tmp_path_factory.mktemp("full"))
    fill(paths, hostile=HOSTILE).close()
    return paths


@pytest.fixture
def empty(tmp_path):
    return empty_realm(tmp_path)


def test_the_token_is_long_and_for_its_owner_only(empty):
    create_app(empty, Config())
    token = empty.token.read_text()
    assert len(token) >= 43 and stat.S_IMODE(empty.token.stat().st_mode) == 0o600
    create_app(empty, Config())
    assert empty.token.read_text() == token


@pytest.mark.parametrize("host", ["127.0.0.1:8888", "localhost", "LOCALHOST:9000", "[::1]:8888", "realm.example:443"])
def test_own_names_are_let_in_on_any_port(empty, host):
    with client_of(empty, hosts=["realm.example"]) as client:
        assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_another_sites_link_leads_here_but_nothing_is_fetched_for_it(full):
    with client_of(full) as client:
        foreign = {"sec-fetch-site": "cross-site"}
        assert client.get("/api/status", headers=foreign | {"sec-fetch-mode": "no-cors"}).status_code == 403
        assert client.get("/", headers=foreign | {"sec-fetch-mode": "navigate"}).status_code == 200


def test_who_has_no_token_sees_the_page_that_asks_for_it(empty):
    with client_of(empty, host="0.0.0.0") as client:
        page = client.get("/vault", headers=PAGE)
        assert page.status_code == 401 and "Token" in page.text and page.headers["www-authenticate"] == "Bearer"
        assert client.get("/static/tavern.css").status_code == 200


def test_the_bearer_may_change_things_without_a_browser(empty):
    with client_of(empty) as client:
        right = {"authorization": f"Bearer {empty.token.read_text()}"}
        assert client.post("/api/control/pause", headers=right).status_code == 202
        assert client.post("/api/control/pause", headers={"authorization": "Bearer no"} | OURS).status_code == 401


def test_the_login_hands_out_a_strict_cookie(empty):
    with client_of(empty, require_token=True) as client:
        token = empty.token.read_text()
        assert client.get("/login").status_code == 200
        assert client.get("/login?token=nonsense").status_code == 401
        assert client.post("/login", data={"token": "nonsense"}, headers=OURS).status_code == 401
        assert client.post("/login", data={"token": token}, headers={"origin": "http://evil.com"}).status_code == 403
        by_form = client.post("/login", data={"token": f" {token} "}, headers=OURS)
        for answer in (client.get(f"/login?token={token}"), by_form):
            given = answer.headers["set-cookie"].lower()
            assert answer.status_code == 303 and answer.headers["location"] == "/"
            assert "httponly" in given and "samesite=strict" in given and "path=/" in given
        assert client.get("/", headers=PAGE).status_code == 200  # the client keeps the cookie


def test_every_answer_carries_the_protective_headers(empty):
    with client_of(empty) as client:
        for path in ("/", "/api/status", "/nope", "/static/tavern.css", "/healthz"):
            headers = client.get(path).headers
            policy = headers["content-security-policy"]
            assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
            assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
        assert client.get("/static/%2e%2e/app.py").status_code == client.get("/static/../app.py").status_code == 404


def test_a_script_without_a_browser_may_post_on_loopback(full):
    with client_of(full) as client:
        answer = client.post("/api/control/pause")
        assert answer.status_code == 202, answer.text
