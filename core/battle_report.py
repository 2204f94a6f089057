"""What a battle shows of itself: the snapshot of now, the record of steps, the ledger's rows. It decides nothing."""

import shutil
import time
from collections import deque
from typing import Any

import orjson

from core import lore
from core.battle import BattlePlan
from core.checkpoints import Manifest, record
from core.durable import read_json, write_json
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import Quest
from core.steps import Step, StepRecord
from core.train import StepFacts

WINDOW_STEPS = 50
FLOOR_PERCENTILE = 0.10


class BattleReport:
    """The trainer's voice: `show` replaces the snapshot, `end` closes the battle's row."""

    def __init__(self, paths: RealmPaths, ledger: Ledger):
        self.paths, self.ledger = paths, ledger
        self.record = StepRecord(paths.metrics)
        self._battle: dict[str, Any] | None = None
        self._row: int | None = None
        self._shown = ""
        self._unsaved: dict[int, dict[str, Any]] = {}

    # Between battles

    def loading(self) -> None:
        """Say that the hero wakes up; what it was before is shown meanwhile."""
        self._write({"state": "loading", "hero": read_json(self.paths.status, {}).get("hero", {}), "battle": None})

    def idle(self, hero: dict[str, Any], state: str = "idle") -> None:
        """Say once that nothing is trained."""
        if self._shown != state:
            self._write({"state": state, "hero": hero, "battle": None})

    def preparing(
        self, quest: Quest, share: float, eta_seconds: float | None, hero: dict[str, Any], state: str = "preparing"
    ) -> None:
        """Say how much of the next quest's rows is tokenised."""
        facts = {"quest": quest.stem, "quest_id": quest.id, "share": share, "eta_seconds": eta_seconds}
        self._write({"state": state, "hero": hero, "battle": None, "preparing": facts})

    def free_bytes(self) -> int:
        return shutil.disk_usage(self.paths.root).free

    # A battle

    def begin(self, quest: Quest, plan: BattlePlan, first: int, hero: str, facts: dict[str, Any]) -> None:
        """A battle begins, or goes on after `first` of its steps."""
        school = plan.settings.school
        known = self.ledger.one(
            "SELECT id, tokens, seconds, effort FROM battles WHERE quest=? AND state!='done' ORDER BY id DESC",
            (quest.id,),
        )
        self._start = start = facts["global_step"] - first
        fresh = {
            "quest": quest.id,
            "hero": hero,
            "school": school,
            "start_step": start,
            "total_steps": plan.total_steps,
            "held_out": orjson.dumps(plan.held_out_lines).decode(),
            "started": time.time(),
        }
        if known and first:
            self._row = known["id"]
            self.ledger.change("battles", self._row, state="running", finished=None, reason=None)
        else:
            if known:
                self.ledger.change("battles", known["id"], state="lost", finished=time.time())
            self._row = self.ledger.add("battles", state="running", **fresh)
        self._totals = {key: known[key] if known and first else 0 for key in ("tokens", "seconds", "effort")}
        self._recent: deque[tuple[float, int]] = deque(maxlen=WINDOW_STEPS)
        self._school, self._quest, self._floor = school, quest.id, self.floor(school)
        self._battle = {
            "quest": quest.stem,
            "quest_id": quest.id,
            "school": school,
            "step": first,
            "total_steps": plan.total_steps,
            "loss": None,
            "validation_loss": None,
            "damage": None,
            "strain": None,
            "zone": None,
            "tokens_per_second": None,
            "eta_seconds": None,
            "learning_rate": None,
            "gradient_norm": None,
        }
        self.ledger.event(
            "trainer",
            "battle_began" if not first else "battle_resumed",
            f"{quest.stem}: {plan.total_steps - first} steps to go.",
            quest=quest.id,
        )
        self.show(facts)

    def step(self, facts: StepFacts) -> None:
        """One optimizer step was done."""
        loss, norm = facts.loss.item(), None if facts.gradient_norm is None else float(facts.gradient_norm)
        self._recent.append((facts.seconds, facts.tokens))
        seconds, tokens = (sum(values) for values in zip(*self._recent, strict=True))
        strain = lore.strain(loss, self._floor)
        self._totals["tokens"] += facts.tokens
        self._totals["seconds"] += facts.seconds
        self._totals["effort"] += strain or 0.0
        remaining = self._battle["total_steps"] - facts.step
        self._battle |= {
            "step": facts.step,
            "loss": loss,
            "damage": lore.damage(loss),
            "strain": strain,
            "zone": lore.zone(strain),
            "tokens_per_second": tokens / seconds,
            "eta_seconds": remaining * seconds / len(self._recent),
            "learning_rate": facts.learning_rate,
            "gradient_norm": norm,
        }
        self.record.add(
            Step(
                facts.global_step,
                self._quest,
                time.time(),
                loss,
                facts.learning_rate,
                norm,
                facts.tokens,
                facts.seconds,
            )
        )

    def validated(self, global_step: int, loss: float) -> None:
        """A held-out loss was measured."""
        self._battle["validation_loss"] = loss
        self.record.validation(global_step, self._quest, time.time(), loss)
        self.ledger.add(
            "evaluations",
            kind="validation",
            school=self._school,
            quest=self._quest,
            step=global_step,
            value=loss,
            created=time.time(),
        )
        self._floor = self.floor(self._school)

    def floor(self, school: str) -> float | None:
        """The 10th percentile of the school's validation losses, None before the first."""
        rows = self.ledger.all(
            "SELECT value FROM evaluations WHERE kind='validation' AND school=? ORDER BY id DESC LIMIT 1000", (school,)
        )
        values = sorted(row["value"] for row in rows)
        return values[int(FLOOR_PERCENTILE * (len(values) - 1))] if values else None

    def show(self, hero: dict[str, Any], state: str = "battle") -> None:
        """Replace the snapshot and flush the steps."""
        self.record.flush()
        self._write({"state": state, "hero": hero, "battle": self._battle})

    def recover(self, found: list[Manifest]) -> None:
        """Record the checkpoints that a crash kept from being recorded."""
        known = {row["id"] for row in self.ledger.all("SELECT id FROM checkpoints")}
        for manifest in found:
            if manifest.id not in known:
                self.saved(manifest, "saved")

    def saved(self, manifest: Manifest, state: str) -> None:
        record(self.ledger, manifest, state)

    def promoted(self, manifest: Manifest) -> None:
        self.ledger.change("checkpoints", manifest.id, state="promoted")

    def end(self, state: str, reason: str | None = None) -> None:
        """The battle is over: fought to its end (`saving`), or left (`stop`, `skip`, `cancel`, `failed`) for that reason."""
        self.record.flush()
        if self._row is not None:
            battle = self._battle
            facts = {
                "finished": time.time(),
                "loss": battle["loss"],
                "validation_loss": battle["validation_loss"],
                "end_step": self._start + battle["step"],
                **self._totals,
            }
            if state == "saving":  # it counts when its checkpoint is there
                self._unsaved, facts = {self._row: facts}, {}
            self.ledger.change("battles", self._row, state=state, reason=reason, **facts)
        self._battle = self._row = None
        self._shown = ""

    def close(self, quest: int) -> None:
        """The newest battle of `quest` is done: its weights are saved."""
        row = self.ledger.one("SELECT id FROM battles WHERE quest=? AND state!='done' ORDER BY id DESC", (quest,))
        if row:
            facts = self._unsaved.pop(row["id"], {"finished": time.time()})
            self.ledger.change("battles", row["id"], state="done", **facts)

    def was_saving(self, quest: int) -> bool:
        """Whether the newest battle of `quest` was fought to its end, and only its checkpoint was not there yet."""
        row = self.ledger.one("SELECT state FROM battles WHERE quest=? ORDER BY id DESC", (quest,))
        return row is not None and row["state"] == "saving"

    def _write(self, snapshot: dict[str, Any]) -> None:
        self._shown = snapshot["state"]
        write_json(self.paths.status, {"time": time.time(), **snapshot}, durable=False)
