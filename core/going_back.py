"""Back to a checkpoint before the trouble: for steps that were no numbers, weights that are none, rows that changed.

Whatever is trained again from there is the same, bit for bit, so which checkpoint it is changes nothing: the newest one
that is early enough. It knows the queue and the Vault and nothing of tensors.
"""

from collections.abc import Callable
from typing import Any, Protocol

from core import checkpoints
from core.battle_report import BattleReport
from core.blame import blame
from core.checkpoint_writer import CheckpointWriter
from core.checkpoints import Manifest
from core.dossier import attempt_of
from core.durable import write_json
from core.errors import CheckpointError, NotFinite
from core.forge.guard import ADVICE, BadStep, Spoiled
from core.ledger import Ledger
from core.paths import RealmPaths
from core.quest import Quest
from core.training_queue import TrainingQueue

DOSSIER = "dossier"
TOLD_LINES = 1000


class Returning(Protocol):
    """What is needed of the worker who goes back. `spoiled`: left for the battle that begins next."""

    paths: RealmPaths
    ledger: Ledger
    queue: TrainingQueue
    report: BattleReport
    writer: CheckpointWriter
    spoiled: tuple[int, Spoiled] | None
    end_writing: Callable[[], None]

    @property
    def tip(self) -> Manifest: ...
    def reload(self, verified: Manifest | None = None) -> None: ...


def go_back(worker: Returning, quest: Quest, spoiled: Spoiled) -> None:
    """The battle of `quest` goes on from before the stretch, which it passes over; the second time it is given up."""
    worker.report.end("failed", str(spoiled))
    worker.end_writing()
    if spoiled.again:
        return_to(worker, before(worker.paths, worker.tip, quest.id, 0))
        _give_up(worker, quest, spoiled)
        return
    stretch = spoiled.stretch
    return_to(worker, before(worker.paths, worker.tip, quest.id, stretch.first - 1))
    worker.spoiled = (quest.id, spoiled)
    lines = sorted({line for step in range(stretch.first, stretch.last + 1) for line in worker.report.lines_of(step)})
    worker.ledger.event(
        "trainer",
        "went_back",
        f"{quest.stem}: {spoiled}. Back to step {worker.tip.open.get(quest.id, 0)}; steps {stretch.first} to "
        f"{stretch.last} with {len(lines)} rows are passed over.",
        "warning",
        quest=quest.id,
        checkpoint=worker.tip.id,
        lines=lines[:TOLD_LINES],
    )


def before(paths: RealmPaths, tip: Manifest, quest: int, steps: int) -> Manifest | None:
    """The newest whole checkpoint that holds at most `steps` steps of `quest`, and of all else what `tip` holds."""
    for manifest in [tip, *checkpoints.manifests(paths, tip.hero)]:
        if (
            manifest.branch is None
            and manifest.open.get(quest, 0) <= steps
            and _others(manifest, quest) == _others(tip, quest)
        ):
            try:
                return checkpoints.verify(paths.vault / manifest.id)
            except CheckpointError:
                continue
    return None


def _others(manifest: Manifest, quest: int) -> Any:
    return manifest.trained, {key: steps for key, steps in manifest.open.items() if key != quest}


def return_to(worker: Returning, verified: Manifest | None) -> None:
    """Training goes on from a checkpoint that was found whole just now; from the tip where there is none."""
    if verified and verified.id != worker.tip.id:
        checkpoints.set_tip(worker.paths, verified.id)
        worker.writer.stand_on(verified)
    worker.reload(verified)


def _give_up(worker: Returning, quest: Quest, spoiled: Spoiled) -> None:
    reason = f"its loss or gradient is no number again after going back once: {spoiled}"
    dossier = {"steps": [_named(worker, step) for step in spoiled.bad], "advice": ADVICE}
    write_json(quest.companion(".report.json"), {**quest.report, DOSSIER: dossier})
    worker.queue.give_up(quest, reason)
    text = f"{quest.stem} is set aside in failed/: {reason}. {ADVICE}"
    worker.ledger.event("trainer", "quest_failed", text, "alert", quest=quest.id, checkpoint=worker.tip.id)


def _named(worker: Returning, step: BadStep) -> dict[str, Any]:
    names = {"step": step.step, "loss": step.loss, "gradient_norm": step.gradient_norm}
    return {**names, "lines": worker.report.lines_of(step.step)}


def not_saved(worker: Returning, problem: NotFinite) -> None:
    """Weights that are no numbers were to be saved: back to the tip, and the quest that made them is tried again."""
    culprit, attempt = worker.queue.find(worker.writer.held.quest), attempt_of(problem, worker.writer.held.step)
    worker.reload()
    blame(worker.queue, worker.ledger, culprit, f"its weights were not saved: {problem}", attempt)


def same_lessons(worker: Returning, quest: Quest, prepared: str, teacher: str | None = None) -> None:
    """The steps that the weights hold of `quest` were trained on these very rows, by this very teacher; else it begins anew, and
    says so.

    Rows change when the realm renders them in another way than the version that began the battle, when another
    tokenizer or chat template was put into the checkpoint, or when a teacher was asked again. A mixture would be neither the
    one battle nor the other.
    """
    held, key = worker.writer.held, str(quest.id)
    known = {"rows, tokenizer or chat template": (held.prepared.get(key), prepared)}
    known["teacher's weights"] = held.teachers.get(key), teacher
    changed = {what: both for what, both in known.items() if both[0] not in (None, both[1])}
    if not held.open.get(quest.id) or not changed:
        return
    worker.end_writing()
    earlier = before(worker.paths, worker.tip, quest.id, 0)
    where = "from the weights before it" if earlier else "on the weights as they are; no checkpoint before it is left"
    text = (
        f"{quest.stem}: its {' and its '.join(changed)} are not those of its first "
        f"{held.open[quest.id]} steps; it begins anew {where}."
    )
    was, now = (", ".join(str(both[place]) for both in changed.values()) for place in (0, 1))
    worker.ledger.event("trainer", "quest_anew", text, "warning", quest=quest.id, before=was, after=now)
    if earlier:
        return_to(worker, earlier)
    else:
        worker.writer.held = worker.writer.held.reached(quest.id, 0, prepared)
