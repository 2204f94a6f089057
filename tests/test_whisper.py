"""The Whisper in a resident hero: nearer to its teacher, killed and gone on the same, teachers that cannot be heard."""

import gc
import json
import re
import shutil

import pytest
import torch
from resident import Killed, accept_sums, dying_at, fight, resident
from transformers import Qwen3ForCausalLM

from core import checkpoints
from core.between_steps import BetweenSteps
from core.checkpoints import set_champion
from core.config import Config, Retention
from core.errors import UserError
from core.forge.divergence import divergence, divergence_sum
from core.forge.hatch import micro_hero
from core.forge.state import save_model
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.quest import Sidecar, freeze
from core.rendering import Renderer
from core.school_config import Schools, WhisperSettings
from core.steps import last_told
from core.teacher import check_room, teacher_folder
from core.validator import validate_file
from management.retention import retain
from management.trash import delete

pytestmark = pytest.mark.usefixtures("small_hero")


FILE = "model.safetensors"


@pytest.fixture(scope="module")
def teacher():
    """A model that is sure of what it says."""
    model = micro_hero(9)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(3)
    return model


def _whisper(teacher: str | None = "sage", **settings) -> dict:
    return {"school": "whisper", "schools": Schools(whisper=WhisperSettings(teacher=teacher, **settings))}


@pytest.mark.micro
def test_a_hero_comes_nearer_to_its_teacher_which_is_let_go_afterwards(realm, ledger, teacher):
    hero = resident(realm, ledger)  # before the folder is there: it would be the hero's own beginning
    save_model(teacher, realm.models / "sage", BUNDLED_TOKENIZER)
    settings = {"learning_rate": 1e-3, "eval_steps": 8, "epochs": 3, **_whisper()}
    quest = accept_sums(realm, ledger, "heard", 128, **settings)
    assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)
    looks = ledger.all("SELECT value FROM evaluations WHERE quest=? AND kind='validation' ORDER BY id", (quest,))
    assert looks[-1]["value"] <= looks[0]["value"] / 2
    told = last_told(realm.metrics, hero.tip.hero, quest)
    assert told["divergence"] == pytest.approx(looks[-1]["value"], rel=0.5)
    gc.collect()
    models = [each for each in gc.get_objects() if isinstance(each, Qwen3ForCausalLM)]
    assert len(models) <= 2 and {id(each) for each in models} <= {id(hero.trainer.model), id(teacher)}


