"""Who may come into the Tavern, and from where: every rule over every route."""

import hashlib
import stat

import pytest
from tavern_realm import HOSTILE, empty_realm, fill
from tavern_server import OURS, PAGE, ROUTES, client_of

from core.config import Config
from monitoring.servers.tavern.app import create_app

PUBLIC = {"/login", "/healthz", "/static"}


def contents(folder):
    """Everything below a folder, the ledger by its rows (readers may touch its pages)."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "-journal" not in path.name
    }


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


@pytest.mark.parametrize(
    "host",
    [
        "evil.com",
        "localhost.evil.com",
        "127.0.0.1.evil.com",
        "evil.com:8888",
        "192.168.1.7:8888",
        "",
        "127.0.0.1@evil.com",
        "127.0.0.1:8888@evil.com",
        "localhost:8888/login?",
        "x/login?",
        "[::2]",
        "127.0.0.1:",
        "127.0.0.1:port",
        "0.0.0.0",
    ],
)
def test_a_foreign_host_is_refused_on_every_route(empty, host):
    with client_of(empty) as client:
        for method, path in ROUTES:
            assert client.request(method, path, headers=OURS | {"host": host}).status_code == 400, (method, path)


@pytest.mark.parametrize("host", ["127.0.0.1:8888", "localhost", "LOCALHOST:9000", "[::1]:8888", "realm.example:443"])
def test_own_names_are_let_in_on_any_port(empty, host):
    with client_of(empty, hosts=["realm.example"]) as client:
        assert client.get("/healthz", headers={"host": host}).status_code == 200


FOREIGN = (
    {"origin": "http://evil.com"},
    {"origin": "null"},
    {"origin": "http://127.0.0.1:9999"},
    {"origin": "http://127.0.0.1"},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"origin": "http://127.0.0.1:8888", "sec-fetch-site": "cross-site"},
    {"origin": "http://evil.com", "sec-fetch-site": "same-origin"},
)


@pytest.mark.parametrize("headers", FOREIGN)
def test_no_other_site_changes_anything(full, headers):
    with client_of(full) as client:
        before = contents(full.root)
        for path in sorted({path for _, path in ROUTES}):
            for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"):
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 403 and answer.json()["error"]["code"] == "foreign_site", (method, path)
    assert contents(full.root) == before


def test_reading_changes_nothing(full):
    with client_of(full) as client:
        before = contents(full.root)
        for method, path in ROUTES:
            if method == "GET" and path != "/api/events":
                client.get(path)
        foreign = {"sec-fetch-site": "cross-site"}
        assert client.get("/api/status", headers=foreign | {"sec-fetch-mode": "no-cors"}).status_code == 403
        assert client.get("/", headers=foreign | {"sec-fetch-mode": "navigate"}).status_code == 200
    assert contents(full.root) == before


@pytest.mark.parametrize("settings", [{"require_token": True}, {"host": "0.0.0.0"}, {"host": "10.1.1.7", "port": 9000}])
def test_without_the_token_nobody_comes_in(empty, settings):
    with client_of(empty, **settings) as client:
        token = empty.token.read_text()
        cookie = f"realm_{settings.get('port', 8888)}"
        bearers = ("Bearer nonsense", "Bearer", f"Basic {token}", f"Bearer {token[:-1]}")
        wrong = (
            {},
            {"cookie": f"{cookie}=nonsense"},
            {"cookie": f"other={token}"},
            *({"authorization": bearer} for bearer in bearers),
        )
        for method, path in ROUTES:
            if path in PUBLIC or path == "/api/events":
                continue
            for headers in wrong:
                assert client.request(method, path, headers=OURS | headers).status_code == 401, (method, path, headers)
            assert client.request(method, f"{path}?token={token}", headers=OURS).status_code == 401
        for headers in ({"authorization": f"Bearer {token}"}, {"cookie": f"{cookie}={token}"}):
            assert client.get("/api/status", headers=headers).status_code == 200
            assert client.get("/", headers=headers | PAGE).status_code == 200
        assert "Token" in client.get("/", headers=PAGE).text
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
