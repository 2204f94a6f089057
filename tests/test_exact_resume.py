"""Killed by SIGKILL, at steps and within saves, and restarted: the files of the last checkpoint are the same, bit for bit."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from resident import accept_sums

from core.checkpoints import pointed, verify
from core.forge.hatch import micro_hero
from core.forge.state import load_state, save_model, save_state
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, CHECKOUT, RealmPaths

pytestmark = pytest.mark.usefixtures("small_hero")

KILLED = "-9"
SETTINGS = {"batch_size": 8, "save_steps": 3, "eval_steps": 4, "trainer": {"warmup_steps": 6}}


@pytest.fixture(scope="module")
def live():
    """Live a life in a process of its own; its exit status."""
    command = [sys.executable, str(Path(__file__).with_name("lives.py"))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(CHECKOUT)}, **pipes) as process:

        def one(paths: RealmPaths, threads: int, end: tuple | None = None) -> str:
            print(json.dumps({"root": str(paths.root), "threads": threads, "end": end}), file=process.stdin, flush=True)
            return process.stdout.readline().strip()

        yield one
        process.stdin.close()


@pytest.mark.parametrize(
    ("dropout", "threads", "settings", "ends"),
    [
        (0.0, 2, {"pack_tokens": 64}, [("step", 2), ("file", 2), ("tip", 1), ("step", 4)]),
        (0.1, 1, {"packing": False}, [("step", 4), ("file", 1), ("step", 5)]),
        (0.1, 2, {"pack_tokens": 96, "optimizer_state": "reset"}, [("tip", 1), ("file", 4), ("step", 1)]),
    ],
    ids=["many passes, 2 threads", "not packed, dropout", "reset, dropout, 2 threads"],
)
def test_a_killed_trainer_ends_in_the_files_of_one_that_was_not(
    realm, ledger, tmp_path, live, dropout, threads, settings, ends
):
    model = micro_hero(5)
    model.config.attention_dropout = dropout
    save_model(model, realm.models / "brought", BUNDLED_TOKENIZER)
    quests = [accept_sums(realm, ledger, name, count, **SETTINGS, **settings) for name, count in (("a", 24), ("b", 80))]
    ledger.close()
    twin = RealmPaths(tmp_path / "twin")
    shutil.copytree(realm.root, twin.root, symlinks=True)
    assert live(realm, threads) == "0"
    exits = [live(twin, threads, end) for end in ends]
    assert exits == [KILLED] * len(ends) and live(twin, threads) == "0"
    straight, killed = (verify(paths.vault / pointed(paths.tip)) for paths in (realm, twin))
    assert straight.step == 13 and straight.trained == ((quests[0], quests[1]),)
    assert killed.files == straight.files, "weights, optimizer, random streams, guard: by their SHA-256"
    assert {"python", "torch", "tokenizers", "threads", "attention", "compute"} <= straight.versions.keys()
    with_dropout = json.loads((twin.current_model / "config.json").read_bytes())["attention_dropout"]
    assert with_dropout == dropout and Ledger(twin.ledger).one("SELECT COUNT(*) AS n FROM quests")["n"] == 2


def test_pythons_and_numpys_random_streams_come_back_as_well(tmp_path):
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(2))])
    random.seed(3), np.random.seed(3), random.gauss(0, 1), np.random.standard_normal()
    save_state(tmp_path, optimizer)
    drawn = random.random(), random.gauss(0, 1), np.random.random(), np.random.standard_normal()
    load_state(tmp_path, optimizer)
    assert drawn == (random.random(), random.gauss(0, 1), np.random.random(), np.random.standard_normal())
