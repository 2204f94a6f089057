"""The API under what its own document allows and what it forbids: no answer is an error of ours, none is undocumented."""

import json
import subprocess
import tempfile
from collections import Counter
from http import HTTPStatus
from pathlib import Path

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode, checks
from schemathesis.generation.stateful import run_state_machine_as_test
from tavern_caller import HOST, Caller, templates
from tavern_realm import HOSTILE, empty_realm, fill

from core.config import Config, Tavern
from monitoring.servers.tavern.app import create_app
from monitoring.servers.tavern.security import PUBLIC

CASES = 5200
ENDLESS = "/api/events"  # a stream; what it may be asked is tried below
CHECKS = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
ANSWERED_BY_ANOTHER = ("/v1/chat/completions", "/api/oracle/")  # who may be down, for which we are not to blame
TRACES = ("Traceback", 'File "', '", line ', ".py", "sqlite3", "site-packages")
asked: Counter[int] = Counter()


def sure(examples, **more):
    """The same cases each time."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A realm in battle behind its door: how to ask it, and the schema that it gives of itself."""
    paths = empty_realm(tmp_path_factory.mktemp("fuzz") / "realm")
    with subprocess.Popen(
        ["sleep", "600"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as watchdog:
        fill(paths, watchdog.pid, HOSTILE).close()
        for checkpoint in paths.vault.iterdir():  # exported already, for an export is a process of some seconds
            (paths.exports / checkpoint.name).mkdir(parents=True, exist_ok=True)
        app = create_app(paths, Config(tavern=Tavern(require_token=True)))
        schema = schemathesis.openapi.from_dict(json.loads(json.dumps(app.openapi())))
        with Caller(app) as caller:
            yield lambda case, noise=(): ask(caller, paths, case, noise), schema, caller, paths
        watchdog.kill()


def ask(caller, paths, case, noise):
    """The answer to a case, with the token and further headers, checked against the document."""
    for service in ("daemon", "trainer"):
        (paths.heartbeats / service).touch()
    fields = case.as_transport_kwargs(base_url=f"http://{HOST}")
    request = requests.Request(**fields).prepare()
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    headers = {name: str(value).encode(errors="replace").decode("latin-1") for name, value in request.headers.items()}
    kept = {
        name: value
        for name, value in headers.items()
        if name.lower() not in ("content-length", "authorization", "host")
    }
    token = ("authorization", f"Bearer {paths.token.read_text()}")
    answer = caller(request.method, request.path_url, [*kept.items(), *noise, token], body)
    asked[answer.status] += 1
    told = [] if answer.status == 200 else [trace for trace in TRACES if trace in answer.text]
    assert told == [], (case.method, case.path, answer.text)
    response = schemathesis.Response(
        answer.status,
        {name: [value] for name, value in answer.headers.items()},
        answer.body,
        request,
        0.01,
        True,
        HTTPStatus(answer.status).phrase,
        encoding="utf-8",
    )
    is_theirs = answer.status in (502, 503, 504) and case.path.startswith(ANSWERED_BY_ANOTHER)
    case.validate_response(response, checks=CHECKS[1:] if is_theirs else CHECKS)
    return response


words = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=40)
HEADERS = [
    "accept",
    "accept-language",
    "content-type",
    "cookie",
    "range",
    "if-none-match",
    "if-modified-since",
    "referer",
]
HEADERS += ["last-event-id", "user-agent", "x-forwarded-host", "x-http-method-override", "transfer-encoding", "expect"]
NOISE = st.lists(
    st.tuples(
        st.sampled_from(HEADERS),
        words
        | st.sampled_from(["text/html", "application/json", "bytes=0-", "1", "-1", "9" * 30, "multipart/form-data"]),
    ),
    max_size=3,
    unique_by=lambda pair: pair[0],
)


def operations():
    """Those of the document that have an end, by method and path."""
    with tempfile.TemporaryDirectory() as folder:
        paths = create_app(empty_realm(Path(folder)), Config()).openapi()["paths"]
    return [(method, path) for path, of_path in paths.items() if path != ENDLESS for method in of_path]


OPERATIONS = operations()
EACH = CASES // (2 * len(OPERATIONS)) + 1


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["allowed", "forbidden"])
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_no_case_finds_an_error_of_ours(opened, method, path, mode):
    call, schema, *_ = opened
    operation = schema[path][method]
    takes_something = any(True for _ in operation.iter_parameters()) or bool(operation.body)

    @given(case=operation.as_strategy(mode if takes_something else GenerationMode.POSITIVE), noise=NOISE)
    @sure(EACH)
    def try_it(case, noise):
        call(case, noise)

    before = asked.total()
    try_it()
    assert asked.total() - before >= EACH * 0.9


def test_there_were_thousands_and_of_every_kind():
    print(dict(asked))
    assert asked.total() >= CASES * 0.97
    assert {200, 201, 202, 400, 404, 409, 415, 422} <= set(asked)


def test_what_one_answer_names_the_next_one_knows(opened):
    call, schema, *_ = opened
    met = Counter()

    class Visits(schema.exclude(path=ENDLESS).as_state_machine()):
        def call(self, case, **_):
            response = call(case)
            met[case.operation.label, response.status_code] += 1
            return response

        def validate_response(self, response, case, **_):
            pass  # `call` has done so

    run_state_machine_as_test(Visits, settings=sure(60, stateful_step_count=8))
    assert met["GET /api/quests/{quest}", 200] and met["POST /api/vault/{checkpoint}/{verb}", 200]


@given(after=st.text(max_size=12) | st.integers().map(str), seen=words)
@sure(200)
def stream_is_begun_or_refused(caller, token, after, seen):
    query = requests.Request("GET", f"http://{HOST}{ENDLESS}", params={"after": after}).prepare().path_url
    answer = caller("GET", query, {"authorization": f"Bearer {token}", "last-event-id": seen})
    assert answer.status in (200, 422) and (answer.status == 422 or answer.text.startswith("retry: ")), answer


def test_the_stream_takes_any_place_to_begin(opened):
    *_, caller, paths = opened
    stream_is_begun_or_refused(caller, paths.token.read_text())


def test_every_operation_has_its_rule_and_every_route_of_the_api_is_described(opened):
    _, schema, caller, _ = opened
    described = set()
    for operation in (found.ok() for found in schema.get_all_operations()):
        described.add((operation.method.upper(), operation.path))
        status = caller(operation.method.upper(), operation.path.replace("{", "").replace("}", "")).status
        rule = operation.definition.raw.get("security")
        assert (rule == [] and status == 200) if operation.path in PUBLIC else (rule is None and status == 401)
        answers = set(operation.definition.raw["responses"])
        assert answers >= {"400", "401", "403", "413", "414", "416", "431"}, operation.label
    served = {(method, path) for method, path in templates(caller.app) if method != "HEAD"}
    machines = {
        one for one in served if one[1].startswith(("/api/", "/v1/")) or one[1] in ("/healthz", "/readyz", "/metrics")
    }
    assert described == machines - {("GET", "/api/openapi.json")}
