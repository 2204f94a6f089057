"""A throw-away realm with its resident hero in this process: quests are handed in, fought, and the hero is asked.

The product does all of it: gate, queue, battle, checkpoint. What is left out is the daemon between them.
"""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from core.config import Config
from core.durable import write_json
from core.errors import RealmError
from core.forge import exam
from core.forge.evaluate import Evaluation
from core.ledger import Ledger
from core.mastery import Score
from core.paths import BUNDLED_TOKENIZER, RealmPaths
from core.quest import check_sidecar, freeze, quest_name
from core.rendering import Renderer
from core.schools.classroom import Classroom
from core.skills import Problem
from core.training_queue import TrainingQueue
from core.validator import validate_file
from core.worker import Worker

Row = dict[str, Any]


class Hall:
    """`config`: of the realm, over what keeps a bench quiet."""

    def __init__(self, root: Path, seed: int, **config: Any):
        self.paths = RealmPaths(root)
        self.paths.make()
        quiet = {"idle_generation": {"enabled": False}, "exam_share": 0.0, "disk": {"reserve_bytes": 0}}
        values = quiet | {"temple": {"mode": "off"}, "save_minutes": 1e6, "save_steps": 1 << 30, "seed": seed} | config
        write_json(self.paths.config, values)
        self.config = Config.model_validate(values)
        self.ledger = Ledger(self.paths.ledger)
        self.renderer = Renderer.load(BUNDLED_TOKENIZER, self.config.max_length)
        self.worker = Worker(self.paths, self.config, self.ledger, threading.Event(), lambda: None)
        self.worker.awaken()

    @property
    def model(self):
        """The hero's weights as they are now."""
        return self.worker.trainer.model

    def fight(self, stem: str, rows: Iterable[Row], **sidecar: Any) -> dict[str, Any]:
        """Hand a quest in and fight it; the row of its battle. Raises RealmError where the gate or the battle refuses."""
        quest = self._hand_in(stem, rows, sidecar)
        self.worker.loop()
        self.worker.end_writing()
        battle = self.ledger.one("SELECT * FROM battles WHERE quest=? ORDER BY id DESC LIMIT 1", (quest,)) or {}
        row = self.ledger.one("SELECT state, reason FROM quests WHERE id=?", (quest,))
        if row["state"] != "recently_completed":
            raise RealmError(f"{stem} ended {row['state']}: {row['reason'] or battle.get('reason')}")
        return battle

    def fight_what_came(self, **sidecar: Any) -> int:
        """Fight what somebody in the realm dropped into the inbox; how many quests that were."""
        dropped = sorted(self.paths.inbox.rglob("*.jsonl"))
        for path in dropped:
            own = path.with_name(f"{path.stem}.quest.json")
            said = orjson.loads(own.read_bytes()) if own.exists() else {}
            rows = [orjson.loads(line) for line in path.read_bytes().splitlines()]
            path.unlink()
            own.unlink(missing_ok=True)
            self.fight(path.stem, rows, **said | sidecar)
        return len(dropped)

    def _hand_in(self, stem: str, rows: Iterable[Row], sidecar: Row) -> int:
        quest = self.ledger.add(
            "quests", stem=stem, origin="user", state="arriving", priority="normal", created=0, updated=0
        )
        claimed = self.paths.claims / f"{quest_name(stem, quest)}.jsonl"
        claimed.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        checked = check_sidecar(sidecar, stem)
        settings = freeze(self.config, checked)
        report = validate_file(claimed, settings, self.renderer)
        if report["reason"]:
            raise RealmError(f"{stem} is rejected: {report['reason']}")
        facts = {key: report[key] for key in ("sha256", "bytes", "rows", "bad_rows", "form", "school")}
        frozen = settings.model_dump() | {"school": report["school"]}
        card = {
            "quest": quest,
            "stem": stem,
            "settings": frozen,
            "skill": checked.skill,
            "origin": checked.origin,
            **facts,
        }
        TrainingQueue(self.paths, self.ledger).accept(claimed, "normal", card, {"quest": quest, **report})
        return quest

    # Asking

    def asked(self, problems: Sequence[Problem]) -> Score:
        """How many of `problems` the hero answers right."""
        return exam.examine(self.model, self.renderer, problems)

    def classroom(self, school: Any) -> Classroom:
        """The hero in a school that trains nothing."""
        return Classroom(self.model, school, self.renderer)


def evaluation(room: Classroom, rows: Sequence[Row]) -> Evaluation:
    """What the model in `room` makes of rows that it was not trained on."""
    return room.school.evaluate(room.model, room.collate(rows)["packs"])
