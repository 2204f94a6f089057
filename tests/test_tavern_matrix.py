"""Every route of the Tavern, taken from the app, against every way of coming in that is none."""

import asyncio
import hashlib
import itertools

import pytest
from tavern_caller import HOST, Caller, filled, templates
from tavern_realm import HOSTILE, empty_realm, fill

from core.config import Config, Tavern
from monitoring.servers.tavern.app import create_app
from monitoring.servers.tavern.security import HEADERS_AT_MOST, PUBLIC

OURS = {"origin": "http://127.0.0.1:8888", "sec-fetch-site": "same-origin"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CANARY = "the canary sings"


def contents(folder):
    """Every file below it by its hash; journals come and go with whoever reads."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and "-journal" not in path.name)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    paths = empty_realm(tmp_path_factory.mktemp("around") / "realm")
    fill(paths, hostile=HOSTILE).close()
    create_app(paths, Config())  # the token is there before anybody asks
    for place in (paths.root.parent, paths.root, paths.state, paths.vault, paths.inbox):
        (place / "canary.txt").write_text(CANARY)
    return paths


@pytest.fixture
def empty(tmp_path):
    return empty_realm(tmp_path)


def caller(paths, **settings):
    return Caller(create_app(paths, Config(tavern=Tavern(**settings))))


def known(paths):
    """Values that path parameters may take: one that is there for each kind, and one that is not."""
    return (paths.tip.readlink().name, "2", "pause", "queue", "none")


# Tokens

WRONG = (
    [],
    [("authorization", "Bearer {wrong}")],
    [("authorization", "Bearer")],
    [("authorization", "Bearer ")],
    [("authorization", "Basic {right}")],
    [("authorization", "Token {right}")],
    [("authorization", "{right}")],
    [("authorization", "Bearer {right} {right}")],
    [("authorization", "Bearer {short}")],
    [("authorization", "Bearer {right}"), ("authorization", "Bearer {right}")],
    [("authorization", "Bearer {wrong}"), ("cookie", "realm_8888={right}")],
    [("proxy-authorization", "Bearer {right}")],
    [("x-authorization", "Bearer {right}")],
    [("x-api-key", "{right}")],
    [("x-token", "{right}")],
    [("token", "{right}")],
    [("cookie", "realm_8888={wrong}")],
    [("cookie", "realm_8888={right}; realm_8888={wrong}")],
    [("cookie", "realm_8888={wrong}; realm_8888={right}")],
    [("cookie", "realm_8888={right}"), ("cookie", "realm_8888={right}")],
    [("cookie", 'realm_8888="{right}"')],
    [("cookie", "realm_9999={right}")],
    [("cookie", "token={right}")],
    [("cookie", "REALM_8888={right}")],
    [("forwarded", "for=127.0.0.1"), ("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")],
    [("x-original-url", "/login"), ("x-rewrite-url", "/login"), ("x-forwarded-prefix", "/static")],
)
RIGHT = (
    [("authorization", "Bearer {right}")],
    [("authorization", "bearer  {right}")],
    [("cookie", "realm_8888={right}")],
    [("cookie", 'a={{"b"; c; =; realm_8888={right}; d="e')],  # what other servers of this host have set
)


def spelled(headers, token):
    words = {"right": token, "wrong": token[::-1], "short": token[:-1]}
    return [(name, value.format(**words)) for name, value in headers]


@pytest.mark.parametrize("settings", [{"require_token": True}, {"host": "0.0.0.0"}, {"host": "10.1.1.7"}])
def test_no_route_opens_without_the_token_however_it_is_spelled(empty, settings):
    with caller(empty, **settings) as ask:
        token = empty.token.read_text()
        for method, template in templates(ask.app):
            if template in PUBLIC:
                continue
            for headers in WRONG:
                answer = ask(method, filled(template, "2"), [*OURS.items(), *spelled(headers, token)])
                assert answer.status == 401 and token not in answer.text, (method, template, headers)
            for query in ("token", "access_token", "api_key", "auth"):
                answer = ask(method, f"{filled(template, '2')}?{query}={token}", OURS)
                assert answer.status == 401, (method, template, query)
            for headers in RIGHT:
                answer = ask(method, filled(template, "2"), [*OURS.items(), *spelled(headers, token)])
                assert answer.status not in (401, 403), (method, template, headers)


def test_only_login_health_and_the_files_of_its_page_are_public(empty):
    with caller(empty, require_token=True) as ask:
        open_to_all = {path for _, path in templates(ask.app) if ask("GET", filled(path, "2")).status != 401}
        assert open_to_all == {"/login", "/healthz"}
        for path in ("//login", "/login/", "/login/..", "/%2e/login", "/x/../login", "/static", "/static/", "/LOGIN"):
            assert ask("GET", path).status == 401, path


# Where from


def foreign_sites():
    sites = ("cross-site", "same-site", "none", "nonsense", "")
    origins = (
        "http://evil.com",
        "null",
        "http://127.0.0.1:9999",
        "http://127.0.0.1",
        "http://127.0.0.1:8888.evil.com",
        "",
    )
    yield from ({"sec-fetch-site": site} for site in sites)
    yield from ({"origin": origin} for origin in origins)
    yield from ({"origin": origin, "sec-fetch-site": "same-origin"} for origin in origins)
    yield from ({"origin": OURS["origin"], "sec-fetch-site": site} for site in sites)


def test_no_other_site_changes_anything_by_any_method(full):
    with caller(full) as ask:
        before = contents(full.root)
        for template in sorted({template for _, template in templates(ask.app)}):
            for method, headers in itertools.product((*METHODS[2:], "TRACE", "MKCOL"), foreign_sites()):
                answer = ask(method, filled(template, "2"), headers)
                assert answer.status == 403, (method, template, headers)
        for template, mode in itertools.product(
            {path for _, path in templates(ask.app)}, ("no-cors", "cors", "websocket")
        ):
            for method, site in itertools.product(("GET", "HEAD"), ("cross-site", "same-site")):
                answer = ask(method, filled(template, "2"), {"sec-fetch-site": site, "sec-fetch-mode": mode})
                assert answer.status == 403, (method, template, mode)
    assert contents(full.root) == before


HOSTS = (
    "evil.com", "evil.com:8888", "localhost.evil.com", "127.0.0.1.evil.com", "127.0.0.1.nip.io", "192.168.1.7:8888",
    "0.0.0.0", "[::2]", "[::1", "::1", "127.0.0.1@evil.com", "evil.com@127.0.0.1", "127.0.0.1:8888@evil.com", "127.0.0.1:",
    "127.0.0.1:port", "127.0.0.1:0", "127.0.0.1:99999", "localhost:8888/login?", "x/login?", "/login", "localhost#", "localhost/",
    "localhost\\.evil.com", "local host", "localhost,evil.com", "localhost.", "127.1", "2130706433", "0x7f000001", "①27.0.0.1", "",
)  # fmt: skip


def test_no_route_answers_to_a_foreign_name(full):
    with caller(full) as ask:
        for method, template in templates(ask.app):
            for host in HOSTS:
                host = host.encode().decode("latin-1")
                assert ask(method, filled(template, "2"), OURS, host=host).status == 400, (method, template, host)
            doubled = [("host", "evil.com"), *OURS.items()]
            assert ask(method, filled(template, "2"), doubled).status == 400


# Reading


def test_no_get_changes_anything(full):
    values = ("", "0", "1", "-1", "999999999999999999999", "x", "%00", HOSTILE.replace(" ", "+").replace("&", ""))
    with caller(full) as ask:
        before = contents(full.root.parent)
        api = ask.app.openapi()["paths"]
        for template in sorted({template for method, template in templates(ask.app) if method == "GET"}):
            for value in known(full) if "{" in template else ("",):
                assert ask("GET", filled(template, value)).status != 500, (template, value)
            described = api.get(template, {}).get("get", {}).get("parameters", [])
            names = [given["name"] for given in described if given["in"] == "query"]
            for name, value in itertools.product(names or ["before=1&range=all&state=x&verb=stop&quest"], values):
                assert ask("GET", f"{filled(template, '2')}?{name}={value}").status != 500, (template, name, value)
    assert contents(full.root.parent) == before


# Paths


def payloads():
    """Two hundred ways to say `canary.txt`, `token` or `passwd` a few folders up."""
    ups = ("../", "..\\", "....//", "..;/", "..%2f", "%2e%2e/", "%2e%2e%2f", "..%252f", "%252e%252e%252f", "..%5c", "%2e%2e%5c", "..%c0%af",
           "..%ef%bc%8f", ".%00./", "..%00/", "%uff0e%uff0e/", ".%0d./", "..//", "/%2e%2e/", "./../")  # fmt: skip
    files = ("canary.txt", "state%2ftoken", "etc/passwd")
    yield from (up * depth + file for up, depth, file in itertools.product(ups, (1, 2, 6), files))
    yield from (
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "%252fetc%252fpasswd",
        "file:///etc/passwd",
        "C:\\windows\\win.ini",
    )
    yield from (
        "canary.txt",
        "canary.txt%00",
        "canary.txt%00.jsonl",
        "./canary.txt",
        ".//canary.txt",
        "~/canary.txt",
        "~root",
    )
    yield from (
        ".",
        "..",
        "%2e",
        "%2e%2e",
        "...",
        "%00",
        "%0a",
        "con",
        "nul",
        "-rf",
        "*",
        "?",
        "{}",
        "$(id)",
        "%ff%fe",
        "a" * 300,
    )
    yield from ("..%2fcanary.txt%3f.jsonl", "..%2f..%2fcanary.jsonl", "%5c%5chost%5cshare")


def test_no_path_from_outside_is_ever_followed(full):
    tried = list(payloads())
    assert len(tried) >= 200 and len(set(tried)) == len(tried)
    with caller(full) as ask:
        token = full.token.read_text()
        opened = [
            *sorted({(method, path) for method, path in templates(ask.app) if "{" in path}),
            ("GET", "/static/{file}"),
        ]
        outside = {name: digest for name, digest in contents(full.root.parent).items() if "inbox" not in name}
        for payload, (method, template) in itertools.product(tried, opened):
            answer = ask(method, filled(template, payload), OURS)
            told = CANARY in answer.text or token in answer.text or "root:" in answer.text
            assert answer.status < 500 and not told, (method, template, payload)
        for payload in tried:
            for name in (f"{payload}.jsonl", payload):
                assert ask("POST", f"/api/quests?name={name}", OURS, b"{}\n").status in (201, 400, 415), name
                form = f'--x\r\nContent-Disposition: form-data; name=file; filename="{name}"\r\n\r\n{{}}\r\n--x--\r\n'
                headers = OURS | {"content-type": "multipart/form-data; boundary=x"}
                assert ask("POST", "/api/quests", headers, form.encode()).status in (201, 400, 415), name
        after = contents(full.root.parent)
        changed = {name for name in outside if after.get(name) != outside[name]}
        assert changed <= {"realm/state/realm.db"}  # wishes that `pause` and its like have written
        assert all(
            path.parent == full.inbox and path.suffix == ".jsonl"
            for path in full.root.rglob("*.jsonl")
            if "inbox" in path.parts
        )
        assert {name for name in set(after) - set(outside) if not name.startswith("realm/inbox/")} == set()


# Sizes


@pytest.mark.parametrize(
    ("target", "headers", "status", "code"),
    [
        ("/api/status?" + "x" * 9000, [], 414, "too_long"),
        ("/api/status", [(f"x-{place}", "1") for place in range(HEADERS_AT_MOST)], 431, "too_many_headers"),
        ("/api/status", [("x-long", "x" * 33_000)], 431, "too_many_headers"),
        ("/static/tavern.css", [("range", "bytes=" + ",".join(["0-"] * 1000))], 416, "too_many_ranges"),
        ("/static/tavern.css", [("range", "bytes=0-1"), ("range", "bytes=0-1")], 416, "too_many_ranges"),
        ("/login", [("content-length", "9" * 5000)], 413, "too_large"),
    ],
)  # fmt: skip
def test_heads_and_ranges_have_limits(empty, target, headers, status, code):
    with caller(empty) as ask:
        answer = ask("POST" if status == 413 else "GET", target, headers)
        assert answer.status == status and code in answer.text
        part = ask("GET", "/static/tavern.css", {"range": "bytes=0-9,5-14,0-9"})
        assert part.status == 206 and len(part.body) < 500


def test_a_form_full_of_fields_is_no_token(empty):
    with caller(empty) as ask:
        assert ask("POST", "/login", OURS, b"token=a&" * 100_000).status == 413


# What every answer carries


def test_every_answer_of_every_route_is_protected_and_says_nothing_of_its_server(full):
    asked = [
        {},
        {"accept": "text/html"},
        {"sec-fetch-site": "cross-site"},
        {"authorization": "Bearer wrong"},
        {"range": "bytes=0-,0-,0-,0-,0-"},
    ]
    with caller(full) as ask:
        targets = [(method, filled(template, "none")) for method, template in templates(ask.app)]
        for (method, target), headers in itertools.product([*targets, ("GET", "/nope"), ("BREW", "/")], asked):
            given = ask(method, target, headers).headers
            assert given["content-security-policy"].startswith("default-src 'self';"), target
            assert "unsafe" not in given["content-security-policy"] and "*" not in given["content-security-policy"]
            assert given["x-content-type-options"] == "nosniff" and given["x-frame-options"] == "DENY"
            assert given["referrer-policy"] == given["cross-origin-opener-policy"] == "same-origin"
            assert given["cache-control"] in ("no-store", "no-cache") or target.startswith("/sigil/"), target
            assert not {"server", "x-powered-by", "access-control-allow-origin"} & set(given), target


def test_there_is_no_websocket(full):
    said = []

    async def receive():
        return {"type": "websocket.connect"}

    async def send(message):
        said.append(message)

    app = create_app(full, Config())
    headers = [(b"host", HOST.encode()), (b"origin", b"http://evil.com")]
    scope = {
        "type": "websocket",
        "path": "/api/events",
        "raw_path": b"/api/events",
        "query_string": b"",
        "headers": headers,
    }
    asyncio.run(app(scope, receive, send))
    assert [message["type"] for message in said] == ["websocket.close"]
