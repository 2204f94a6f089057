"""A cooldown on a branch: it lowers the loss, is never gone back to, and training does not notice that it happened."""

import json
import os
import shutil
import subprocess
import sys
from argparse import Namespace
from pathlib import Path
from threading import Event

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from core import checkpoints
from core.battle import BattlePlan
from core.checkpoints import Manifest, pointed, read, verify
from core.config import Config, IdleGeneration
from core.cooldown_plan import CooldownPlan, cooldown_plan, usual_steps
from core.errors import RealmError, UserError
from core.forge.consolidate import recast
from core.forge.cooldown import CooledHero
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, CHECKOUT, RealmPaths
from core.quest import Sidecar, freeze, quest_name
from core.rendering import Renderer
from core.training_queue import TrainingQueue
from core.validator import validate_file
from core.worker import Worker
from management import gguf
from management.export import LONG_NAMES
from training.commands import vault_models
from training.realm import Realm

pytestmark = pytest.mark.usefixtures("small_hero")

CONFIG = Config(idle_generation=IdleGeneration(enabled=False))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def enqueue(paths: RealmPaths, ledger: Ledger, stem: str, count: int, **settings) -> int:
    """Accept a quest of `count` sums, as the daemon would."""
    quest = ledger.add("quests", stem=stem, origin="user", state="arriving", priority="normal", created=0, updated=0)
    claimed = paths.claims / f"{quest_name(stem, quest)}.jsonl"
    rows = ({"question": f"{stem} {n} plus 1?", "answer": f"It is {n + 1}."} for n in range(count))
    claimed.write_text("".join(json.dumps(row) + "\n" for row in rows))
    frozen = freeze(CONFIG, Sidecar()).model_copy(update={"validation_fraction": 0.2, **settings})
    report = validate_file(claimed, frozen, Renderer.load(BUNDLED_TOKENIZER, 256))
    facts = {key: report[key] for key in ("sha256", "bytes", "rows", "bad_rows", "form", "school")}
    card = {"quest": quest, "stem": stem, "settings": frozen.model_dump(), **facts}
    TrainingQueue(paths, ledger).accept(claimed, "normal", card, report)
    return quest


def fight_all(paths: RealmPaths) -> Manifest:
    """Wake the hero up, let it train what waits, and answer its tip."""
    ledger, should_exit = Ledger(paths.ledger), Event()
    worker = Worker(paths, CONFIG, ledger, should_exit, lambda: None)
    worker.awaken()
    while worker.loop():
        pass
    should_exit.set()
    worker.run()
    ledger.close()
    return read(paths.vault / pointed(paths.tip))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> RealmPaths:
    """A realm whose hero has trained two quests while a third waits; tests change copies of it only."""
    paths = RealmPaths(tmp_path_factory.mktemp("trained") / "realm")
    paths.make()
    paths.config.write_text('{"idle_generation": {"enabled": false}}')
    ledger = Ledger(paths.ledger)
    enqueue(paths, ledger, "old", 80, learning_rate=3e-3)
    enqueue(paths, ledger, "new", 160, learning_rate=3e-3)
    fight_all(paths)
    enqueue(paths, ledger, "later", 40)
    ledger.close()
    return paths


@pytest.fixture
def copied(trained, tmp_path):
    """A function that copies the realm."""

    def copy(name="realm") -> RealmPaths:
        shutil.copytree(trained.root, tmp_path / name, symlinks=True)
        return RealmPaths(tmp_path / name)

    return copy


@pytest.fixture
def tip(trained) -> Manifest:
    return read(trained.vault / pointed(trained.tip))


def vault_verb(paths: RealmPaths, *words) -> dict:
    command = [sys.executable, "-m", "training", "--root", paths.root, "vault", *words, "--json"]
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}  # as here: the same weights, to the last bit
    done = subprocess.run(list(map(str, command)), cwd=CHECKOUT, capture_output=True, text=True, env=one_thread)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"told": done.stderr}


def all_files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


# Training goes on undisturbed


