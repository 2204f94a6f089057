"""A battle on a full disk: it waits between two steps with all it has learned in memory, and goes on by itself.

It knows nothing about what fills the disk, nor about when that counts as full.
"""

from core import disk
from core.battle import BattlePlan
from core.between_steps import LOOK_SECONDS, Resident, wished
from core.disk import Level
from core.quest import Quest
from core.wishes import Ending


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
    while ending is None and is_short(worker):
        worker.beat()
        worker.report.show(worker.hero_facts(), "blocked")
        worker.should_exit.wait(LOOK_SECONDS)
        worker.collect()
        ending = wished(worker, quest)
    worker.ledger.event("trainer", "battle_goes_on", f"There is room again for {place}.", quest=quest.id)
    return ending
