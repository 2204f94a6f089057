"""What machines ask: /healthz, /readyz and /metrics, read as Prometheus reads it."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tavern_realm import advance, empty_realm, fill, services
from tavern_server import client_of

from core.ledger import Ledger


@pytest.fixture
def empty(tmp_path):
    return empty_realm(tmp_path)


def scraped(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    assert all(family.documentation and family.samples for family in families.values())
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families.values()
        for sample in family.samples
    }


def test_the_numbers_are_those_of_the_realm_under_the_promised_names(empty):
    ledger = fill(empty)
    with client_of(empty) as client:
        before, status = scraped(client), client.get("/api/status").json()
        assert before["realm_train_steps_total",] == status["hero"]["global_step"] == 2048
        assert before["realm_train_loss",] == status["battle"]["loss"]
        assert before["realm_train_tokens_per_second",] > 0 and before["realm_train_learning_rate",] > 0
        assert [before["realm_jobs", state] for state in ("high", "processing", "rejected")] == [1, 1, 2]
        assert before["realm_disk_free_bytes",] == pytest.approx(status["disk"]["free_bytes"], rel=0.05)
        assert before["realm_service_up", "daemon"] == 1 and before["realm_service_up", "oracle"] == 0
        assert 0 <= before["realm_checkpoint_save_seconds",] < 10 and before["realm_checkpoint_bytes",] > 4096
        counted = ledger.one("SELECT SUM(tokens) AS n FROM battles")["n"]
        assert before["realm_train_tokens_total",] == pytest.approx(counted, rel=0.01)
        advance(empty, ledger, 10)
        client.app.state.realm.stale()
        after = scraped(client)
        assert after["realm_train_steps_total",] == before["realm_train_steps_total",] + 10
        assert after["realm_train_tokens_total",] == before["realm_train_tokens_total",] + 41_000


def test_a_realm_without_anything_still_has_numbers(empty):
    with client_of(empty) as client:
        numbers = scraped(client)
    assert numbers["realm_train_steps_total",] == numbers["realm_train_tokens_total",] == 0
    assert ("realm_train_loss",) not in numbers and ("realm_checkpoint_save_seconds",) not in numbers


def test_the_scrape_needs_the_token_where_one_is_needed(empty):
    with client_of(empty, require_token=True) as client:
        assert client.get("/metrics").status_code == client.get("/readyz").status_code == 401
        right = {"authorization": f"Bearer {empty.token.read_text()}"}
        assert client.get("/metrics", headers=right).status_code == 200
        assert client.get("/healthz").json() == {"ok": True}


def test_ready_is_a_realm_with_a_ledger_and_a_living_daemon(empty):
    with client_of(empty) as client:
        asleep = client.get("/readyz")
        assert asleep.status_code == 503 and "daemon is stopped" in asleep.json()["error"]["text"]
        services(empty)
        client.app.state.realm.stale()
        assert client.get("/readyz").json() == {"ready": True}
        (empty.heartbeats / "daemon").unlink()
        client.app.state.realm.stale()
        assert "daemon is starting" in client.get("/readyz").json()["error"]["text"]
    Ledger(empty.ledger).close()
    empty.ledger.write_bytes(b"this is no database " * 100)
    with client_of(empty) as client:
        assert client.get("/healthz").status_code == 200
        unreadable = client.get("/readyz")
        assert unreadable.status_code == 503 and "cannot be read" in unreadable.json()["error"]["text"]
