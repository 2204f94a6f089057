"""From the inbox to the queue: claim a complete file, have it judged, accept or reject it. One turn a call, never blocking.

The claim gives a file its quest id: a ledger row first, then one rename to `.claim/STEM-qID.jsonl`. A crash in between
leaves a row without a file, or a file whose name says everything; `recover` goes on from there.
"""

import contextlib
import errno
import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.claims import Claims
from core.config import Config
from core.corrections import is_sparring
from core.durable import sync_file
from core.errors import UserError
from core.full_disk import is_no_space
from core.hero import tokenizer_folder
from core.inbox import SIDECAR, Inbox, refusal
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import Sidecar, freeze, parse_name, quest_name, read_sidecar
from core.training_queue import TrainingQueue
from core.validation_process import ValidationProcess

LARGE_BYTES = 8 << 20  # some seconds' work
STUCK_SECONDS = 60.0
TAKEN_STATES = ("queued", "processing", "recently_completed")


class Intake:
    """Owns the inbox and `.claim`. Small files never wait behind a large one: each size has its own child process."""

    def __init__(
        self,
        paths: RealmPaths,
        config: Config,
        ledger: Ledger,
        queue: TrainingQueue,
        small: ValidationProcess,
        large: ValidationProcess,
    ):
        self.paths, self.config, self.ledger, self.queue = paths, config, ledger, queue
        self.inbox, self.claims = Inbox(paths), Claims(paths, ledger)
        self._lanes = {small: deque(), large: deque()}
        self._small, self._large = small, large
        self._read_again: set[Path] = set()
        self._told: str | None = None
        self._wrong: dict[Path, str] = {}

    @property
    def busy(self) -> bool:
        """Whether something is on its way into the queue."""
        return bool(self.inbox.pending) or any(lane.busy or waiting for lane, waiting in self._lanes.items())

    def recover(self) -> None:
        """Take up what was claimed before a crash; forget rows whose file never was renamed."""
        for waiting in self._lanes.values():  # of a recovery that a full disk broke off
            waiting.clear()
        for row in self.ledger.all("SELECT id, stem, priority FROM quests WHERE state='arriving'"):
            claimed = self.paths.claims / f"{quest_name(row['stem'], row['id'])}.jsonl"
            if not os.path.lexists(claimed):
                self.claims.vanished(
                    row["id"], claimed, self.paths.inbox_for(row["priority"]) / f"{row['stem']}{SIDECAR}"
                )
        judged = {lane.task["path"] for lane in self._lanes if lane.busy}
        for path in sorted(
            self.paths.claims.iterdir(), key=lambda path: (parse_name(path) or ("", 0))[1]
        ):  # as they came
            if str(path) in judged:
                continue
            if not parse_name(path):
                data = path.with_name(path.name.removesuffix(SIDECAR) + ".jsonl")
                if not (path.name.endswith(SIDECAR) and os.path.lexists(data)):
                    path.unlink()
            else:
                self._receive(path)

    def look(self, now: float) -> None:
        """Claim every file of the inbox that is complete."""
        if arrivals := self.inbox.complete(now):
            claimed, stuck = self.claims.take(arrivals)
            for arrival in stuck:
                self.inbox.put_off(arrival.path, now + STUCK_SECONDS)
            for path in claimed:
                self._receive(path)
        for folder, why in self.inbox.wrong.items():
            if self._wrong.get(folder) != why:
                self.ledger.event("daemon", "inbox_wrong", f"{why}.", "warning")
        self._wrong = dict(self.inbox.wrong)

    def advance(self, now: float, begin: bool = True) -> None:
        """Carry out finished judgements and `begin` the next ones."""
        for lane, waiting in self._lanes.items():
            if lane.busy and lane.task["task"] == "validate" and (done := lane.take(now)):
                with self._kept(Path(done[0]["path"])):
                    self._settle(*done)
            while begin and waiting and not lane.busy and (tokenizer := self._tokenizer()):
                claimed = self.paths.claims / waiting.popleft()
                with self._kept(claimed):
                    self._judge(lane, claimed, tokenizer, now)

    @contextlib.contextmanager
    def _kept(self, claimed: Path) -> Iterator[None]:
        """A full disk breaks the work off and says nothing about the file: it is judged again."""
        try:
            yield
        except (OSError, sqlite3.Error) as problem:
            if is_no_space(problem, self.paths.state) and os.path.lexists(claimed):
                self._lanes[self._small].append(claimed.name)
            raise

    # Judging

    def _receive(self, claimed: Path) -> None:
        """What was claimed is to be judged, if it is still there and a regular file."""
        try:
            facts = claimed.lstat()
        except FileNotFoundError:
            self._is_gone(claimed)
            return
        if reason := refusal(facts):
            self._reject(claimed, reason, {})
        else:
            self._lanes[self._large if facts.st_size > LARGE_BYTES else self._small].append(claimed.name)

    def _tokenizer(self) -> Path | None:
        """What the hero speaks; None, told once, while it is unclear who the hero is: files wait for that."""
        try:
            folder = tokenizer_folder(self.paths, self.config)
            self._told = None
            return folder
        except UserError as problem:
            if self._told != (told := str(problem)):
                self.ledger.event("daemon", "hero_unclear", f"Files wait in queue/.claim: {told}", "alert")
            self._told = told
            return None

    def _judge(self, lane: ValidationProcess, claimed: Path, tokenizer: Path, now: float) -> None:
        if self._is_gone(claimed):
            return
        try:
            sidecar = read_sidecar(claimed.with_suffix(SIDECAR), f"{parse_name(claimed)[0]}{SIDECAR}")
            settings = freeze(self.config, sidecar)
        except UserError as problem:
            self._reject(claimed, str(problem), {})
            return
        lane.give(
            {
                "task": "validate",
                "path": str(claimed),
                "settings": settings.model_dump(),
                "tokenizer": str(tokenizer),
                "bad_rows": str(claimed.with_suffix(".bad.jsonl")),
            },
            now,
        )

    def _settle(self, task: dict[str, Any], report: dict[str, Any]) -> None:
        claimed = Path(task["path"])
        if "died" in report and os.path.lexists(claimed) and claimed not in self._read_again:
            # perhaps for want of memory that somebody else took
            self._read_again.add(claimed)
            self._receive(claimed)
            return
        self._read_again.discard(claimed)
        if self._is_gone(claimed):
            return
        if "no_space" in report:
            raise OSError(errno.ENOSPC, report["failure"])
        if "failure" in report:
            self._reject(claimed, report["failure"], {})
            return
        sidecar = read_sidecar(claimed.with_suffix(SIDECAR))
        stem, quest = parse_name(claimed)
        report["file"] = f"{stem}.jsonl"
        if report["reason"]:
            self._reject(claimed, report["reason"], report)
        elif sidecar.hero not in (None, self.config.hero.name):
            text = f"it is for {sidecar.hero}, the hero is {self.config.hero.name}; `hero switch {sidecar.hero}` and `quest retry {quest}`"
            self._reject(claimed, "another hero's", {**report, "verdict": "rejected", "text": text})
        elif (twin := self._twin(report, quest)) and not sidecar.force:
            text = f"the same content is quest {twin['id']} ({twin['stem']}, {twin['state']}); `quest retry {quest} --force` trains it"
            self._reject(
                claimed, "duplicate", {**report, "verdict": "rejected", "duplicate_of": twin["id"], "text": text}
            )
        else:
            self._accept(claimed, sidecar, task["settings"], report)

    def _is_gone(self, claimed: Path) -> bool:
        """Whether somebody took the file out of `.claim`; then nothing is left to judge."""
        if os.path.lexists(claimed):
            return False
        for suffix in (SIDECAR, ".bad.jsonl"):
            claimed.with_suffix(suffix).unlink(missing_ok=True)
        self.ledger.change("quests", parse_name(claimed)[1], state="vanished", updated=time.time())
        return True

    def _twin(self, report: dict[str, Any], quest: int) -> dict[str, Any] | None:
        """A quest of the same content that waits, is trained or was, and not for or by another hero alone. What the hero
        answered it may be taught, and be asked again when it has learned."""
        sparring, hero = is_sparring(report), self.config.hero.name
        states = TAKEN_STATES[:-1] if sparring else TAKEN_STATES
        fought = "EXISTS (SELECT 1 FROM battles WHERE battles.quest=quests.id AND +battles.hero{}?)"
        alike = self.ledger.all(
            f"SELECT id, stem, state, school, form FROM quests WHERE sha256=? AND id!=? "
            f"AND state IN ({', '.join('?' * len(states))}) AND COALESCE(hero, ?)=? "
            f"AND (state!='recently_completed' OR {fought.format('=')} OR NOT {fought.format('!=')})",
            (report["sha256"], quest, *states, hero, hero, hero, hero),
        )
        return next((row for row in alike if is_sparring(row) == sparring), None)

    def _accept(self, claimed: Path, sidecar: Sidecar, settings: dict[str, Any], report: dict[str, Any]) -> None:
        stem, quest = parse_name(claimed)
        sync_file(claimed)
        row = self.ledger.one("SELECT priority FROM quests WHERE id=?", (quest,))
        priority = sidecar.priority or (row["priority"] if row else "normal")
        facts = {key: report[key] for key in ("sha256", "bytes", "rows", "bad_rows", "form", "school")}
        card = {
            "quest": quest,
            "stem": stem,
            **facts,
            "skill": sidecar.skill,
            "origin": sidecar.origin,
            "hero": sidecar.hero,
            "settings": settings | {"school": report["school"]},
        }
        self.queue.accept(claimed, priority, card, {"quest": quest, **report})
        claimed.with_suffix(SIDECAR).unlink(missing_ok=True)
        aside = f", {report['bad_rows']} bad ones set aside" if report["bad_rows"] else ""
        self.ledger.event(
            "daemon",
            "quest_accepted",
            f"{stem}: {report['rows']:,} rows of the form {report['form']}{aside}.",
            quest=quest,
        )

    def _reject(self, claimed: Path, reason: str, report: dict[str, Any]) -> None:
        stem, quest = parse_name(claimed)
        base = {"file": f"{stem}.jsonl", "verdict": "rejected", "errors": []}
        claimed.with_suffix(".bad.jsonl").unlink(missing_ok=True)  # the file is kept whole
        self.queue.reject(claimed, {**base, **report, "reason": reason})
        self.ledger.event(
            "daemon", "quest_rejected", f"{stem} is rejected: {report.get('text', reason)}", "warning", quest=quest
        )
