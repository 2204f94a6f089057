# ruff: noqa: F811 - fixtures of neighbouring tests are imported by name
"""A hero's means and optimizers in the trainer itself: they act, they are frozen, they come back bit for bit."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from test_train import Recorder, fight, hero, plan, renderer, trainer_of, weights  # noqa: F401
from test_worker import enqueue, state_of, wake  # noqa: F401
from test_worker import fight as turn
from transformers import AutoModelForCausalLM

from core.battle import BattlePlan
from core.between_steps import BetweenSteps
from core.config import Config, IdleGeneration, Memory
from core.errors import UserError
from core.forge import means as forge_means
from core.forge import out_of_memory, qwen3
from core.forge.adamw import RealmAdamW
from core.forge.attention import ATTENTION
from core.forge.loss import loss_sum
from core.forge.means import RECORD, read, record
from core.forge.optimizers import OptimizerKind
from core.forge.packing import packs_of
from core.forge.state import load_state
from core.machine import compiler
from core.memory_needs import GIB, Means
from core.pack_limits import PackLimits
from core.paths import CHECKOUT, RealmPaths
from core.train import HeroTrainer
from training.cli import main

pytestmark = pytest.mark.usefixtures("small_hero")

BF16 = Means(weights="bf16", rounding="stochastic", moments="8bit")
OWN = ("adafactor", "sgd", "adagrad", "rmsprop")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Keeper(Recorder):
    """A recorder that saves what a hero needs to be taken up by other means than the default."""

    def save(self, global_step, step):
        super().save(global_step, step)
        if self.folder:
            (self.folder / RECORD).write_bytes(record(self.trainer.means, self.trainer.kind))


def trained(means, tmp_path, quest, **options) -> tuple[HeroTrainer, Recorder]:
    torch.manual_seed(11)
    model = hero()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(forge_means.dtype(means))  # buffers stay fp32, as when a hero is loaded
    trainer = HeroTrainer(model, tmp_path / "trainer", 0, means, OptimizerKind.of(quest.settings.trainer))
    recorder = Keeper(trainer, **options)
    trainer.fight(quest, 0, 1e-3, recorder)
    return trainer, recorder


def taken_up(folder, tmp_path, global_step) -> HeroTrainer:
    means, kind = read(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=forge_means.dtype(means), attn_implementation=ATTENTION)
    trainer = HeroTrainer(model, tmp_path / "trainer", global_step, means, kind)
    load_state(folder, trainer.optimizer)
    return trainer


def bits(model) -> dict[str, bytes]:
    return {name: tensor.detach().view(torch.uint8).numpy().tobytes() for name, tensor in model.state_dict().items()}


# What is always there


def test_without_a_wish_a_small_hero_on_the_cpu_is_torchs_own_adamw_in_fp32_bit_for_bit(plan, tmp_path):
    quest = plan(epochs=2)
    trainer = trainer_of(hero(), tmp_path)
    fight(trainer, quest)
    model = hero()
    named = list(model.named_parameters())
    groups = [{"params": [parameter for name, parameter in named if ("norm" in name) == norm]} for norm in (0, 1)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for step in range(quest.total_steps):
        packs = packs_of(quest.sequences_of(quest.rows_of(step)), quest.settings.pack_tokens or 4096)
        for pack in packs:
            (loss_sum(model, pack) / sum(len(each.labels_N) for each in packs)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * min(1.0, (step + 1) / 10)
        optimizer.step()
        optimizer.zero_grad()
    assert weights(trainer.model) == weights(model)


# Keys of `trainer`


@pytest.mark.parametrize(
    "keys",
    [
        {"weight_decay": 0.5},
        {"adam_beta1": 0.5},
        {"adam_beta2": 0.5},
        {"adam_epsilon": 1e-2},
        {"max_grad_norm": 0.1},
        {"warmup_steps": 1},
        {"bf16": True},
        {"optim": "sgd"},
        {"optim": "sgd", "optim_args": "momentum=0.9"},
    ],
    ids=str,
)
def test_a_key_that_is_honoured_changes_what_is_learned(plan, tmp_path, keys):
    results = []
    for settings in ({key: value for key, value in keys.items() if key == "optim" and len(keys) > 1}, keys):
        quest = plan(rows=24, trainer=settings)
        results.append(weights(trained(Means(compute="fp32"), tmp_path, quest)[0].model))
    assert results[0] != results[1]


@pytest.mark.micro
@pytest.mark.parametrize(
    ("keys", "again"),
    [
        ({"activation_checkpointing": True}, [0, 1, 2, 3]),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"every_n_layers": 3}}, [0, 3]),
        ({"activation_checkpointing_kwargs": {"every_n_layers": 2}}, [0, 2]),
        ({"activation_checkpointing": False}, []),
        ({}, [0, 1, 2, 3]),
    ],
    ids=str,
)
def test_layers_that_are_computed_again_are_those_of_the_setting_and_change_nothing(
    plan, tmp_path, monkeypatch, keys, again
):
    quest, plain, runs = plan(rows=24, trainer=keys), plan(rows=24), dict.fromkeys(range(4), 0)
    model = hero()
    numbers, one_layer = {layer: number for number, layer in enumerate(model.model.layers)}, qwen3._layer

    def counted(layer, *given):
        runs[numbers[layer]] += 1
        return one_layer(layer, *given)

    monkeypatch.setattr(qwen3, "_layer", counted)
    torch.manual_seed(11)
    trainer = HeroTrainer(model, tmp_path / "trainer", 0, Means(compute="fp32", recompute_every=1))
    fight(trainer, quest)
    least = quest.total_steps + 2  # one pass a step, and one over the held-out rows before them and after
    assert runs == {number: least + (quest.total_steps if number in again else 0) for number in range(4)}
    monkeypatch.undo()
    assert weights(model) == weights(trained(Means(compute="fp32"), tmp_path, plain)[0].model)


@pytest.mark.skipif(compiler("cpu") is None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of its own ways
def test_a_battle_is_compiled_where_it_is_wished_and_goes_on_as_it_began(plan, tmp_path):
    quest, plain = plan(rows=24, trainer={"torch_compile": True}), plan(rows=24)
    trainer, recorder = trained(Means(compute="fp32"), tmp_path, quest)
    eager, expected = trained(Means(compute="fp32"), tmp_path, plain)
    assert trainer.compute.compiled and not eager.compute.compiled
    assert recorder.losses == pytest.approx(expected.losses, rel=1e-4)
    for compiled in (True, False):
        other = trainer_of(hero(), tmp_path)
        other.fight(quest if not compiled else plain, 1, 1e-3, Recorder(other), compiled=compiled)
        assert other.compute.compiled is compiled


# Optimizers


@pytest.mark.micro
@pytest.mark.parametrize("name", OWN)
def test_an_optimizer_by_name_learns_and_comes_back_bit_for_bit(plan, tmp_path, name):
    keys = {"optim": name, "weight_decay": 0.1} | ({"optim_args": "momentum=0.9"} if name == "sgd" else {})
    quest, folder = plan(name, rows=16, epochs=2, trainer=keys), tmp_path / "saved"
    whole, recorder = trained(Means(compute="fp32"), tmp_path, quest)
    assert recorder.losses[-1] < recorder.losses[0] and whole.args.optim == name
    trained(Means(compute="fp32"), tmp_path, quest, stop_after=3, folder=folder)
    other = taken_up(folder, tmp_path, 3)
    fight(other, quest, first=3)
    assert weights(other.model) == weights(whole.model) and other.kind == whole.kind


def test_another_optimizer_begins_afresh_says_so_and_both_adamws_share_their_moments(wake, enqueue):
    worker = wake()
    enqueue("one", 48)
    enqueue("two", 48, trainer={"optim": "adamw_torch"})
    turn(worker)
    moments = [state["exp_avg"].clone() for state in worker.trainer.optimizer.state.values()]
    assert not worker.trainer.use_optimizer(OptimizerKind("adamw_torch"))
    raw = worker.trainer.optimizer
    assert all(torch.equal(state["exp_avg"], kept) for state, kept in zip(raw.state.values(), moments, strict=True))
    assert raw.param_groups[0]["fused"] is not True
    turn(worker)
    events = "SELECT text FROM events WHERE code='optimizer_changed'"
    assert worker.ledger.all(events) == []
    quest = enqueue("three", 48, trainer={"optim": "sgd"})
    turn(worker)
    assert state_of(worker, quest) == "recently_completed"
    assert "sgd takes over from adamw_torch" in worker.ledger.one(events)["text"]
    again = wake()
    assert again.trainer.kind.optim == "sgd" and type(again.trainer.optimizer) is torch.optim.SGD


def test_an_optimizer_whose_package_is_gone_fails_the_quest_in_words(wake, enqueue):
    worker = wake()
    quest = enqueue("sums", 48, trainer={"optim": "schedule_free_radam"})
    for _ in range(3):
        turn(worker)
    reason = worker.queue.find(quest).report["reason"]
    assert state_of(worker, quest) == "failed" and "pip install schedulefree" in reason and "Error" not in reason
    good = enqueue("good", 48)
    turn(worker)
    assert state_of(worker, good) == "recently_completed"


# Kinds of numbers


@pytest.mark.parametrize(
    "means",
    [
        replace(BF16, rounding="kahan", moments="fp32"),
        replace(BF16, release=True, recompute_every=1),
        Means(compute="fp32", moments="8bit"),
        Means(compute="bf16"),
    ],
    ids=["kahan", "released", "fp32 weights", "autocast"],
)
def test_a_hero_of_few_bits_learns_and_comes_back_bit_for_bit(plan, tmp_path, means):
    quest, folder = plan(rows=16, epochs=2, pack_tokens=100), tmp_path / "saved"
    whole, recorder = trained(means, tmp_path, quest)
    exact = trained(Means(compute="fp32"), tmp_path, quest)[1]
    assert recorder.losses == pytest.approx(exact.losses, rel=0.03)
    assert float(recorder.steps[0].gradient_norm) == pytest.approx(float(exact.steps[0].gradient_norm), rel=0.05)
    trained(means, tmp_path, quest, stop_after=3, folder=folder)
    outside = AutoModelForCausalLM.from_pretrained(folder)
    assert outside.dtype == forge_means.dtype(means)
    other = taken_up(folder, tmp_path, 3)
    assert other.means == means
    fight(other, quest, first=3)
    assert bits(other.model) == bits(whole.model)


def test_released_gradients_mean_one_pass_a_step_however_many_rows(plan, tmp_path):
    quest = plan(rows=24, pack_tokens=40)
    trainer, recorder = trained(replace(BF16, release=True), tmp_path, quest)
    assert len(recorder.steps) == quest.total_steps and isinstance(trainer.optimizer.optimizer, RealmAdamW)
    assert {int(state["step"]) for state in trainer.optimizer.state.values()} == {quest.total_steps}
    assert all(float(facts.gradient_norm) > 0 for facts in recorder.steps)
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    fight(trainer, plan("two", rows=16))
    assert not trainer.model.lm_head.weight._post_accumulate_grad_hooks


def config_with(**sections) -> Config:
    return Config(idle_generation=IdleGeneration(enabled=False), **sections)


@pytest.fixture
def config(request):
    """Settings that a test names by `parametrize`; else those of other tests."""
    return config_with(**getattr(request, "param", {}))


FEW_BITS = {"memory": Memory(weights="bf16", moments="8bit")}


@pytest.mark.parametrize("config", [FEW_BITS], indirect=True)
def test_a_hero_keeps_its_numbers_and_changes_them_only_when_told(wake, enqueue, config, realm, ledger, monkeypatch):
    worker = wake()
    enqueue("one", 64)
    turn(worker)
    tip = realm.vault / worker.tip.id
    assert json.loads((tip / RECORD).read_bytes())["means"] == asdict(worker.trainer.means)
    changed = "SELECT text FROM events WHERE code='means_changed'"
    for sections, kinds, told in (
        ({}, ("bf16", "8bit"), 0),
        ({"memory": Memory(moments="fp32")}, ("bf16", "fp32"), 1),
        ({"memory": Memory(weights="fp32", moments="fp32")}, ("fp32", "fp32"), 2),
    ):
        worker.config = config_with(**sections)
        worker.reload()
        means = worker.trainer.means
        assert ((means.weights, means.moments), len(ledger.all(changed))) == (kinds, told)
    assert type(worker.trainer.optimizer) is torch.optim.AdamW and worker.trainer.model.dtype == torch.float32
    quest = enqueue("two", 64)
    turn(worker)
    assert state_of(worker, quest) == "recently_completed"
    assert {int(state["step"]) for state in worker.trainer.optimizer.state.values()} == {worker.tip.step}


@pytest.mark.parametrize("config", [FEW_BITS], indirect=True)
def test_a_hero_of_few_bits_that_is_killed_ends_in_the_same_weights(
    wake, enqueue, config, realm, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    straight = wake()
    enqueue("sums", 96, save_steps=2)
    twin = RealmPaths(tmp_path / "twin")
    shutil.copytree(realm.root, twin.root, symlinks=True)
    turn(straight)
    after_step = BetweenSteps.after_step

    def die(self, facts):
        if facts.step == 4:
            self.worker.collect(patient=True)
            raise Killed
        return after_step(self, facts)

    monkeypatch.setattr(BetweenSteps, "after_step", die)
    with pytest.raises(Killed):
        turn(wake("-9", twin))
    monkeypatch.setattr(BetweenSteps, "after_step", after_step)
    worker = wake("-9", twin)
    assert worker.tip.step == 3
    turn(worker)
    ours, theirs = ((paths.current_model / "model.safetensors").read_bytes() for paths in (realm, twin))
    assert ours == theirs and AutoModelForCausalLM.from_pretrained(twin.current_model).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"memory": Memory(gib=0.3)}, "set memory.gib"),
        ({"trainer": {"optim": "sgd"}, "memory": Memory()}, "only the realm's AdamW"),
        ({"trainer": {"bf16": False}}, "trainer.bf16 = false"),
    ],
)
def test_what_cannot_be_is_refused_when_the_hero_is_loaded_with_what_to_do(tmp_path, sections, words):
    hero().config.save_pretrained(tmp_path)
    (tmp_path / RECORD).write_bytes(record(BF16, OptimizerKind()))
    with pytest.raises(UserError, match=words):
        forge_means.settle(tmp_path, config_with(**sections), lambda code, text: None)


@pytest.mark.micro
def test_rows_that_would_be_too_long_are_warned_of_and_the_hero_wakes_up(tmp_path):
    hero().config.save_pretrained(tmp_path)
    told = []
    config = config_with(memory=Memory(gib=0.8), max_length=131_072, pack_tokens=4096)
    means, _ = forge_means.settle(tmp_path, config, lambda code, text: told.append((code, text)))
    assert [code for code, _ in told] == ["memory_tight"] and "max_length" in told[0][1] and means.recompute_every == 1


def test_bf16_on_a_cpu_is_for_large_heroes_on_cpus_that_are_fast_at_it():
    from core.machine import Machine

    assert [Machine("cpu", GIB, fast).compute(size) for fast, size in ((True, 27e6), (True, 4e6), (False, 27e6))] == [
        "bf16",
        "fp32",
        "fp32",
    ]
    assert Machine("cuda", GIB, True).compute(1) == "bf16"


@pytest.mark.parametrize("config", [{}, {**FEW_BITS, "trainer": {"activation_checkpointing": True}}], indirect=True)
def test_the_trainer_chooses_what_plan_prints(wake, config, realm, capsys, monkeypatch):
    monkeypatch.delenv("REALM_ROOT", raising=False)
    worker = wake()
    realm.config.write_text(config.model_dump_json(exclude_unset=True))
    where = (
        ("--vram", str(torch.cuda.get_device_properties(0).total_memory / GIB))
        if torch.cuda.is_available()
        else ("--cpu",)
    )
    words = ["--root", str(realm.root), "plan", "--model", str(realm.current_model.resolve()), *where, "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["means"] == asdict(worker.trainer.means)


# Memory that runs out

SHORT = """
import gc, json, resource, sys
gc.disable()  # as the trainer's process does
from pathlib import Path
import torch
import core.worker
from core.battle import BattlePlan
from core.forge.attention import ATTENTION
from core.forge.hatch import micro_hero
from core.pack_limits import PackLimits
from core.paths import BUNDLED_TOKENIZER
from core.prepare import prepare
from core.quest import Settings
from core.rendering import Renderer
from core.train import HeroTrainer

