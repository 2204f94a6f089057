"""Which checkpoints the quests need that are not at their end, and what for. It deletes nothing."""

from contextlib import suppress

from core.checkpoints import Manifest
from core.errors import UserError
from core.ledger import Ledger
from core.paths import RealmPaths
from core.training_queue import TrainingQueue


def needed(paths: RealmPaths, ledger: Ledger, found: list[Manifest]) -> dict[str, str]:
    """By id, why each of them must stay. `found`: the manifests of all checkpoints."""
    return {
        **dict.fromkeys(_teachers(paths, ledger), "a quest that waits or is trained has it for its teacher"),
        **dict.fromkeys(_before_begun(found, ledger), "a battle that waits to go on began from it"),
        **dict.fromkeys(_before_battles(found, ledger), "the battle that goes on began from it"),
    }


def _before_begun(found: list[Manifest], ledger: Ledger) -> set[str]:
    """What the battles of quests began from that are not at their end: their schools may compare with it."""
    waiting = {str(row["id"]) for row in ledger.all("SELECT id FROM quests WHERE state IN ('queued', 'processing')")}
    begun = (manifest.began.items() for manifest in found if manifest.branch is None)
    return {checkpoint for own in begun for quest, checkpoint in own if quest in waiting}


def _teachers(paths: RealmPaths, ledger: Ledger) -> set[str]:
    """What the Whisper's quests that are not at their end name, a checkpoint or a folder below models/."""
    query = "SELECT id FROM quests WHERE state IN ('queued', 'processing') AND school='whisper'"
    queue, named = TrainingQueue(paths, ledger), set()
    for row in ledger.all(query):
        with suppress(UserError, KeyError):  # it goes to another folder just now, or lost its card
            named.add(queue.find(row["id"]).card["settings"]["schools"]["whisper"]["teacher"])
    return named - {None}


def _before_battles(found: list[Manifest], ledger: Ledger) -> set[str]:
    """What the battles that go on began from: where a battle ends badly, its hero is taken back to that."""
    going_on = ledger.all(
        "SELECT DISTINCT hero, start_step FROM battles WHERE state != 'lost' "
        "AND quest IN (SELECT id FROM quests WHERE state='processing')"
    )
    way = sorted((manifest for manifest in found if manifest.branch is None), key=lambda manifest: manifest.step)
    before = (
        [each.id for each in way if (each.hero, True) == (battle["hero"], each.step <= battle["start_step"])]
        for battle in going_on
    )
    return {ids[-1] for ids in before if ids}
