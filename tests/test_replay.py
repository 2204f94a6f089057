"""Replay: rows of earlier quests beside those of a battle, the same whatever happens, and less is forgotten for them."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from resident import accept_sums, fight, resident

from core import replay
from core.battle import BattlePlan
from core.checkpoints import Manifest, verify
from core.config import Config
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.prepare import Prepared, prepare
from core.quest import Sidecar, freeze
from core.rendering import Renderer

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
    kept = Prepared(worker.paths.replay("DIO") / "BIN-1")
    shortest, longest = (f(len(kept.sequences(row)[0][0]) for row in range(len(kept))) for f in (min, max))
    for facts, mine in zip(seen, own, strict=True):
        assert 4 * shortest <= facts.tokens - mine <= 4 * longest, "a fifth of twenty rows"


def test_nothing_is_replayed_that_was_held_out_or_of_the_same_skill(life):
    worker = life("one")
    sums = worker.plan_of(worker.queue.quests("recently_completed")[0])
    held_out = {tokens.tobytes() for tokens, _ in sums.sequences_of(sums.held_out_rows.tolist())}
    kept = Prepared(worker.paths.replay("DIO") / "BIN-1")
    rows = {tokens.astype(np.int64).tobytes() for row in range(len(kept)) for tokens, _ in kept.sequences(row)}
    assert len(rows) == len(kept) == sums.training_rows
    assert not rows & {np.frombuffer(each, kept.meta["dtype"]).astype(np.int64).tobytes() for each in held_out}
    accept_sums(worker.paths, worker.ledger, "more", 32, skill="BIN", replay_ratio=0.5)
    assert fight(worker)
    quest = next(quest for quest in worker.queue.quests("normal") if quest.stem == "more")
    plan = worker.plan_of(quest)
    found = replay.with_replay(plan, quest, worker.paths, kept.meta["fingerprint"], worker.tip, worker.tip)
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


@pytest.fixture
def plan(realm):
    """Of a few rows, and of no hero; a fifth of each step is replay."""
    file = realm.root / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in COLOURS[:8]))
    settings = freeze(Config(replay_ratio=0.2), Sidecar(batch_size=4))
    renderer = Renderer.load(BUNDLED_TOKENIZER, settings.max_length)
    return BattlePlan(prepare(file, "question", settings, renderer, realm.prepared / "rows"), settings, "sha256")


@pytest.fixture
def begin(realm, plan):
    """A battle of this quest begins: names of what is replayed beside it. `trained` is the first and the last quest that the
    weights hold, `tip` those of the newest checkpoint on disk, which may be behind."""

    def begin(number, trained=(), tip=None, skill="SEQ", hero="DIO", print="print"):
        held, durable = (
            Manifest(hero, "first", 1, trained=(each,) if each else ()) for each in (trained, tip or trained)
        )
        quest = SimpleNamespace(id=number, card={"skill": skill})
        found = replay.with_replay(plan, quest, realm, print, held, durable).replay
        return sorted(kept.folder.name for _, pool in found.pools for kept in pool) if found else []

    return begin


FIRST, LAST = 100, 140
FAIR = [f"SEQ-{n}" for n in sorted(range(FIRST, LAST), key=replay._rank)[: replay.QUESTS]]


def test_of_many_quests_a_fair_sample_stays(realm, begin):
    for quest in range(FIRST, LAST):
        begin(quest, quest > FIRST and (FIRST, quest - 1))
    assert begin(LAST, (FIRST, LAST - 1), skill=None) == sorted(FAIR)
    kept = sorted(int(folder.name.rpartition("-")[2]) for folder in realm.replay("DIO").glob("SEQ-*"))
    assert len(kept) <= replay.QUESTS + 1, "the newest is not sorted out yet"
    assert kept[0] < FIRST + 15 and kept[-1] > LAST - 15, "old ones and new ones"


def test_what_a_battle_draws_follows_from_what_the_weights_hold_and_not_from_battles_that_were_begun(begin):
    for quest in range(FIRST, LAST - 1):
        before = (FIRST, quest - 1) if quest > FIRST else ()
        begin(quest, before)
        drawn = begin(1, before, skill=None)
        begin(quest + 1, (FIRST, quest), tip=before)  # `quest` is trained, and its checkpoint on its way
        assert begin(1, before, skill=None) == drawn, "a kill brings the hero back to where it was"


def test_what_was_only_begun_makes_no_room_for_itself(realm, begin):
    for quest in range(FIRST, LAST):
        begin(quest, quest > FIRST and (FIRST, quest - 1))
    for cursed in range(LAST, LAST + 60):
        begin(cursed, (FIRST, LAST - 1))
    assert begin(1, (FIRST, LAST - 1), skill=None) == sorted(FAIR)
    assert len(list(realm.replay("DIO").iterdir())) < 6 * replay.QUESTS, "though those who might come in are kept"


def test_heroes_keep_rows_of_their_own(realm, begin):
    begin(1, skill="REV"), begin(2, (1, 1), skill="BIN")
    begin(3, skill="REV", hero="Other", print="of another tokenizer"), begin(4, skill=None, hero="Other")
    assert begin(5, (1, 2), skill=None) == ["BIN-2", "REV-1"]


@pytest.mark.parametrize(
    "skill", ["math/algebra", "../../models/x", "/elsewhere/x", "", ".", "nothing we know", "files", "a-1"]
)
def test_a_skill_that_nobody_knows_is_no_folder(realm, begin, skill):
    before = {path for path in realm.root.rglob("*") if path.is_dir()}
    begin(1, skill=skill)
    assert {path for path in realm.root.rglob("*") if path.is_dir()} - before == {
        realm.replay("DIO").parent,
        realm.replay("DIO"),
        realm.replay("DIO") / "files-1",
    }


def test_a_skill_is_the_same_in_small_letters(realm, begin):
    begin(1, skill="bin")
    assert begin(2, (1, 1), skill="BIN") == [] and begin(3, (1, 1), skill=None) == ["BIN-1"]


def test_whoever_replays_nothing_reads_nothing_of_what_is_kept(realm, begin, plan):
    begin(1, skill="BIN")
    without = replace(plan, settings=plan.settings.model_copy(update={"replay_ratio": 0.0}))
    (realm.replay("DIO") / "BIN-1" / "meta.json").unlink()
    quest, tip = SimpleNamespace(id=2, card={}), Manifest("DIO", "first", 1, trained=((1, 1),))
    assert replay.with_replay(without, quest, realm, "print", tip, tip).replay is None
    assert (realm.replay("DIO") / "files-2").is_dir(), "and keeps rows for whoever will"
