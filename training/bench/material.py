"""What all contestants of one model size share: a realm whose hero has random weights and waits for one quest.

Everybody starts from `models/bench` in it and trains the rows of the same `BattlePlan`; ours finds them in the queue.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import orjson

from core.battle import BattlePlan
from core.config import load_config
from core.formats import form
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.prepare import Prepared, cache_name, prepare
from core.quest import Settings, Sidecar, freeze, quest_name
from core.quest_file import to_row
from core.rendering import Renderer
from core.training_queue import TrainingQueue
from training.bench.chat_rows import rows
from training.bench.contestants import Size

FORM = "messages"
MAX_LENGTH = 1024
NEVER = 1 << 30
OPTIMIZER = {"adam_beta1": 0.9, "adam_beta2": 0.95, "adam_epsilon": 1e-8, "weight_decay": 0.0, "max_grad_norm": 1.0}
SEED = 7


@dataclass(frozen=True)
class Material:
    """One size's realm and what is trained in it."""

    paths: RealmPaths
    size: Size
    steps: int

    @property
    def weights(self) -> Path:
        """The folder that every contestant loads the same random weights from."""
        return self.paths.models / "bench"

    @cached_property
    def settings(self) -> Settings:
        return freeze(load_config(self.paths.config), Sidecar())

    @property
    def rows_file(self) -> Path:
        return self.paths.root / "rows.jsonl"

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.rows_file.read_bytes()).hexdigest()

    @cached_property
    def plan(self) -> BattlePlan:
        """The steps that everybody trains, and the rows that nobody does."""
        renderer = Renderer.load(BUNDLED_TOKENIZER, MAX_LENGTH)
        name = cache_name(self.sha256, FORM, self.settings, renderer)
        prepared: Prepared = prepare(self.rows_file, FORM, self.settings, renderer, self.paths.prepared / name)
        return BattlePlan(prepared, self.settings, self.sha256)


def make(root: Path, size: Size, steps: int) -> Material:
    """The realm with its rows and its waiting quest; the weights come from entrant `weights`."""
    paths = RealmPaths(root)
    paths.make()
    material = Material(paths, size, steps)
    paths.config.write_bytes(orjson.dumps(_config(size)))
    renderer = Renderer.load(BUNDLED_TOKENIZER, MAX_LENGTH)

    def measure(row: dict) -> int:
        return len(renderer.render([to_row(form(FORM), row, {})])[0].sequences[0].input_ids)

    lines = map(orjson.dumps, rows(size.rows * steps + size.held_out, size.longest, SEED, measure))
    material.rows_file.write_bytes(b"\n".join(lines) + b"\n")
    plan = material.plan
    assert (plan.total_steps, len(plan.held_out_rows)) == (steps, size.held_out), (plan.total_steps, plan.held_out_rows)
    _enqueue(material)
    return material


def _config(size: Size) -> dict:
    """A battle without ceremony: constant rate, no evaluation and no checkpoint before its end."""
    return {
        "seed": SEED,
        "batch_size": size.rows,
        "learning_rate": size.learning_rate,
        "training_defaults": {"cooldown_share": 0.0},
        "max_length": MAX_LENGTH,
        "eval_steps": NEVER,
        "save_steps": NEVER,
        "save_minutes": 1e6,
        "validation_fraction": 0.5,
        "validation_rows": size.held_out,
        "trainer": {**OPTIMIZER, "warmup_steps": 0},
        "disk": {"reserve_bytes": 0},
        "idle_generation": {"enabled": False},
    }


def _enqueue(material: Material) -> None:
    """Put the rows into the queue as the daemon would have after its checks."""
    paths, ledger = material.paths, Ledger(material.paths.ledger)
    quest = ledger.add("quests", stem="bench", origin="user", state="arriving", priority="normal", created=0, updated=0)
    claimed = paths.claims / f"{quest_name('bench', quest)}.jsonl"
    claimed.write_bytes(material.rows_file.read_bytes())
    facts = {
        "sha256": material.sha256,
        "bytes": claimed.stat().st_size,
        "rows": len(material.plan.prepared),
        "bad_rows": 0,
        "form": FORM,
        "school": material.settings.school,
    }
    card = {"quest": quest, "stem": "bench", "origin": "user", "settings": material.settings.model_dump(), **facts}
    TrainingQueue(paths, ledger).accept(claimed, "normal", card, {"quest": quest, **facts})
    ledger.close()
