"""Fixtures that many tests share: an empty realm on a real disk, its real ledger, its settings; a browser and what it shows."""

import gc
import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # as the trainer does: threads that spin for each other starve a busy machine
if "PYTEST_XDIST_WORKER" in os.environ:  # as many processes as cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from functools import partial

import pytest

from core.config import Config, IdleGeneration
from core.ledger import Ledger
from core.paths import RealmPaths

pytest.register_assert_rewrite("browser")  # so that a failure there says what was found


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """While modules are imported there is no garbage, and looking for it takes a fifth of the time; nor need it be looked for
    in them later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def realm(tmp_path) -> RealmPaths:
    """A realm with all its folders and nothing in them."""
    paths = RealmPaths(tmp_path / "realm")
    paths.make()
    return paths


@pytest.fixture
def ledger(realm) -> Ledger:
    ledger = Ledger(realm.ledger)
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def lanes():
    """The daemon's two children, one for small files and one for large ones."""
    from core.validation_process import ValidationProcess

    pair = ValidationProcess(lambda: None), ValidationProcess(lambda: None)
    yield pair
    for lane in pair:
        lane.close()


@pytest.fixture
def config() -> Config:
    """All defaults, but for the idle hero, who sleeps, and exams, which have tests of their own and take their time."""
    return Config(idle_generation=IdleGeneration(enabled=False), exam_share=0.0)


@pytest.fixture
def small_hero(request, monkeypatch):
    """Heroes are hatched with 170 thousand parameters, for tests in which none has to learn much; those marked `micro` keep
    the two million of the micro hero."""
    if request.node.get_closest_marker("micro"):
        return
    from resident import SMALL

    from core.forge import hatch

    for name, value in SMALL.items():
        monkeypatch.setitem(hatch.MICRO, name, value)


@pytest.fixture(scope="module")
def browser():
    """Not for the whole session: as long as it lives, its thread has a running event loop."""
    from browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture
def visit(browser):
    """Opens a page of a server in a window of its own; `browser.watched` says what must not happen there."""
    from browser import watched

    with watched(browser) as visit:
        yield visit


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """A realm in battle with a hostile word wherever somebody may write one, and the Tavern that shows it."""
    from tavern_realm import HOSTILE, empty_realm, fill
    from tavern_server import tavern

    paths = empty_realm(tmp_path_factory.mktemp("realm"))
    fill(paths, hostile=HOSTILE)
    with tavern(paths.root) as server:
        yield paths, server


@pytest.fixture
def open_page(visit, house):
    """Opens a page of the `house`."""
    return partial(visit, house[1])
