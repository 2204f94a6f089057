"""A battle on a full disk: it waits between two steps with all it has learned in memory, and goes on by itself.

It knows nothing about what fills the disk, nor about when that counts as full.
"""

import logging

from core import disk
from core.battle import BattlePlan
from core.between_steps import LOOK_SECONDS, Resident, wished
from core.disk import Level
from core.full_disk import spared
from core.quest import Quest
from core.wishes import Ending

log = logging.getLogger(__name__)


def is_short(worker: Resident) -> bool:
    """Whether a checkpoint waits for room, or the next one would."""
    return worker.writer.stuck is not None or disk.level(worker.paths, disk.need_of(worker.writer.tip)) is Level.PAUSED


def wait_for_room(worker: Resident, quest: Quest, plan: BattlePlan, step: int) -> Ending | None:
    """Return when there is room, or how the battle is to be left. Stops and skips are heard meanwhile."""
    if not is_short(worker):
        return None
    place = f"{quest.stem} at step {step} of {plan.total_steps}"
    worker.ledger.event(
        "trainer", "battle_waits", f"The disk is full: {place} waits for room.", "warning", quest=quest.id
    )
    ending = None
    worker.enter("paused")
    while ending is None and is_short(worker):
        worker.beat()
        worker.report.show(worker.hero_facts(), "blocked")
        worker.should_exit.wait(LOOK_SECONDS)
        worker.collect()
        ending = wished(worker, quest)
    worker.enter("step")
    if ending is None:
        worker.ledger.event("trainer", "battle_goes_on", f"There is room again for {place}.", quest=quest.id)
    return ending


def tell_no_space(worker: Resident, problem: Exception) -> None:
    """A battle ended for want of room: say so as far as there is room for that, and only once."""
    log.error("no space: %s", problem)
    text = f"There is no room for what is to be written: {problem}. Free space; training goes on by itself."
    with spared(worker.paths.state):
        worker.report.end("stopped", str(problem))
        if worker.ledger.events(limit=1)[-1]["text"] != text:
            worker.ledger.event("trainer", "disk_low", text, "alert")