gc.freeze()
gc.enable()
folder, room = Path(sys.argv[1]), int(sys.argv[2])
torch.set_num_threads(1)
settings = Settings(**json.loads((folder / "settings.json").read_text()))
renderer = Renderer.load(BUNDLED_TOKENIZER, 64)
plan = BattlePlan(prepare(folder / "quest.jsonl", "question", settings, renderer, folder / "child"), settings, f"{7:064x}")
model = micro_hero(3)
model.set_attn_implementation(ATTENTION)
torch.manual_seed(11)
told = []
limits = PackLimits(folder / "limits.json", "DIO", lambda step, tokens: told.append((step, tokens)))
trainer = HeroTrainer(model, folder / "trainer", 0, limits=limits)
losses = []

class Observer:
    stop_ids = None

    def after_step(self, facts):
        losses.append(facts.loss.item())
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        if facts.step == 1 and room:
            resource.setrlimit(resource.RLIMIT_AS, (used + room, resource.RLIM_INFINITY))
        return False
    def validated(self, *facts): pass
    def save(self, *facts): pass

trainer.fight(plan, 0, 1e-3, Observer())
print(json.dumps({"losses": losses, "told": told}))
"""


@pytest.mark.micro
@pytest.mark.skipif(sys.platform != "linux", reason="a limit of address space is Linux's")
def test_a_step_for_which_memory_is_short_is_shared_out_and_begun_again_and_it_is_remembered(plan, tmp_path):
    quest = plan(rows=100, batch_size=100, pack_tokens=8192, validation_fraction=0.0, epochs=2)
    (tmp_path / "settings.json").write_text(quest.settings.model_dump_json())

    def battle(room: int) -> dict:
        command = [sys.executable, "-c", SHORT, str(tmp_path), str(room)]
        unmapped = {"MALLOC_MMAP_THRESHOLD_": str(1 << 18), "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_ARENA_MAX": "1"}
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env=os.environ | unmapped)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout)

    short = battle(80 << 20)
    whole = fight(trainer_of(hero(), tmp_path), BattlePlan(quest.prepared, quest.settings, f"{7:064x}"))
    assert short["losses"] == pytest.approx(whole.losses, rel=1e-4)
    assert short["told"] and short["told"][0][0] == 2
    sizes = [tokens for _, tokens in short["told"]]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] < max(facts.tokens for facts in whole.steps)
    known = PackLimits(tmp_path / "limits.json", "DIO")
    assert (
        known.at(1) is None
        and known.at(99) == sizes[-1]
        and PackLimits(tmp_path / "limits.json", "ANNA").at(99) is None
    )


def test_a_remembered_limit_holds_from_its_step_on_and_the_same_weights_come_out(plan, tmp_path, monkeypatch):
    quest = plan(rows=40, validation_fraction=0.0)
    passes = HeroTrainer._passes

    def shortage(self, model, batch):
        result = passes(self, model, batch)
        if self.state.global_step == 2 and max(len(pack.tokens_T) for pack in batch.packs) > 120:
            raise torch.OutOfMemoryError("the allocator's own words")
        return result

    def trainer() -> HeroTrainer:
        torch.manual_seed(11)
        return HeroTrainer(hero(0.1), tmp_path / "trainer", 0, limits=PackLimits(tmp_path / "limits.json", "DIO"))

    monkeypatch.setattr(HeroTrainer, "_passes", shortage)
    first = trainer()
    fight(first, quest)
    monkeypatch.setattr(HeroTrainer, "_passes", passes)
    again = trainer()
    assert again.limits.at(2) is None and again.limits.at(3) <= 120
    fight(again, quest)
    assert weights(again.model) == weights(first.model)


def test_a_row_that_does_not_fit_alone_is_named_with_what_to_do(plan):
    quest = plan()
    packs = packs_of(quest.sequences_of(quest.rows_of(0)), 1)
    with pytest.raises(UserError, match="max_length"):
        out_of_memory.smaller(packs)
    rows = packs_of(quest.sequences_of(quest.rows_of(0)), 4096)
    assert out_of_memory.smaller(rows) == sum(map(len, [pack.tokens_T for pack in rows])) // 2


@pytest.mark.parametrize("problem", [RuntimeError("shapes differ"), ValueError("can't allocate memory"), KeyError("x")])
def test_other_errors_are_no_shortage_of_memory(problem):
    assert not out_of_memory.is_out_of_memory(problem)
    assert out_of_memory.is_out_of_memory(MemoryError())