def test_the_next_checkpoint_is_the_same_whether_or_not_a_model_was_cooled_down_and_exported(
    copied, tip, tmp_path, capsys
):
    plain, paths = copied("plain"), copied("busy")
    before = all_files(paths.vault / tip.id), pointed(paths.tip), pointed(paths.current_model), all_files(paths.queue)
    cooled = vault_verb(paths, "cooldown", "tip", "--steps", 6)
    export = {"to": str(tmp_path / "out" / "model"), "cooldown": 6, "action": "export"}
    vault_models.export_model(realm_with(paths, **export), tip.id)
    exported = json.loads(capsys.readouterr().out)
    after = all_files(paths.vault / tip.id), pointed(paths.tip), pointed(paths.current_model), all_files(paths.queue)
    assert before == after
    branch = verify(paths.vault / cooled["checkpoint"])
    assert (branch.branch, branch.parent, branch.step) == ("cooldown", tip.id, tip.step + 6)
    assert (branch.exams, branch.verdict, branch.weight_size) == ([], None, None), "nobody has judged these weights"
    assert branch.trained == tip.trained and "-cooldown-" in branch.id and "optimizer.safetensors" not in branch.files
    assert cooled["cooldown"] == exported["cooldown"] == branch.settings["cooldown"]
    assert weights(tmp_path / "out" / "model") == weights(paths.vault / branch.id), "the same seed, the same weights"
    assert "6 of 6" in cooled["told"] and "to go" in cooled["told"]
    ledger = Ledger(paths.ledger)
    assert ledger.one("SELECT state, parent FROM checkpoints WHERE id=?", (branch.id,)) == {
        "state": "saved",
        "parent": tip.id,
    }
    ledger.close()
    one, other = fight_all(plain), fight_all(paths)
    assert one.step == other.step > tip.step and other.parent == tip.id
    assert (
        all_files(plain.vault / one.id)["model.safetensors"] == all_files(paths.vault / other.id)["model.safetensors"]
    )
    assert one.files == other.files


def test_after_a_crash_a_branch_is_never_what_training_goes_on_from(copied, tip):
    paths = copied()
    branch = cooled_branch(paths, tip, steps=2)
    shutil.rmtree(paths.vault / tip.id)
    found = checkpoints.newest_verified(paths, tip.hero)
    assert found is not None and found.branch is None and found.step < tip.step < branch.step
    checkpoints.set_tip(paths, branch.id)
    assert checkpoints.newest_verified(paths, tip.hero).id == found.id, "not even where the pointer was turned to it"


def cooled_branch(paths: RealmPaths, manifest: Manifest, steps: int) -> Manifest:
    hero = CooledHero(paths, manifest, cooldown_plan(paths, manifest, steps), lambda step, seconds: None)
    return checkpoints.commit(paths, hero.branch(), lambda folder: hero.write(folder, paths.vault / manifest.id))


# What it does


def test_a_cooldown_lowers_the_held_out_loss(copied, tip):
    paths, told = copied(), []
    plan = cooldown_plan(paths, tip, 12)
    hero = CooledHero(paths, tip, plan, lambda step, seconds: told.append(step))
    assert told == list(range(1, 13))
    assert hero.told.loss_after < hero.told.loss_before
    assert hero.told.rows == 12 * plan.settings.batch_size and hero.told.learning_rate == 3e-3


def test_its_rows_are_those_of_the_newest_quests_and_what_was_held_out_stays_so(trained, tip):
    assert cooldown_plan(trained, tip, 1).quest_ids == (2,)
    whole = cooldown_plan(trained, tip, 40)
    assert whole.quest_ids == (2, 1) and whole.total_steps == 40
    held = {tokens.tobytes() for tokens, _ in whole.sequences_of(whole.held_out_rows.tolist())}
    used = {tokens.tobytes() for step in range(40) for tokens, _ in whole.sequences_of(whole.rows_of(step))}
    assert len(held) == 48 and len(used) == 240 - 48 and not held & used
    again = cooldown_plan(trained, tip, 40)
    assert [whole.rows_of(step) for step in range(40)] == [again.rows_of(step) for step in range(40)]


def test_its_usual_length_is_a_tenth_of_the_life_and_at_most_once_over_the_rows(trained, tip):
    assert (usual_steps(Manifest("DIO", "first", 0)), usual_steps(Manifest("DIO", "first", 20_000))) == (0, 1000)
    assert cooldown_plan(trained, tip, None).steps == usual_steps(tip) == round(tip.step / 10)
    old = Manifest("DIO", "first", 5000, trained=tip.trained, settings=tip.settings, id=tip.id)
    plan: CooldownPlan = cooldown_plan(trained, old, None)
    assert plan.steps == plan.steps_per_epoch == 24 and isinstance(plan, BattlePlan)


def test_without_rows_a_cooldown_is_refused_and_an_export_goes_without(copied, tip, tmp_path, monkeypatch):
    paths = copied()
    for path in paths.queued("recently_completed").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no rows to cool down on"):
        cooldown_plan(paths, tip, 5)
    folder = tmp_path / "model"
    told = []
    monkeypatch.setattr(vault_models, "_say", told.append)
    vault_models.export_model(realm_with(paths, to=str(folder), cooldown="auto", action="export"), tip.id)
    assert "no cooldown" in told[0] and weights(folder) == weights(paths.vault / tip.id)


# Exports


def realm_with(paths: RealmPaths, **args) -> Realm:
    return Realm(Namespace(**{"root": str(paths.root), "json": True, "dtype": None, "gguf": False, **args}))