def test_a_battle_that_was_killed_goes_on_with_its_own_words(realm, ledger, tmp_path, monkeypatch, teacher):
    own = {"on_policy": 0.5, "max_new_tokens": 6, "beta": 0.5, "temperature": 1.5}
    settings = {"learning_rate": 3e-4, "save_steps": 2, **_whisper(**own)}
    twin = RealmPaths(tmp_path / "twin")
    twin.make()
    whole, first = resident(twin, Ledger(twin.ledger)), resident(realm, ledger)
    for paths in (twin, realm):
        save_model(teacher, paths.models / "sage", BUNDLED_TOKENIZER)
    quest = accept_sums(twin, whole.ledger, "heard", 128, **settings)
    assert fight(whole)

    accept_sums(realm, ledger, "heard", 128, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(BetweenSteps, "after_step", dying_at(5))
        with pytest.raises(Killed):
            fight(first)
    hero = resident(realm, ledger)
    assert 0 < hero.tip.step < 5
    assert fight(hero) and hero.tip.files["model.safetensors"] == whole.tip.files["model.safetensors"]
    spoke = whole.report.record._connection.execute("SELECT step FROM told WHERE name='answer_tokens'").fetchall()
    assert [row["step"] for row in spoke] == [2, 4, 6, 8] and last_told(twin.metrics, whole.tip.hero, quest)


def _renamed(folder, number: int) -> None:
    """Another tokenizer: one of its tokens has another name."""
    path = folder / "tokenizer.json"
    values = json.loads(path.read_bytes())
    name = next(name for name, each in values["model"]["vocab"].items() if each == number)
    values["model"]["vocab"] = {
        ("~" + name if key == name else key): each for key, each in values["model"]["vocab"].items()
    }
    values["model"]["merges"] = []
    path.write_text(json.dumps(values))


def test_a_teacher_that_cannot_be_heard_is_named_before_anything_is_lost(realm, ledger, teacher):
    hero = resident(realm, ledger)
    for name in ("sage", "stranger", "empty"):
        save_model(teacher, realm.models / name, BUNDLED_TOKENIZER)
    _renamed(realm.models / "stranger", 1000)
    (realm.models / "empty" / "model.safetensors").unlink()
    expected = {
        "sagge": r"there is no folder models/sagge and no such checkpoint; did you mean 'sage'?",
        "../models/sage": "there is no folder models/../models/sage",
        "vault": "there is no folder models/vault",
        "stranger": "its tokenizer is another: 1 of 4,096 tokens differ, number 1000 is '~",
        "empty": "schools.whisper.teacher = 'empty': ",
    }
    for place, (name, reason) in enumerate(expected.items()):
        quest = accept_sums(realm, ledger, f"heard{place}", 16, **_whisper(name))
        for _ in range(3):
            fight(hero)
        battle = ledger.one("SELECT state, reason FROM quests WHERE id=?", (quest,))
        assert battle["state"] == "failed" and reason in battle["reason"], battle["reason"]
    assert hero.tip.step == 0
    with pytest.raises(UserError, match=r"its weights take 0.01 GiB, 0.00 GiB are free; take a smaller teacher"):
        check_room(realm.models / "sage", 1000)
    assert teacher_folder(realm, hero.tip.id) == realm.vault / hero.tip.id


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_a_divergence_in_chunks_is_that_of_all_logits_at_once_and_so_are_its_gradients(beta, temperature, monkeypatch):
    monkeypatch.setattr("core.forge.divergence.LEAST_ROWS", 5)
    monkeypatch.setattr("core.forge.divergence.LOGITS_AT_ONCE", 1)
    chance = torch.Generator().manual_seed(4)
    sizes = ((23, 8), (50, 8), (23, 6), (50, 6), (23,))
    mine_ND, mine_VD, theirs_NE, theirs_VE, weights_N = (torch.randn(size, generator=chance) for size in sizes)

    def in_chunks(leaves, weights_N):
        return divergence_sum(*leaves, theirs_NE, theirs_VE, weights_N, beta, temperature)

    def at_once(leaves, weights_N):
        logits = leaves[0] @ leaves[1].T, theirs_NE.double() @ theirs_VE.double().T
        each_N = divergence(*((each / temperature).log_softmax(-1) for each in logits), beta)
        return (each_N if weights_N is None else each_N * weights_N).sum(), each_N

    for weights in (None, weights_N.abs()):
        found = []
        for work, kind in ((in_chunks, torch.float32), (at_once, torch.float64)):
            leaves = [tensor.to(kind, copy=True).requires_grad_() for tensor in (mine_ND, mine_VD)]
            total, each_N = work(leaves, weights)
            (total * 0.5).backward()
            found.append((total, each_N, *(leaf.grad for leaf in leaves)))
        for ours, plain in zip(*found, strict=True):
            assert (ours - plain).norm() <= 1e-6 * plain.norm()


def test_a_pass_without_labels_has_no_divergence():
    none_ND, head_VD = torch.zeros(0, 4, requires_grad=True), torch.ones(7, 4, requires_grad=True)
    total, each_N = divergence_sum(none_ND, head_VD, torch.zeros(0, 4), torch.ones(7, 4))
    total.backward()
    assert total.item() == 0 and len(each_N) == 0 and not head_VD.grad.any()


def test_a_checkpoint_that_is_to_teach_stays_until_it_has_taught(realm, ledger):
    hero = resident(realm, ledger)
    for stem in ("first", "second", "third"):
        accept_sums(realm, ledger, stem, 16)
        assert fight(hero)
    early = checkpoints.manifests(realm)[2].id
    little = Retention(keep_last=2, keep_promoted=1, keep_daily=0, keep_weekly=0)
    set_champion(realm, hero.tip.id)
    assert early in retain(realm, little, ledger, lambda: 1e12, dry_run=True)
    quest = accept_sums(realm, ledger, "heard", 16, **_whisper(early))
    assert early not in retain(realm, little, ledger, lambda: 1e12, dry_run=True)
    assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)
    assert early in retain(realm, little, ledger, lambda: 1e12, dry_run=True)


