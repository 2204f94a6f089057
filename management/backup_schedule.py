"""When a backup is due, and one whole turn of it: send, tell, prune. It knows nothing about processes."""

import time

from core.checkpoints import pointed
from core.config import Backup
from core.jobs import job
from core.ledger import Ledger
from core.paths import RealmPaths
from management.backup_manager import Record, back_up, prune
from management.backup_target import Target

MADE, FAILED = "backup_made", "backup_failed"
AGAIN_SECONDS = 900.0  # after a failure, or as often as the schedule says if that is sooner


def wanted(paths: RealmPaths, policy: Backup) -> str | None:
    """The checkpoint that is to be backed up now, None where there is none yet."""
    links = {"current": paths.current_model, "champion": paths.champion, "tip": paths.tip}
    return pointed(links[policy.what])


def due(paths: RealmPaths, ledger: Ledger, policy: Backup, now: float) -> bool:
    """Whether it is time: so long since the last one, and something is there that it does not hold."""
    checkpoint = wanted(paths, policy)
    if not policy.to or checkpoint is None:
        return False
    last = _last(ledger, MADE, policy.to)
    failed = _last(ledger, FAILED, policy.to)
    pause = 3600.0 * policy.every_hours
    if failed and (not last or failed["id"] > last["id"]):
        return now - failed["time"] >= min(pause, AGAIN_SECONDS)
    return last is None or (now - last["time"] >= pause and last["data"].get("checkpoint") != checkpoint)


def _last(ledger: Ledger, code: str, to: str) -> dict | None:
    """The newest event of this code for this target."""
    rows = [row for row in ledger.events_of(code) if row["data"].get("to") == to]
    return rows[-1] if rows else None


def back_up_and_prune(
    paths: RealmPaths, ledger: Ledger, checkpoint: str, target: Target, policy: Backup
) -> tuple[Record, int, list[str]]:
    """The backup's record, the bytes sent, and the checkpoints whose backups went."""
    with job(ledger, "backup", "vault", f"{checkpoint} to {target.url}"):
        made, sent = back_up(paths, ledger, checkpoint, target, time.time)
    text = f"{checkpoint} is backed up to {target.url}."
    ledger.event("vault", MADE, text, checkpoint=checkpoint, to=target.url, sent_bytes=sent)
    return made, sent, prune(target, made.hero, policy)


def fail(ledger: Ledger, url: str, problem: Exception) -> None:
    """An alert, until a backup was made."""
    ledger.event("vault", FAILED, f"No backup to {url}: {problem}", "alert", to=url)
