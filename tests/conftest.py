"""Fixtures that many tests share: an empty realm on a real disk, its real ledger, its settings."""

import os

os.environ.setdefault(
    "OMP_WAIT_POLICY", "passive"
)  # as the trainer does: threads that spin for each other starve a busy machine

import pytest

from core.config import Config, IdleGeneration
from core.ledger import Ledger
from core.paths import RealmPaths


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


@pytest.fixture
def config() -> Config:
    """All defaults, but for the idle hero, who sleeps, and exams, which have tests of their own and take their time."""
    return Config(idle_generation=IdleGeneration(enabled=False), exam_share=0.0)