def test_an_export_is_a_plain_model_folder_with_its_lineage(copied, tip, tmp_path):
    paths, folder = copied(), tmp_path / "model"
    vault_models.export_model(realm_with(paths, to=str(folder), cooldown=0, action="export"), tip.id)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "1 plus 1?"}], add_generation_prompt=True)
    assert prompt and model.config.use_cache and weights(folder) == weights(paths.vault / tip.id)
    assert not {path.name for path in folder.iterdir()} & {*checkpoints.STATE_FILES, checkpoints.MANIFEST}
    card = (folder / "README.md").read_text()
    assert tip.id in card and tip.parent in card and "| 2 | new | 160 | scribe |" in card and "cooldown | none" in card
    with pytest.raises(UserError, match="exists already"):
        vault_models.export_model(realm_with(paths, to=str(folder), cooldown=0, action="export"), tip.id)


@pytest.mark.parametrize("kind", ["bf16", "fp16", "fp32"])
def test_an_export_has_the_numbers_that_were_asked_for(copied, tip, tmp_path, kind):
    paths, folder = copied(), tmp_path / "model"
    vault_models.export_model(realm_with(paths, to=str(folder), cooldown=0, action="export", dtype=kind), tip.id)
    model, before = (
        AutoModelForCausalLM.from_pretrained(folder),
        AutoModelForCausalLM.from_pretrained(paths.current_model),
    )
    wanted = getattr(torch, LONG_NAMES[kind])
    assert {tensor.dtype for tensor in model.state_dict().values()} == {wanted} and model.config.use_cache
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor.to(wanted)), name
    assert sorted(path.name for path in folder.glob("*.safetensors*")) == ["model.safetensors"]
    card = (folder / "README.md").read_text()
    assert f"| numbers | {LONG_NAMES[kind]} |" in card and "held-out token accuracy" in card


def test_numbers_that_do_not_fit_are_refused_and_nothing_is_left(tmp_path):
    save_file({"w": torch.tensor([1e6])}, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match="w holds numbers beyond what fp16 can say"):
        recast(tmp_path, "fp16")
    assert load_file(tmp_path / "model.safetensors")["w"] == 1e6


def test_gguf_is_left_to_the_converter_of_llama_cpp_which_is_asked_for_where_it_is_not(
    copied, tip, tmp_path, monkeypatch
):
    """The converter itself is not ours and not here: a script in its place notes how it is called."""
    paths, folder, script = copied(), tmp_path / "model", tmp_path / "llama.cpp" / gguf.SCRIPT
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    export = {"cooldown": 0, "action": "export", "dtype": "bf16", "gguf": True}
    with pytest.raises(UserError, match=r"neither on PATH nor named by LLAMA_CPP"):
        vault_models.export_model(realm_with(paths, to=str(folder), **export), tip.id)
    script.parent.mkdir()
    script.write_text("import json, sys; open(sys.argv[3], 'w').write(json.dumps(sys.argv[1:]))")
    monkeypatch.setenv("LLAMA_CPP", str(script.parent))
    vault_models.export_model(realm_with(paths, to=str(folder), **export), tip.id)
    called = json.loads((folder / f"{tip.id}.gguf").read_text())
    assert called[1:] == ["--outfile", called[2], "--outtype", "bf16"] and called[2].endswith(f"/{tip.id}.gguf")
    modelfile = (folder / "Modelfile").read_text()
    assert modelfile.startswith(f"FROM ./{tip.id}.gguf\n") and "<|im_start|>assistant" in modelfile
    script.write_text("import sys; sys.exit('this architecture is unknown')")
    with pytest.raises(RealmError, match="this architecture is unknown"):
        vault_models.export_model(realm_with(paths, to=str(tmp_path / "other"), **export), tip.id)
    assert not (tmp_path / "other").exists()


def test_interrupted_it_leaves_nothing_behind(copied, tip, tmp_path, monkeypatch):
    paths = copied()

    def interrupt(self, step, seconds):
        if step == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(vault_models._Progress, "__call__", interrupt)
    before = sorted(paths.root.rglob("*"))
    for verb, args in (
        (vault_models.export_model, {"to": str(tmp_path / "out"), "cooldown": 4, "action": "export"}),
        (vault_models.cool_down, {"steps": 4, "action": "cooldown"}),
    ):
        with pytest.raises(KeyboardInterrupt):
            verb(realm_with(paths, **args), tip.id)
    assert [path for path in sorted(paths.root.rglob("*")) if paths.prepared not in path.parents] == [
        path for path in before if paths.prepared not in path.parents
    ]
    assert not (tmp_path / "out").exists()


def test_a_branch_is_not_cooled_down_again_and_neither_is_a_newborn(copied, tip):
    paths = copied()
    branch = cooled_branch(paths, tip, steps=1)
    for checkpoint, told in ((branch.id, "is a branch"), (checkpoints.manifests(paths)[-1].id, "not been trained")):
        with pytest.raises(UserError, match=told):
            vault_models.cool_down(realm_with(paths, steps=3, action="cooldown"), checkpoint)
