"""The queue: a quest's folder is its state, and every change of state is one rename. It knows nothing about rows or torch.

    .claim/ -> high|normal|low/ -> processing/ -> recently_completed/ | failed/          .claim/ -> rejected/

The data file's place decides; card, report and set-aside rows go ahead of it and are brought after it. Trainer, command
line and Tavern move quests; who does holds one lock meanwhile (`alone`), so that a quest and its companions stay together.

Within a folder quests stand in the order of their places: fewest failures, then age, unless somebody moved them by hand.
"""

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from core.durable import move, read_json, sync_folder, write_json
from core.errors import RealmBusy, UserError, WrongState
from core.folder_counts import FolderCounts
from core.ledger import Ledger
from core.paths import PRIORITIES, QUEUE_STATES, RealmPaths
from core.quest import ANSWERS, COMPANIONS, Quest, parse_file_name, parse_name, priority_of, quest_name

MAX_FAILURES = 3
FAILURE = 1 << 40  # above all ids: who failed waits behind those who did not
PLACE = f"COALESCE(place, failures * {FAILURE} + id)"  # as the ledger's index has it
PATIENCE_SECONDS, LOOK_SECONDS = 30.0, 0.005


class TrainingQueue:
    """All the moves of quests between folders, each recorded in the ledger."""

    def __init__(self, paths: RealmPaths, ledger: Ledger, folders: FolderCounts | None = None):
        self.paths = paths
        self.ledger = ledger
        self._folders = folders or FolderCounts()
        self._held = threading.local()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Nobody else moves a quest meanwhile; the lock ends with its holder. Raises RealmBusy after half a minute."""
        if getattr(self._held, "depth", 0):
            yield
            return
        with open(self.paths.queue_lock, "a") as file:
            _lock(file)
            self._held.depth = 1
            try:
                yield
            finally:
                self._held.depth = 0

    # Looking

    def quests(self, state: str, most: int | None = None) -> list[Quest]:
        """The quests in one folder, oldest first; at most so many."""
        folder = self.paths.queued(state)
        with os.scandir(folder) as entries:
            names = [(parsed, entry.name) for entry in entries
                     if (parsed := parse_file_name(entry.name)) and entry.is_file(follow_symlinks=False)]  # fmt: skip
        names.sort(key=lambda named: named[0][1])
        return [Quest(quest, stem, state, folder / name) for (stem, quest), name in islice(names, most)]

    def processing(self) -> list[Quest]:
        """The claimed quests in the order of their claims, in which they are trained."""
        found = self.quests("processing")
        if len(found) > 1:
            rows = self.ledger.all("SELECT id, claimed FROM quests WHERE claimed IS NOT NULL")
            order = {row["id"]: row["claimed"] for row in rows}
            found.sort(key=lambda quest: order.get(quest.id, 0))
        return found

    def find(self, quest: int) -> Quest:
        """The quest with this id, wherever it is. Raises UserError."""
        row = self.ledger.one("SELECT stem, state FROM quests WHERE id=?", (quest,))
        for state in QUEUE_STATES:
            folder = self.paths.queued(state)
            known = (
                [folder / f"{quest_name(row['stem'], quest)}.jsonl"] if row else folder.glob(f"*-q{quest:06d}.jsonl")
            )
            for path in filter(os.path.lexists, known):
                return Quest(quest, parse_name(path)[0], state, path)
        if row:
            path = self.paths.queued("rejected") / f"{row['stem']}.jsonl"
            if read_json(path.with_suffix(".report.json"), {}).get("quest") == quest and os.path.lexists(path):
                return Quest(quest, row["stem"], "rejected", path)
            raise WrongState(
                f"quest {quest} ({row['stem']}) is in no folder of queue/ any more; it was last {row['state']}"
            )
        raise UserError(f"there is no quest {quest}; `quest list` shows them")

    def counts(self) -> dict[str, int]:
        """Data files per folder, read from disk."""
        return {state: self._folders.count(self.paths.queued(state), _is_data) for state in QUEUE_STATES}

    def waiting(self) -> list[Quest]:
        """The quests to train, in the order in which they will be: by priority, then by place."""
        return list(self.coming())

    def coming(self) -> Iterator[Quest]:
        """`waiting`, looked up as far as it is asked for."""
        places = self._places()
        for priority in PRIORITIES:
            yield from self._ordered(self.quests(priority), places)

    def in_line(self, priority: str) -> list[Quest]:
        """The quests that wait in one folder, in their order."""
        return self._ordered(self.quests(priority), self._places())

    def head_of_line(self, priority: str, most: int) -> list[Quest]:
        """The first of them. With many the ledger names them, of which only those count that lie in the folder."""
        folder = self.paths.queued(priority)
        rows = self.ledger.all(
            f"SELECT id, stem FROM quests WHERE state='queued' AND priority=? ORDER BY {PLACE} LIMIT ?",
            (priority, 2 * most),
        )
        named = (Quest(row["id"], row["stem"], priority, folder / f"{quest_name(row['stem'], row['id'])}.jsonl")
                 for row in rows)  # fmt: skip
        found = list(islice((quest for quest in named if quest.path.is_file()), most))
        return found if len(found) == most else self.in_line(priority)[:most]

    @staticmethod
    def _ordered(quests: list[Quest], places: dict[int, int]) -> list[Quest]:
        return sorted(quests, key=lambda quest: (places.get(quest.id, quest.id), quest.id))

    def _places(self) -> dict[int, int]:
        """The places of the waiting quests for which it is not simply their id."""
        rows = self.ledger.all(
            f"SELECT id, {PLACE} AS place FROM quests WHERE state='queued' AND (failures > 0 OR place IS NOT NULL)"
        )
        return {row["id"]: row["place"] for row in rows}

    # Moving

    def accept(self, claimed: Path, priority: str, card: dict[str, Any], report: dict[str, Any]) -> Quest:
        """A validated file leaves .claim for the queue; its set-aside rows, if any, lie beside it in .claim."""
        stem, quest = parse_name(claimed)
        folder = self.paths.queued(priority_of(priority))
        write_json(folder / f"{claimed.stem}.quest.json", card)
        write_json(folder / f"{claimed.stem}.report.json", report)
        bad = claimed.with_suffix(".bad.jsonl")
        if bad.exists():
            os.replace(bad, folder / bad.name)
        facts = {
            key: card.get(key) for key in ("sha256", "bytes", "rows", "bad_rows", "form", "school", "skill", "hero")
        }
        self._record(quest, state="queued", priority=priority, origin=card.get("origin", "user"), **facts)
        move(claimed, folder / claimed.name)
        return Quest(quest, stem, priority, folder / claimed.name)

    def reject(self, claimed: Path, report: dict[str, Any]) -> Path:
        """A file that will not be trained goes to rejected/ beside its report, under its own name where that is free."""
        stem, quest = parse_name(claimed)
        folder = self.paths.queued("rejected")
        ours = read_json(folder / f"{stem}.report.json", {}).get("quest") == quest  # from before a crash
        endings = (".jsonl",) if ours else (".jsonl", *COMPANIONS)
        taken = any(os.path.lexists(folder / f"{stem}{ending}") for ending in endings)
        misread = parse_name(folder / f"{stem}.jsonl") or stem.endswith(
            (".bad", ".answers")
        )  # as another quest, or as what lies beside one
        name = quest_name(stem, quest) if taken or misread else stem
        write_json(folder / f"{name}.report.json", {"quest": quest, **report})
        sidecar = claimed.with_suffix(".quest.json")
        if sidecar.is_file() and not sidecar.is_symlink():  # copied: after a crash the file is judged again, and by it
            shutil.copyfile(sidecar, folder / f"{name}.quest.json")
        facts = {key: report.get(key) for key in ("sha256", "bytes", "rows", "bad_rows", "form", "school")}
        self._record(quest, state="rejected", reason=report["reason"], **facts)
        move(claimed, folder / f"{name}.jsonl")
        sidecar.unlink(missing_ok=True)
        return folder / f"{name}.jsonl"

    def claim(self, ready: Callable[[Quest], bool] = lambda quest: True) -> Quest | None:
        """The next quest that is `ready`, moved to processing/; None where there is none. Losing a race to a user's hand is no
        error."""
        with self.alone():
            for quest in filter(ready, self.coming()):
                last = self.ledger.one("SELECT COALESCE(MAX(claimed), 0) AS claimed FROM quests")["claimed"]
                self._record(quest.id, claimed=last + 1)  # ahead of the rename: what is in processing/ has its place
                try:
                    taken = self._move(quest, "processing")
                except FileNotFoundError:
                    continue
                self._record(quest.id, state="processing")
                return taken
            return None

    def place(self, quest: Quest, priority: str, position: int) -> Quest:
        """Let `quest`, which waits, stand at `position` among those that wait in `priority`.

        The places that they have are handed round among them, so that nobody else's changes and none is used up.
        """
        with self.alone():
            others = [each for each in self.in_line(priority) if each.id != quest.id]
            line = [*others[:position], quest, *others[position:]]
            known = self._places()
            places = _ascending(known.get(each.id, each.id) for each in line)
            with self.ledger.together():
                for each, place in zip(line, places, strict=True):
                    if known.get(each.id, each.id) != place:
                        self.ledger.change("quests", each.id, place=place)
                self._record(quest.id, priority=priority)
            return quest if quest.state == priority else self._move(quest, priority)

    def finish(self, quest: Quest, reason: str | None = None) -> Quest:
        """`reason`: what is to be said of it, where its training came to nothing or it was not to be trained."""
        self._record(quest.id, state="recently_completed", reason=reason)
        return self._move(quest, "recently_completed")

    def put_back(self, quest: Quest, priority: str | None = None) -> Quest:
        """Back to wait, at its own priority unless another is given (`skip` sends it to low)."""
        row = self.ledger.one("SELECT priority FROM quests WHERE id=?", (quest.id,))
        priority = priority or (row["priority"] if row else "normal")
        self._record(quest.id, state="queued", priority=priority)
        return self._move(quest, priority)

    def blame(self, quest: Quest, reason: str, attempt: dict[str, Any] | None = None, stay: bool = False) -> Quest:
        """Count a failed battle: back to wait, or to failed/ with its dossier after the third; `stay`: where it is, or waits.

        `attempt`: the page of the dossier about it; those from before the last checkpoint are left out.
        """
        row = self.ledger.one("SELECT failures FROM quests WHERE id=?", (quest.id,))
        failures = (row["failures"] if row else 0) + 1
        if attempt is not None:
            report = quest.report
            since = report.get("attempts", [])[-failures + 1 :] if failures > 1 else []
            write_json(quest.companion(".report.json"), {**report, "quest": quest.id, "attempts": [*since, attempt]})
        self._record(quest.id, failures=failures, reason=reason, place=None)
        if failures >= MAX_FAILURES:
            return self.give_up(quest, reason)
        return quest if stay else self.put_back(quest)

    def quarantine(self, quest: Quest, reason: str, attempt: dict[str, Any]) -> Quest:
        """To failed/ at once, with its dossier: another try would end the same way."""
        attempts = [*quest.report.get("attempts", []), attempt]
        write_json(quest.companion(".report.json"), {**quest.report, "quest": quest.id, "attempts": attempts})
        return self.give_up(quest, reason)

    def give_up(self, quest: Quest, reason: str) -> Quest:
        """To failed/, with the reason in its report."""
        write_json(quest.companion(".report.json"), {**quest.report, "quest": quest.id, "reason": reason})
        self._record(quest.id, state="failed", reason=reason, place=None)
        return self._move(quest, "failed")

    def _move(self, quest: Quest, state: str) -> Quest:
        folder = self.paths.queued(state)
        moved = Quest(quest.id, quest.stem, state, folder / quest.path.name)
        with self.alone():
            if not quest.path.exists():
                raise FileNotFoundError(quest.path)
            self._bring_companions(moved)
            sync_folder(folder)
            move(quest.path, moved.path)
        return moved

    def _record(self, quest: int, **values: Any) -> None:
        self.ledger.change("quests", quest, updated=time.time(), **values)

    # After a crash

    def reconcile(self) -> None:
        """Make companions and ledger follow the data files."""
        with self.alone():
            for state in QUEUE_STATES:
                for quest in self.quests(state):
                    self._bring_companions(quest)
                    self._follow(quest)

    def _bring_companions(self, quest: Quest) -> None:
        """From wherever they lie: a mover that was killed may have left them behind."""
        for suffix in COMPANIONS:
            home = quest.companion(suffix)
            for state in QUEUE_STATES:
                strayed = self.paths.queued(state) / home.name
                if strayed != home and strayed.exists():
                    os.replace(strayed, home)

    def _follow(self, quest: Quest) -> None:
        state = "queued" if quest.state in PRIORITIES else quest.state
        row = self.ledger.one("SELECT state, priority FROM quests WHERE id=?", (quest.id,))
        if row is None:
            card = quest.card
            self.ledger.add(
                "quests",
                id=quest.id,
                stem=quest.stem,
                origin=card.get("origin", "user"),
                state=state,
                priority=quest.state if quest.state in PRIORITIES else "normal",
                created=time.time(),
                updated=time.time(),
                **{key: card.get(key) for key in ("sha256", "bytes", "rows", "form", "school", "hero")},
            )
        elif row["state"] != state or (quest.state in PRIORITIES and row["priority"] != quest.state):
            changes = {"priority": quest.state} if quest.state in PRIORITIES else {}
            self._record(quest.id, state=state, **changes)


def _lock(file) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise RealmBusy(
                    f"somebody has been moving a quest for {PATIENCE_SECONDS:.0f} s; `fuser {file.name}` tells who"
                ) from None
            time.sleep(LOOK_SECONDS)


def _ascending(places) -> list[int]:
    """The places in order, each above the one before: two may have come to the same one."""
    found: list[int] = []
    for place in sorted(places):
        found.append(max(place, found[-1] + 1) if found else place)
    return found


def _is_data(name: str) -> bool:
    return name.endswith(".jsonl") and not name.endswith((".bad.jsonl", ANSWERS)) and not name.startswith(".")
