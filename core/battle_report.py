"""What a battle shows of itself: the snapshot of now, the record of steps, the ledger's rows. It decides nothing.

Steps are collected as they come and read together, since reading waits for the device.
"""

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from core import lore
from core.battle import BattlePlan
from core.checkpoints import Manifest, record
from core.durable import read_json, write_json
from core.floor import floor_of
from core.forge.evaluate import Evaluation
from core.forge.guard import LEFT_OUT, NOT_FINITE, PASSED_OVER, finite, names
from core.forge.step_facts import StepFacts, numbers
from core.full_disk import spared
from core.ledger import Ledger
from core.overfitting import OverfittingWatch
from core.paths import RealmPaths
from core.previews import Preview
from core.quest import Quest
from core.rolls import Rolls
from core.steps import Step, StepRecord

WINDOW_STEPS = 50
SHOWN_LINES = 16
OVER = ("done", "rolled_back", "cursed")
TOLD_SPIKES = 20  # events of one battle; all of them are in the record of steps
MEASURED = (  # of the battle's snapshot: null until it is known
    "loss",
    "validation_loss",
    "best_validation_loss",
    "token_accuracy",
    "preview_score",
    "previewed_step",
    "damage",
    "strain",
    "zone",
    "tokens_per_second",
    "mfu",
    "eta_seconds",
    "learning_rate",
    "gradient_norm",
)


@dataclass(frozen=True)
class Looked:
    """What the last look at the held-out rows found. `unfit`: why the weights must not be promoted, if they must not."""

    loss: float | None = None
    unfit: str | None = None


