"""A realm with a long past answers as quickly as a young one: counted in the database's own steps and in bytes, not in seconds."""

import os
import re
import time

import pytest
from tavern_realm import empty_realm, fill, services
from tavern_server import PAGE, client_of

from core import checkpoints
from core.config import Config, Hero
from core.exam_record import curve
from core.folder_counts import FolderCounts
from core.ledger import MIGRATIONS, Ledger, connect, migrate
from core.progress import progress
from core.standing import Standing
from core.status import realm_status
from core.steps import SERIES
from monitoring.metrics import Metrics
from monitoring.servers.tavern import views
from monitoring.servers.tavern.pages.home import PAGE as HOME
from monitoring.servers.tavern.realm import Realm
from training.bench.tavern_ground import fill_ledger, fill_record

QUESTS, STEPS = 10_000, 200_000


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    paths = empty_realm(tmp_path_factory.mktemp("old"))
    ledger = fill(paths)
    fill_record(paths, STEPS, time.time())
    fill_ledger(paths, ledger, QUESTS, STEPS, time.time())
    ledger.close()
    return paths


def work(connection, act):
    """Thousands of steps of SQLite's virtual machine, and statements."""
    turns, statements = [], []
    connection.set_progress_handler(lambda: turns.append(1), 1000)
    connection.set_trace_callback(statements.append)
    act()
    connection.set_progress_handler(None, 0)
    connection.set_trace_callback(None)
    return len(turns), len(statements)


def test_the_state_of_the_realm_costs_few_steps_however_many_events_there_are(old):
    ledger = Ledger(old.ledger)
    assert ledger.one("SELECT COUNT(*) AS n FROM events")["n"] > 50_000
    steps, statements = work(ledger.connection, lambda: realm_status(old, Config(), ledger))
    assert steps < 150 and statements < 40
    ledger.close()


def test_the_newest_weights_are_asked_what_they_know_only_when_others_have_come(realm, ledger, config, monkeypatch):
    asked, read = [], checkpoints.read
    monkeypatch.setattr(checkpoints, "read", lambda folder: asked.append(folder.name) or read(folder))

    def come(step, **mastered):
        facts = checkpoints.Manifest("DIO", "first", step, standing=Standing(mastered).as_json())
        tip = checkpoints.commit(realm, facts, lambda folder: (folder / "model.safetensors").write_bytes(b"") and None)
        checkpoints.set_tip(realm, tip.id)
        return tip.id

    known = lambda config=config: realm_status(realm, config, ledger)["hero"]["mastered"]  # noqa: E731
    assert known() == {} and not asked
    first = come(1, REV=(1, 2))
    assert [known() for _ in range(3)] == [{"REV": [1, 2]}] * 3
    second = come(2, REV=(1, 2, 3))
    assert [known() for _ in range(3)] == [{"REV": [1, 2, 3]}] * 3
    checkpoints.set_tip(realm, first)
    assert known() == {"REV": [1, 2]} and asked == [first, second, first]
    assert known(config.model_copy(update={"hero": Hero(name="Other")})) == {}
    os.unlink(realm.vault / first / checkpoints.MANIFEST)
    assert known() == {}


def test_every_part_of_the_home_page_costs_few_steps(old):
    services(old)
    realm = Realm(old, Config())
    realm.status()
    for name, part in HOME.parts.items():
        steps, statements = work(realm.ledger.connection, lambda part=part: part.view(realm, None))
        assert steps < 150 and statements < 20, name
    steps, _ = work(realm.ledger.connection, lambda: views.now(realm))
    assert steps < 150
    realm.ledger.close()


def test_what_is_told_of_the_skills_costs_few_steps_however_many_exams_were_held(tmp_path):
    paths = empty_realm(tmp_path)
    old = connect(paths.ledger, durable=False)
    migrate(old, MIGRATIONS[: MIGRATIONS.index("CREATE INDEX exams_by_skill ON exams(hero, skill, id)")])
    row = ("DIO", "first", 7, "BIN", 2, 3, 32, "canary", 0.0)
    old.execute("BEGIN")
    old.executemany(
        "INSERT INTO exams (checkpoint, seq, hero, campaign, step, skill, level, right, asked, kind, created) "
        "VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ((f"DIO-first-{number}", *row) for number in range(30_000)),
    )
    old.execute("COMMIT")
    old.close()
    ledger = Ledger(paths.ledger)  # brings it up to date
    for name in ("BIN", "REV"):
        steps, _ = work(ledger.connection, lambda name=name: curve(ledger, "DIO", name))
        assert steps < 30
    steps, _ = work(ledger.connection, lambda: progress(paths, Config(), ledger))
    assert steps < 30
    ledger.close()


def test_the_home_page_is_light_with_a_long_past(old):
    services(old)
    with client_of(old) as client:
        page = client.get("/", headers=PAGE)
        addresses = re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text)
        assert "/static/tavern.css" in addresses and "/static/live.js" in addresses
        files = {address: len(client.get(address).content) for address in addresses}
    assert len(page.content) < 100_000
    assert len(page.content) + sum(files.values()) < 300_000  # the charts' library included
    assert page.text.count('role="alert"') == 5 and "more within a day" in page.text


def test_a_picture_of_all_steps_reads_sums_and_not_the_steps(old):
    metrics = Metrics(old.metrics, "DIO")
    with metrics._reading() as reading:
        whole, _ = work(reading.connection, lambda: reading.curves(1, STEPS, None, 240, SERIES))
        some, _ = work(reading.connection, lambda: reading.curves(1, 2000, None, 240, SERIES))
    assert whole < 4 * some  # a hundred times as many steps


def test_a_folder_is_counted_anew_only_when_it_has_changed(tmp_path):
    asked = []

    def is_one(name):
        asked.append(name)
        return name.endswith(".jsonl")

    folders = FolderCounts()
    for name in ("a.jsonl", "b.jsonl", "b.txt"):
        (tmp_path / name).touch()
    assert folders.count(tmp_path, is_one) == 2
    (tmp_path / "c.jsonl").touch()  # within the same tick of the clock, perhaps
    assert folders.count(tmp_path, is_one) == 3
    os.utime(tmp_path, (1e9, 1e9))
    asked.clear()
    assert [folders.count(tmp_path, is_one) for _ in range(3)] == [3, 3, 3] and len(asked) == 4
    (tmp_path / "a.jsonl").unlink()
    assert folders.count(tmp_path, is_one) == 2
    os.utime(tmp_path, (4e9, 4e9))  # the clock was set back since
    asked.clear()
    assert [folders.count(tmp_path, is_one) for _ in range(2)] == [2, 2] and len(asked) == 6
