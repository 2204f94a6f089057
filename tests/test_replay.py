"""Replay: rows of earlier quests beside those of a battle, the same whatever happens, and less is forgotten for them."""

import shutil

import numpy as np
import pytest
from resident import accept_sums, fight, resident

from core import replay
from core.checkpoints import verify
from core.ledger import Ledger
from core.paths import RealmPaths
from core.prepare import Prepared

COLOURS = [{"question": f"Colour {n}?", "answer": f"{('red', 'green', 'blue')[n % 3]}"} for n in range(96)]
TRAINING = {"validation_fraction": 0.1, "save_steps": 3, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A realm whose hero has learned sums, by a skill."""
    paths = RealmPaths(tmp_path_factory.mktemp("learned"))
    paths.make()
    ledger = Ledger(paths.ledger)
    worker = resident(paths, ledger)
    accept_sums(paths, ledger, "sums", 96, skill="BIN", epochs=4, **TRAINING)
    assert fight(worker)
    return paths


@pytest.fixture
def life(learned, tmp_path):
    """Its twin with a quest of colours before it, of which a share is replay; as often as one asks."""

    def begin(name, ratio=0.25):
        shutil.copytree(learned.root, tmp_path / name, symlinks=True)
        paths = RealmPaths(tmp_path / name)
        worker = resident(paths, Ledger(paths.ledger))
        accept_sums(paths, worker.ledger, "colours", rows=COLOURS, epochs=4, replay_ratio=ratio, **TRAINING)
        return worker

    return begin


def loss_of_sums(worker):
    """Nats per label of the sums that were held out."""
    quest = next(quest for quest in worker.queue.quests("recently_completed") if quest.stem == "sums")
    return worker.trainer.held_out_loss(worker.plan_of(quest))


def test_what_was_learned_before_is_kept_better(life):
    plain, replayed = life("plain", 0.0), life("replayed", 0.25)
    before = loss_of_sums(plain)
    assert before == loss_of_sums(replayed)
    assert fight(plain) and fight(replayed)
    forgotten, kept = loss_of_sums(plain) - before, loss_of_sums(replayed) - before
    assert forgotten > 1 and kept < 0.2 * forgotten


def test_a_step_has_the_quests_rows_and_a_share_of_earlier_ones_beside_them(life):
    worker = life("one", 0.2)
    seen = []
    step = worker.report.step
    worker.report.step = lambda facts: (seen.append(facts), step(facts))
    quest = worker.queue.quests("normal")[0]
    plan = worker.plan_of(quest)
    assert fight(worker)
    own = [sum(len(tokens) for tokens, _ in plan.sequences_at(number)) for number in range(plan.total_steps)]
    assert len(seen) == plan.total_steps and all(facts.tokens > mine for facts, mine in zip(seen, own, strict=True))
    kept = Prepared(worker.paths.replay / "BIN-1")
    shortest, longest = (f(len(kept.sequences(row)[0][0]) for row in range(len(kept))) for f in (min, max))
    for facts, mine in zip(seen, own, strict=True):
        assert 4 * shortest <= facts.tokens - mine <= 4 * longest, "a fifth of twenty rows"


def test_nothing_is_replayed_that_was_held_out_or_of_the_same_skill(life):
    worker = life("one")
    sums = worker.plan_of(worker.queue.quests("recently_completed")[0])
    held_out = {tokens.tobytes() for tokens, _ in sums.sequences_of(sums.held_out_rows.tolist())}
    kept = Prepared(worker.paths.replay / "BIN-1")
    rows = {tokens.astype(np.int64).tobytes() for row in range(len(kept)) for tokens, _ in kept.sequences(row)}
    assert len(rows) == len(kept) == sums.training_rows
    assert not rows & {np.frombuffer(each, kept.meta["dtype"]).astype(np.int64).tobytes() for each in held_out}
    accept_sums(worker.paths, worker.ledger, "more", 32, skill="BIN", replay_ratio=0.5)
    assert fight(worker)
    quest = next(quest for quest in worker.queue.quests("normal") if quest.stem == "more")
    plan = worker.plan_of(quest)
    found = replay.with_replay(plan, quest, worker.paths, worker.tip.trained, kept.meta["fingerprint"], {})
    assert [pool for _, pool in found.replay.pools] and all(
        kept.folder.name.startswith("files-") for _, pool in found.replay.pools for kept in pool
    )


def test_a_kill_between_changes_no_weight(life, monkeypatch):
    straight, worker = life("straight"), life("killed")
    assert fight(straight)
    killed, expected = worker.paths, straight.tip

    class Killed(BaseException):
        pass

    finish = type(worker).save

    def die_later(self, quest, plan, global_step, step, looked):
        finish(self, quest, plan, global_step, step, looked)
        if 6 <= step < plan.total_steps:
            self.collect(patient=True)
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(type(worker), "save", die_later)
        with pytest.raises(Killed):
            worker.loop()
    again = resident(killed, Ledger(killed.ledger))
    assert again.tip.open
    assert fight(again)
    found = again.tip
    assert found.files["model.safetensors"] == expected.files["model.safetensors"]
    assert verify(killed.vault / found.id).trained == expected.trained


def test_a_skill_whose_canaries_fell_comes_oftener():
    canaries = {"BIN/1": [64, 64], "BIN/2": [16, 64], "REV/1": [64, 64]}
    weights = {pool: replay._weight(pool, canaries) for pool in ("BIN", "REV", "files")}
    assert weights["BIN"] > weights["files"] > weights["REV"]


def test_of_many_quests_a_fair_sample_stays(life):
    worker = life("one")
    plan = worker.plan_of(worker.queue.quests("recently_completed")[0])
    for quest in range(100, 140):
        replay._keep(worker.paths, quest, "SEQ", plan, ((1, quest),), "print")
    kept = {int(folder.name.rpartition("-")[2]) for folder in worker.paths.replay.glob("SEQ-*")}
    assert len(kept) == replay.QUESTS and kept == set(sorted(range(100, 140), key=replay._rank)[: replay.QUESTS])
    assert min(kept) < 110 and max(kept) > 130, "old ones and new ones"
