"""A realm's lives as processes that begin in milliseconds: the product's own trainer and daemon, the hero a dwarf.

The stand-in is not a model of the trainer, it is the trainer: claim, battle, checkpoint, verdict and recovery are the
product's, the weights a Qwen3 of one layer that learns a quest in a tenth of a second. Since training is exact on a CPU,
a row trained twice or never shows in the weights' bytes. A server that has loaded torch forks each life.

It knows nothing about faults. A life that is to be traced tells its thread's id and waits for the tracer.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.config import Config, load_config
from core.ledger import Ledger
from core.paths import BUNDLED_TOKENIZER, CHECKOUT, RealmPaths
from safety.lifeline import Lifeline

BASE_MODEL = "dwarf"
DWARF = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
TRACER_SECONDS, NO_SPACE_SECONDS = 20.0, 0.05
_PR_SET_PDEATHSIG = 1
_context = multiprocessing.get_context("forkserver")


@dataclass
class Life:
    """A process of the realm, to be killed. `tip` and `step`: the last step that is on disk, and that was trained."""

    process: Any
    numbers: Any
    tracee: Any = None

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def tip(self) -> int:
        return self.numbers[0]

    @property
    def step(self) -> int:
        return self.numbers[1]

    @property
    def awake(self) -> bool:
        return bool(self.numbers[2])

    def lives(self) -> bool:
        return self.process.is_alive()

    def send(self, number: int) -> None:
        if self.process.is_alive():
            os.kill(self.process.pid, number)

    def end(self, seconds: float = 120.0) -> int | None:
        """The exit code (minus the signal's number), awaited; None for one that had to be killed for its silence."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
            return None
        return self.process.exitcode

    def kill(self) -> int | None:
        self.send(signal.SIGKILL)
        return self.end()


def begin(stage: str, paths: RealmPaths, traced: bool = False) -> Life:
    """Begin a life: one of `STAGES`; `traced`: it says where it is to be traced, and waits."""
    os.environ.update(OMP_WAIT_POLICY="passive", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH", "")]))
    _context.set_forkserver_preload(["core.worker", "core.training_daemon", "training.bench.stand_in"])
    numbers = _context.Array(ctypes.c_long, 3, lock=False)
    ours, theirs = _context.Pipe(duplex=False)
    arguments = (stage, str(paths.root), theirs if traced else None, numbers)
    process = _context.Process(target=_live, args=arguments)
    process.start()
    theirs.close()
    return Life(process, numbers, ours)


def _live(stage: str, root: str, teller: Any, numbers: Any) -> None:
    """In the new process."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    import torch

    torch.set_num_threads(1)
    paths = RealmPaths(Path(root))
    log = os.open(os.environ.get("REALM_STAND_IN_LOG", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    STAGES[stage](paths, Being(paths, teller, numbers))


@dataclass
class Being:
    """What a life is given."""

    paths: RealmPaths
    teller: Any
    numbers: Any

    @property
    def config(self) -> Config:
        return load_config(self.paths.config)

    def show(self, thread: int | None = None) -> None:
        """From here on `thread`, ours if none is named, is to be traced; returns when it is."""
        if self.teller is None:
            return
        thread = thread or threading.get_native_id()
        self.teller.send(thread)
        status, deadline = Path(f"/proc/self/task/{thread}/status"), time.monotonic() + TRACER_SECONDS
        while "TracerPid:\t0\n" in status.read_text():
            if time.monotonic() > deadline:
                os._exit(99)
            time.sleep(0.001)

    def worker(self):
        import core.worker

        core.worker.NO_SPACE_SECONDS = NO_SPACE_SECONDS
        lifeline = Lifeline(self.paths, "trainer")
        ledger = Ledger(self.paths.ledger)
        return core.worker.Worker(
            self.paths, self.config, ledger, lifeline.should_exit, lifeline.beat, enter=lifeline.enter
        )

    def count(self, worker) -> None:
        """Keep `numbers` up to date from a thread of its own."""

        def turn() -> None:
            while True:
                self.numbers[0], self.numbers[1] = worker.writer.tip.step, worker.trainer.global_step
                time.sleep(0.002)

        self.numbers[2] = 1
        threading.Thread(target=turn, daemon=True).start()


def _dwarf(paths: RealmPaths, being: Being) -> None:
    """Put the dwarf where a user brings a base model."""
    from core.forge import hatch
    from core.forge.state import save_model

    hatch.MICRO.update(DWARF)
    save_model(hatch.micro_hero(seed=1), paths.models / BASE_MODEL, BUNDLED_TOKENIZER)


def _serve(paths: RealmPaths, being: Being) -> None:
    """The daemon until all that was dropped is judged."""
    daemon, should_exit = _daemon(paths, being)

    def look() -> None:
        while any(paths.inbox.rglob("*.jsonl")) or any(paths.claims.iterdir()):
            time.sleep(0.01)
        should_exit.set()

    threading.Thread(target=look, daemon=True).start()
    daemon.run(should_exit)


def _keep(paths: RealmPaths, being: Being) -> None:
    """The daemon until it is asked to end."""
    daemon, should_exit = _daemon(paths, being)
    daemon.run(should_exit)


def _daemon(paths: RealmPaths, being: Being):
    from core.training_daemon import TrainingDaemon
    from management.retention import retain

    lifeline, ledger, config = Lifeline(paths, "daemon"), Ledger(paths.ledger), being.config
    daemon = TrainingDaemon(
        paths,
        config,
        ledger,
        time.monotonic,
        lifeline.beat,
        housekeeping=lambda: retain(paths, config.retention, ledger),
    )
    for path in paths.inbox.rglob("*.jsonl"):  # they were renamed in before anybody watched
        daemon.intake.inbox.renamed_in(path)
    return daemon, lifeline.should_exit


def _train(paths: RealmPaths, being: Being) -> None:
    """The trainer until nothing waits and every checkpoint is written, or it is asked to end."""
    worker = being.worker()
    worker.awaken()
    being.count(worker)
    _fight(worker)


def _fight(worker) -> None:
    while not worker.should_exit.is_set():
        if not worker.loop() and not worker.writer.busy and not worker.queue.waiting():
            break
    worker.end_writing()


# Traced from one point on


def _intake(paths: RealmPaths, being: Being) -> None:
    """From the inbox to the queue."""
    being.show()
    _serve(paths, being)


def _waking(paths: RealmPaths, being: Being) -> None:
    """Loading, recovery, and the birth of a hero where there is none."""
    worker = being.worker()
    being.show()
    worker.awaken()


def _claiming(paths: RealmPaths, being: Being) -> None:
    """The thread that claims, trains and carries out verdicts."""
    worker = being.worker()
    worker.awaken()
    being.show()
    _fight(worker)


def _committing(paths: RealmPaths, being: Being) -> None:
    """The thread that writes checkpoints."""
    worker = being.worker()
    worker.awaken()
    being.show(worker.writer._thread.submit(threading.get_native_id).result())
    _fight(worker)


TRACED: dict[str, Callable[[RealmPaths, Being], None]] = {
    "intake": _intake,
    "waking": _waking,
    "claim": _claiming,
    "commit": _committing,
}
STAGES = {"dwarf": _dwarf, "serve": _serve, "keep": _keep, "train": _train, **TRACED}