class BattleReport:
    """The trainer's voice: `show` replaces the snapshot, `end` closes the battle's row."""

    def __init__(self, paths: RealmPaths, ledger: Ledger, hero: str):
        self.paths, self.ledger = paths, ledger
        self._hero, self.record = hero, StepRecord(paths.metrics, hero)
        self._unread: list[tuple[StepFacts, float]] = []
        self._battle: dict[str, Any] | None = None
        self._row: int | None = None
        self._shown = ""
        self._ended: dict[int, float] = {}  # when battles ended whose checkpoint is not there yet, by row

    # Between battles

    def loading(self) -> None:
        """Say that the hero wakes up; what it was before is shown meanwhile."""
        self._write({"state": "loading", "hero": read_json(self.paths.status, {}).get("hero", {}), "battle": None})

    def idle(self, hero: dict[str, Any], state: str = "idle") -> None:
        """Say once that nothing is trained."""
        if self._shown != state:
            self._write({"state": state, "hero": hero, "battle": None})

    def preparing(
        self, quest: Quest, share: float, eta_seconds: float | None, hero: dict[str, Any], state: str, kind: str
    ) -> None:
        """Say how much is done of the work of this `kind` on the next quest's rows: they are tokenised, or answered."""
        facts = {"quest": quest.stem, "quest_id": quest.id, "kind": kind, "share": share, "eta_seconds": eta_seconds}
        self._write({"state": state, "hero": hero, "battle": None, "preparing": facts})

    # A battle

    def begin(self, quest: Quest, plan: BattlePlan, first: int, held: Manifest, facts: dict[str, Any]) -> None:
        """A battle begins, or goes on after `first` of its steps, which the weights hold as `held` says."""
        school = plan.settings.school
        known = self._unfinished(quest.id)
        self._start = start = facts["global_step"] - first
        fresh = {
            "quest": quest.id,
            "hero": held.hero,
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
        done = held.fought.get(str(quest.id), {}) if first else {}
        self._totals = {key: done.get(key, 0) for key in ("tokens", "seconds", "effort")}
        self.loss_before: float | None = known["validation_loss_before"] if known and first else None
        self._recent: deque[tuple[float, int, float]] = deque(maxlen=WINDOW_STEPS)
        self._school, self._quest, self._floor = school, quest.id, floor_of(self.ledger, self._hero, school)
        self._plan, self._spikes = plan, 0
        self._stem, self._peak_flops = quest.stem, facts["peak_flops"]
        self._watch, self._rolls, self._unread = OverfittingWatch(), Rolls(), []
        begun = {"quest": quest.stem, "quest_id": quest.id, "school": school, "step": first}
        self._battle = begun | {"total_steps": plan.total_steps} | dict.fromkeys(MEASURED)
        self.ledger.event(
            "trainer",
            "battle_began" if not first else "battle_resumed",
            f"{quest.stem}: {plan.total_steps - first} steps to go.",
            quest=quest.id,
        )
        self.show(facts)

    def step(self, facts: StepFacts) -> None:
        """One optimizer step was done; what it brought is read later."""
        self._unread.append((facts, time.time()))

    def read(self) -> list[tuple[int, float, float | None]]:
        """Take in the steps since the last reading; step, loss and gradient norm of those that were no numbers."""
        unread, self._unread = self._unread, []
        bad = []
        for (facts, moment), (loss, norm, flags) in zip(unread, numbers([facts for facts, _ in unread]), strict=True):
            values = (finite(loss), facts.learning_rate, finite(norm), facts.tokens, facts.seconds, flags)
            self.record.add(Step(facts.global_step, self._quest, moment, *values))
            if flags:
                self._tell_of_flags(facts.step, loss, norm, flags)
            if flags & LEFT_OUT:
                self._battle["step"] = facts.step
            else:
                self._take_in(facts, loss, norm)
                self._take_in_told(facts)
                self._take_in_rolls(facts)
            if flags & NOT_FINITE:
                bad.append((facts.step, loss, norm))
        return bad

    def _tell_of_flags(self, step: int, loss: float, norm: float | None, flags: int) -> None:
        facts = {"quest": self._quest, "step": step, "loss": finite(loss), "gradient_norm": finite(norm)}
        if flags & NOT_FINITE:
            lines = self.lines_of(step)
            self.ledger.event(
                "trainer",
                "step_left_out",
                f"{self._stem}: step {step} was left out, its loss is {loss}, its gradient norm {norm} "
                f"(lines {', '.join(map(str, lines[:SHOWN_LINES]))}{' …' if len(lines) > SHOWN_LINES else ''}).",
                "warning",
                **facts,
                lines=lines,
            )
        elif not flags & PASSED_OVER and self._spikes < TOLD_SPIKES:
            self._spikes += 1
            text = f"{self._stem}: step {step} is a {names(flags)}: loss {loss:.3f}, gradient norm {norm or 0.0:.3g}."
            self.ledger.event("trainer", "spike", text, **facts)

    def lines_of(self, step: int) -> list[int]:
        """The lines of the quest's file that are trained in `step`."""
        return sorted(self._plan.prepared.line(row) for row in self._plan.rows_of(step - 1))

    def _take_in(self, facts: StepFacts, loss: float, norm: float | None) -> None:
        self._recent.append((facts.seconds, facts.tokens, facts.flops))
        seconds, tokens, flops = (sum(values) for values in zip(*self._recent, strict=True))
        strain = lore.strain(loss, self._floor)
        self._totals["tokens"] += facts.tokens
        self._totals["seconds"] += facts.seconds
        self._totals["effort"] += strain or 0.0
        self._watch.train(loss)
        remaining = self._battle["total_steps"] - facts.step
        self._battle |= {
            "step": facts.step,
            "loss": loss,
            "damage": lore.damage(loss),
            "strain": strain,
            "zone": lore.zone(strain),
            "tokens_per_second": tokens / seconds,
            "mfu": flops / seconds / self._peak_flops if self._peak_flops else None,
            "eta_seconds": remaining * seconds / len(self._recent),
            "learning_rate": facts.learning_rate,
            "gradient_norm": norm,
        }

    def _take_in_told(self, facts: StepFacts) -> None:
        """What the school reported beside the loss: on record for each step, in the snapshot as of the last."""
        if facts.told:
            self._battle["told"] = told = {name: float(mean) for name, mean in facts.told.items()}
            self.record.told(facts.global_step, self._quest, told)

    def _take_in_rolls(self, facts: StepFacts) -> None:
        """What was rolled for the step; the ledger is told of what is rare."""
        for each in self._rolls.take_in(facts.step, facts.rolls):
            text = f"{self._stem}, step {facts.step}: {each['text']}"
            self.ledger.event("trainer", f"dice_{each['code']}", text, quest=self._quest)
        if shown := self._rolls.shown:
            self._battle["dice"] = shown

    def validated(self, global_step: int, evaluation: Evaluation) -> Looked:
        """The held-out rows were scored. A loss that is no number is named, and recorded nowhere."""
        loss = evaluation.loss
        if finite(loss) is None:
            return self._tell_of_no_loss(evaluation)
        self._battle |= {"validation_loss": loss, "token_accuracy": evaluation.accuracy}
        self.record.validation(global_step, self._quest, time.time(), loss)
        self._evaluated(global_step, validation=loss, accuracy=evaluation.accuracy)
        if self._battle["step"] == 0:
            self.loss_before = loss
            self.ledger.change("battles", self._row, validation_loss_before=loss)
        if self._watch.look(global_step, loss, evaluation.nats_S, evaluation.labels):
            self._tell_of_overfitting()
        self._battle["best_validation_loss"] = self._watch.best.held_out
        self._floor = floor_of(self.ledger, self._hero, self._school)
        return Looked(loss)

    def _tell_of_no_loss(self, evaluation: Evaluation) -> Looked:
        strange, every = int((~np.isfinite(evaluation.nats_S)).sum()), len(evaluation.nats_S)
        where = f"at step {self._battle['step']}, no number in {strange} of {every} held-out sequences"
        unfit = f"the held-out loss was {evaluation.loss} {where}"
        self._battle["validation_loss"] = None
        text = f"{self._stem}: {unfit}. These weights are not promoted before another look finds one."
        self.ledger.event("trainer", "evaluation_not_finite", text, "warning", quest=self._quest)
        return Looked(None, unfit)

    def previewed(self, global_step: int, previews: Sequence[Preview]) -> None:
        """The hero answered the battle's prompts."""
        self.record.previews(global_step, self._quest, time.time(), previews)
        self._battle["previewed_step"] = global_step
        scores = [preview.score for preview in previews if preview.score is not None]
        if scores:
            self._battle["preview_score"] = score = sum(scores) / len(scores)
            self._evaluated(global_step, preview=score)

    def _evaluated(self, global_step: int, **values: float) -> None:
        where = {"hero": self._hero, "school": self._school, "quest": self._quest, "step": global_step}
        for kind, value in values.items():
            self.ledger.add("evaluations", kind=kind, value=value, created=time.time(), **where)

    def _tell_of_overfitting(self) -> None:
        best, last = self._watch.best, self._watch.last
        if self._watch.alarmed:
            self.ledger.event(
                "trainer",
                "overfitting",
                f"{self._stem} is learned by heart: its held-out loss rose from {best.held_out:.3f} at step {best.step:,} "
                f"to {last.held_out:.3f} while the training loss fell to {last.training:.3f}. Fewer epochs, a lower "
                "learning rate or more rows help.",
                "warning",
                quest=self._quest,
            )
        else:
            text = f"{self._stem}: the held-out loss is back at {last.held_out:.3f}, near its best."
            self.ledger.event("trainer", "overfitting_over", text, quest=self._quest)

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
                self.ledger.change("quests", manifest.quest, failures=0)

    def saved(self, manifest: Manifest, state: str) -> None:
        """A checkpoint is in the Vault. The battle's row says what it holds, whatever becomes of this life."""
        row, done = self._unfinished(manifest.quest), manifest.fought.get(str(manifest.quest))
        if row and done:
            reached = {"validation_loss": manifest.validation_loss, "end_step": manifest.step}
            self.ledger.change("battles", row["id"], **done, **reached)
        record(self.ledger, manifest, state)

    def promoted(self, manifest: Manifest) -> None:
        self.ledger.change("checkpoints", manifest.id, state="promoted")

    def end(self, state: str, reason: str | None = None) -> None:
        """The battle is over: fought to its end (`saving`), or left (`stop`, `skip`, `cancel`, `failed`) for that reason."""
        self.record.flush()
        if self._row is not None:
            now, battle = time.time(), self._battle
            reached = {"validation_loss": battle["validation_loss"], "end_step": self._start + battle["step"]}
            facts = {"finished": now, **reached, **self.so_far}
            if state == "saving":  # it counts when its checkpoint is there
                self._ended, facts = {**self._ended, self._row: now}, {}
            self.ledger.change("battles", self._row, state=state, reason=reason, **facts)
        self._battle = self._row = None
        self._shown = ""

    @property
    def so_far(self) -> dict[str, float]:
        """What the battle's steps have come to: tokens, seconds and effort in all, and the last loss."""
        return {**self._totals, "loss": self._battle["loss"]}

    @property
    def effort(self) -> float:
        """The sum of strain over the battle's steps so far."""
        return self._totals["effort"]

    def close(self, quest: int, verdict: dict[str, Any] | None = None, state: str = "done") -> None:
        """The newest battle of `quest` is over: its weights are saved, and judged."""
        row = self._newest(quest)
        if row and row["state"] != state:
            finished = self._ended.pop(row["id"], time.time())
            self.ledger.change("battles", row["id"], state=state, finished=finished, **_columns(verdict))

    def was_saving(self, quest: int) -> bool:
        """Whether the newest battle of `quest` was fought to its end, and only its checkpoint was not there yet."""
        row = self._newest(quest)
        return row is not None and row["state"] == "saving"

    def _newest(self, quest: int | None) -> dict[str, Any] | None:
        return self.ledger.one("SELECT * FROM battles WHERE quest=? ORDER BY id DESC LIMIT 1", (quest,))

    def _unfinished(self, quest: int | None) -> dict[str, Any] | None:
        """The newest battle of `quest`, unless it counts."""
        row = self._newest(quest)
        return row if row and row["state"] not in OVER else None

    def _write(self, snapshot: dict[str, Any]) -> None:
        with spared(self.paths.state):
            write_json(self.paths.status, {"time": time.time(), **snapshot}, durable=False)
            self._shown = snapshot["state"]


def _columns(verdict: dict[str, Any] | None) -> dict[str, Any]:
    """What a battle's row says of its verdict."""
    if verdict is None:
        return {}
    return {key: verdict[key] for key in ("quality", "xp", "effort")} | {"verdict": orjson.dumps(verdict).decode()}