def test_a_battle_whose_teacher_was_changed_under_its_name_begins_anew_and_says_so(
    realm, ledger, tmp_path, monkeypatch, teacher
):
    settings = {"learning_rate": 3e-4, "save_steps": 1, **_whisper()}
    twin = RealmPaths(tmp_path / "twin")
    twin.make()
    whole, first = resident(twin, Ledger(twin.ledger)), resident(realm, ledger)
    for paths, weights in ((twin, micro_hero(10)), (realm, teacher)):
        save_model(weights, paths.models / "sage", BUNDLED_TOKENIZER)
    quest = accept_sums(twin, whole.ledger, "heard", 64, **settings)
    assert fight(whole) and whole.tip.teachers == {str(quest): checkpoints.sha256_of(twin.models / "sage" / FILE)}

    accept_sums(realm, ledger, "heard", 64, **settings)
    with monkeypatch.context() as patch:
        patch.setattr(BetweenSteps, "after_step", dying_at(3))
        with pytest.raises(Killed):
            fight(first)
    hero = resident(realm, ledger)
    assert 0 < hero.tip.step < 3
    assert hero.tip.teachers == {str(quest): checkpoints.sha256_of(realm.models / "sage" / FILE)}
    shutil.rmtree(realm.models / "sage")
    shutil.copytree(twin.models / "sage", realm.models / "sage")
    assert fight(hero) and hero.tip.files[FILE] == whole.tip.files[FILE] and hero.tip.teachers == whole.tip.teachers
    (told,) = ledger.all("SELECT text FROM events WHERE code='quest_anew'")
    assert re.search(
        r"heard: its teacher's weights are not those of its first [12] steps; it begins anew", told["text"]
    )
    accept_sums(realm, ledger, "read", 16)
    assert fight(hero) and hero.tip.teachers == {}


def test_what_a_waiting_quest_needs_is_not_deleted_by_hand(realm, ledger, monkeypatch):
    hero = resident(realm, ledger)
    for stem in ("first", "second", "third", "fourth"):
        accept_sums(realm, ledger, stem, 16)
        assert fight(hero)
    early, began = (checkpoints.manifests(realm)[place].id for place in (3, 0))
    quest = accept_sums(realm, ledger, "heard", 48, save_steps=1, **_whisper(early))
    with monkeypatch.context() as patch:
        patch.setattr(BetweenSteps, "after_step", dying_at(3))
        with pytest.raises(Killed):
            fight(hero)
    hero = resident(realm, ledger)
    assert hero.tip.began == {str(quest): began}
    hero.queue.put_back(hero.queue.processing()[0], "low")
    for stem in ("fifth", "sixth"):
        accept_sums(realm, ledger, stem, 16)
        assert fight(hero)
    with pytest.raises(UserError, match=f"{early} stays: a quest that waits or is trained has it for its teacher"):
        delete(realm, ledger, early)
    with pytest.raises(UserError, match=f"{began} stays: a battle that waits to go on began from it"):
        delete(realm, ledger, began)
    assert fight(hero) and checkpoints.holds(hero.tip.trained, quest)
    set_champion(realm, hero.tip.id)
    for unneeded in (early, began):
        delete(realm, ledger, unneeded)
    assert not {early, began} & {manifest.id for manifest in checkpoints.manifests(realm)}


def test_a_quest_for_the_whisper_without_a_teacher_is_refused_at_the_gate(realm):
    path = realm.claims / "heard.jsonl"
    path.write_text('{"question": "1?", "answer": "2."}\n')
    report = validate_file(path, freeze(Config(), Sidecar(school="whisper")), Renderer.load(BUNDLED_TOKENIZER, 256))
    assert report["verdict"] == "rejected" and "needs a teacher: set schools.whisper.teacher" in report["reason"]


def test_passes_that_hold_a_teacher_too_are_half_as_wide_unless_their_width_is_named():
    beside, server = (WhisperSettings(teacher="sage"), WhisperSettings(url="http://box", model="sage"))
    usual = freeze(Config(), Sidecar(school="scribe"))
    assert usual.pass_tokens(2048) == 2048
    taught = {"school": "whisper", "schools": Schools(whisper=beside)}
    assert usual.model_copy(update=taught).pass_tokens(2048) == 1024
    assert usual.model_copy(update=taught | {"pack_tokens": 512}).pass_tokens(2048) == 512
    assert usual.model_copy(update=taught | {"schools": Schools(whisper=server)}).pass_tokens(2048) == 2048
