"""The daemon: inbox to queue, rows tokenised ahead of their battle, an idle hero put to work, the house kept. No torch.

`run()` repeats, `loop(now)` does one turn and never blocks. Events of the file system only wake it; what it does
follows from looking.
"""

import logging
import os
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

from watchdog.events import FileMovedEvent, FileSystemEvent, FileSystemEventHandler
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyObserver

from core import jobs
from core.ask_ahead import AskAhead
from core.config import Config
from core.control import is_paused
from core.corrections import is_sparring
from core.disk import Level
from core.full_disk import spared
from core.hero import tokenizer_folder
from core.hero_loop import HeroLoop
from core.intake import Intake
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import ANSWERS, IDLE
from core.teacher_answers import is_asked, is_ready
from core.training_queue import TrainingQueue
from core.validation_process import ValidationProcess

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.25
LOOK_SHARE = 10  # a look at a full inbox takes time; between two looks pass ten times as much
HOUSEKEEPING_SECONDS = 60.0
PREPARED_AHEAD = 2


class TrainingDaemon:
    """Give it a clock and it runs; `housekeeping` is the Vault's part, given in by the process that wires the rooms.

    So is `disk(now)`, which says what the room on the disk allows. A turn that a full disk broke off is begun again.
    """

    def __init__(
        self,
        paths: RealmPaths,
        config: Config,
        ledger: Ledger,
        clock: Callable[[], float],
        beat: Callable[[], None],
        housekeeping: Callable[[], None] = lambda: None,
        disk: Callable[[float], Level] = lambda now: Level.NORMAL,
    ):
        self.paths, self.config, self.ledger = paths, config, ledger
        self.clock, self.beat, self._housekeeping, self._disk = clock, beat, housekeeping, disk
        self.queue = TrainingQueue(paths, ledger)
        self._wake = Event()
        self._small, self._large = ValidationProcess(self._wake.set), ValidationProcess(self._wake.set)
        self.intake = Intake(paths, config, ledger, self.queue, self._small, self._large)
        self.hero_loop = HeroLoop(paths, config, ledger)
        self.ask_ahead = AskAhead(paths, config, ledger, self.queue, self._wake.set)
        self._next_look = self._next_prepare = self._next_housekeeping = 0.0
        self._asked: set[int] = set()
        self._job = 0  # the preparation on record
        self._recovered = False

    def run(self, should_exit: Event) -> None:
        observer = self._watch()
        try:
            while not should_exit.is_set():
                with spared(self.paths.state):
                    self.loop(self.clock())
                self._wake.wait(LOOK_SECONDS)
                self._wake.clear()
        finally:
            if observer:
                observer.stop()
            self.close()

    def close(self) -> None:
        """End the children."""
        self._small.close()
        self._large.close()
        self.ask_ahead.close()

    def loop(self, now: float) -> None:
        """One turn."""
        self.beat()
        level = self._disk(now)
        if not self._recovered:
            self.intake.recover()
            self._recovered = True
        self._recovered = False  # a full disk that breaks the turn off leaves things in .claim
        if level < Level.NOT_CLAIMING and now >= self._next_look:
            self.intake.look(now)
            self._next_look = now + min(2.0, LOOK_SHARE * (self.clock() - now))
        self.intake.advance(now, begin=level < Level.PAUSED)
        self._recovered = True
        self.ask_ahead.turn(now, begin=level < Level.NOT_CLAIMING and not is_paused(self.ledger))
        self._prepare_ahead(now, begin=level < Level.NOT_CLAIMING)
        if self.hero_loop.turn(now, level < Level.NOT_CLAIMING and self._quiet()):
            self._next_look = now  # else it would seem quiet still, and a second quest would be written
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_SECONDS
            self._clean_prepared()
            self._housekeeping()

    def _quiet(self) -> bool:
        """Whether nothing waits, and nobody's quest but the idle hero's own is trained: its next one is then ready in time."""
        if self.intake.busy or is_paused(self.ledger):
            return False
        counts = self.queue.counts()
        if any(counts[state] for state in ("high", "normal", "low")):
            return False
        return not counts["processing"] or all(quest.card.get("origin") == IDLE for quest in self.queue.processing())

    # Ahead of the battle

    def _prepare_ahead(self, now: float, begin: bool) -> None:
        """Have the next quests tokenised, so that the trainer finds them ready."""
        if self._large.busy:
            if self._large.task["task"] == "prepare" and (done := self._large.take(now)):
                self._prepared(*done)
            return
        if now < self._next_prepare or not begin:
            return
        ahead = list(islice(self.queue.coming(), PREPARED_AHEAD))
        self._next_prepare = now + min(10.0, LOOK_SHARE * (self.clock() - now))
        for quest in ahead:
            if quest.id in self._asked or not (card := quest.card):  # without a card: the trainer is just claiming it
                continue
            if is_sparring(card) or not is_ready(quest):  # from the hero, or from its teacher
                continue
            self._job = jobs.begin(self.ledger, "preparation", "daemon", quest.stem, quest.id)
            self._asked.add(quest.id)
            self._large.give(
                {
                    "task": "prepare",
                    "quest": quest.id,
                    "path": str(quest.path),
                    "form": card["form"],
                    "sha256": card["sha256"],
                    "settings": card["settings"],
                    "tokenizer": str(tokenizer_folder(self.paths, self.config)),
                    "prepared": str(self.paths.prepared),
                    "answers": str(quest.companion(ANSWERS)) if is_asked(card) else None,
                },
                now,
            )
            return

    def _prepared(self, task: dict[str, Any], answer: dict[str, Any]) -> None:
        if "failure" in answer:
            log.warning("preparing %s failed: %s", task["path"], answer["failure"])
            if "no_space" in answer or not os.path.lexists(task["path"]):  # it may wait elsewhere now
                self._asked.discard(task["quest"])
        jobs.end(self.ledger, self._job, answer.get("failure"))

    def _clean_prepared(self) -> None:
        """Prepared rows go when nothing waits or is trained that could need them."""
        if any(self.queue.counts()[state] for state in ("high", "normal", "low", "processing")) or self._large.busy:
            return
        for folder in self.paths.prepared.iterdir():
            shutil.rmtree(folder, ignore_errors=True)

    # Hints

    def _watch(self) -> BaseObserver | None:
        observer = InotifyObserver(generate_full_events=True)  # tells renames from outside, too
        observer.schedule(_Hints(self.intake, self._wake), str(self.paths.inbox), recursive=True)
        try:
            observer.start()
        except OSError as problem:  # this user's watches are used up; looking finds the files all the same
            log.warning("no events of the inbox, files are found by looking: %s", problem)
            return None
        return observer


class _Hints(FileSystemEventHandler):
    """A rename into the inbox wakes the daemon, which then need not wait for quiet."""

    def __init__(self, intake: Intake, wake: Event):
        self._intake, self._wake = intake, wake

    def on_moved(self, event: FileSystemEvent) -> None:
        if isinstance(event, FileMovedEvent):
            self._intake.inbox.renamed_in(Path(str(event.dest_path)))
            self._wake.set()

    def on_closed(self, event: FileSystemEvent) -> None:
        self._wake.set()
