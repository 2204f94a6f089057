"""A realm for the resident hero without its daemon: quests are accepted here, and a life of the trainer can be a process.

`python tests/resident.py ROOT`, with the checkout in PYTHONPATH, is one that ends by SIGKILL: the first checkpoint is never
finished (`hold_back`), and the kill comes at the third step of the second battle.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from core.between_steps import BetweenSteps
from core.config import Config, IdleGeneration
from core.dossier import Crash
from core.forge import hatch
from core.forge.snapshot import Snapshot
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.quest import Sidecar, freeze, quest_name
from core.rendering import Renderer
from core.training_queue import TrainingQueue
from core.validator import validate_file
from core.worker import Worker
from safety.crash_detector import Evidence, diagnose

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


def accept_sums(
    paths: RealmPaths,
    ledger: Ledger,
    stem: str,
    count: int = 64,
    priority: str = "normal",
    rows: list[dict] | None = None,
    skill: str | None = None,
    config: Config | None = None,
    **settings,
) -> int:
    """Accept a quest of `rows`, or of `count` sums, as the daemon would."""
    quest = ledger.add("quests", stem=stem, origin="user", state="arriving", priority=priority, created=0, updated=0)
    claimed = paths.claims / f"{quest_name(stem, quest)}.jsonl"
    sums = ({"question": f"{stem} {n} plus 1?", "answer": f"It is {n + 1}."} for n in range(count))
    claimed.write_text("".join(json.dumps(row) + "\n" for row in rows or sums))
    frozen = freeze(config or Config(), Sidecar()).model_copy(update={"batch_size": 16, **settings})
    report = validate_file(claimed, frozen, Renderer.load(BUNDLED_TOKENIZER, 256))
    card = {
        "quest": quest,
        "stem": stem,
        "settings": frozen.model_dump() | {"school": report["school"]},
        "skill": skill,
        **{key: report[key] for key in ("sha256", "bytes", "rows", "bad_rows", "form", "school")},
    }
    TrainingQueue(paths, ledger).accept(claimed, priority, card, report)
    return quest


def death(code: str, step: int = 0, **evidence) -> Crash | None:
    """How a trainer's life ended in battle: its exit code, minus a signal's number; none for no code."""
    return diagnose(Evidence(int(code), phase="step", step=step, **evidence)) if code else None


def resident(
    paths: RealmPaths,
    ledger: Ledger,
    end: str | Crash | None = "",
    enter=lambda *_, **__: None,
    config: Config | None = None,
    **settings,
) -> Worker:
    """A hero that has woken up after its last life's `end`; it sits no exams, unless `config` or `settings` say so."""
    config = config or Config(idle_generation=IdleGeneration(enabled=False), exam_share=0.0)
    config = config.model_copy(update=settings)
    crash = death(end) if isinstance(end, str) else end
    worker = Worker(paths, config, ledger, threading.Event(), lambda: None, crash, enter=enter)
    worker.awaken()
    return worker


def fight(worker: Worker) -> bool:
    """One turn, and its checkpoint; whether there was anything to train."""
    trained = worker.loop()
    worker.end_writing()
    return trained


class Killed(BaseException):
    """A life of the trainer ends where it stands."""


def dying_at(step: int) -> Callable:
    """`BetweenSteps.after_step` that dies there, the checkpoint before on disk."""
    after_step = BetweenSteps.after_step

    def die(self, facts):
        if facts.step == step:
            self.worker.collect(patient=True)
            raise Killed
        return after_step(self, facts)

    return die


def hold_back(gate: threading.Event, replace: Callable[[object, str, object], None] = setattr) -> None:
    """Every checkpoint's files are written, but it is not committed before `gate` opens."""
    write = Snapshot.write

    def write_and_wait(self, folder, tokenizer):
        sums = write(self, folder, tokenizer)
        assert gate.wait(30)
        return sums

    replace(Snapshot, "write", write_and_wait)


def die_in_the_second_battle(root: Path) -> None:
    hatch.MICRO.update(SMALL)
    hold_back(threading.Event())
    paths = RealmPaths(root)
    worker = resident(paths, Ledger(paths.ledger))
    after_step, quests = BetweenSteps.after_step, []

    def count(self, facts):
        quests.append(self.quest.id)
        if len(set(quests)) == 2 and quests.count(self.quest.id) == 3:
            while not any(file.stat().st_size > 1e6 for file in paths.vault.glob(".building-*/optimizer.safetensors")):
                time.sleep(0.01)  # the first one's files are on their way
            os.kill(os.getpid(), signal.SIGKILL)
        return after_step(self, facts)

    BetweenSteps.after_step = count
    worker.run()


if __name__ == "__main__":
    die_in_the_second_battle(Path(sys.argv[1]))
