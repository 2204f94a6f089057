"""The realm as one dictionary, the view that `status`, the Tavern and its API share. It only reads.

Queue counts come from the folders, the battle from the trainer's snapshot, history from the ledger, services from the
supervisor's table; what cannot be known is null, never a guess.
"""

import os
import time
from functools import lru_cache
from typing import Any

from core import lore
from core.checkpoints import MANIFEST, pointed
from core.config import Config
from core.control import is_paused
from core.disk import Level, about
from core.durable import read_json
from core.folder_counts import FolderCounts
from core.heartbeat import read_beat
from core.ledger import Ledger
from core.paths import RealmPaths
from core.progress import mastered
from core.quest import parse_file_name
from core.realm_lock import same_process
from core.training_queue import TrainingQueue

SERVICES = ("watchdog", "daemon", "trainer", "tavern", "oracle")
BATTLE_ENDS = ("quest_done", "battle_cursed", "quest_failed", "quest_skipped", "quest_cancelled")
MENDED_BY = {  # alert: the events that show it is over
    "config_wrong": ("hero_awake",),
    "hero_unclear": ("hero_awake",),
    "service_failed": ("hero_awake",),
    "backup_failed": ("backup_made",),
    "checkpoint_unfit": ("quest_done",),
    "battle_cursed": ("quest_done",),
    "alerts_unsent": ("alerts_sent",),
    "sink_wrong": ("hero_awake",),
    "crash": ("battle_began", "battle_resumed", "quest_done"),
    "disk_low": ("quest_done", "battle_began", "battle_resumed", "battle_goes_on", "disk_ok"),
    "overfitting": ("overfitting_over", "battle_began", "battle_resumed", *BATTLE_ENDS),
}
WARNINGS = ("overfitting", "alerts_unsent")  # shown among the alerts while they last
MOST_ALERTS = 100
STALE_SECONDS = 60.0
HELD_UP = ("battle", "idle", "saving", "preparing", "sparring")  # states that a full disk turns into `blocked`


def realm_status(
    paths: RealmPaths,
    config: Config,
    ledger: Ledger,
    gpus: list[dict] | None = None,
    folders: FolderCounts | None = None,
) -> dict[str, Any]:
    """All of `status --json`; the shape is in the contract of the README. `folders`: kept by whoever asks often."""
    folders = folders or FolderCounts()
    snapshot = read_json(paths.status, {})
    services = service_states(paths)
    trainer = next(service for service in services if service["name"] == "trainer")
    disk = _disk(paths, ledger)
    state = snapshot.get("state", "loading") if trainer["state"] == "running" else trainer["state"]
    if disk["state"] == Level.PAUSED.word and state in HELD_UP:
        state = "blocked"  # the trainer may have had no room to say so
    return {
        "state": state,
        "hero": _hero(paths, config, snapshot, ledger),
        "battle": snapshot.get("battle") if trainer["state"] == "running" else None,
        "preparing": _preparing(paths, services, snapshot),
        "queue": TrainingQueue(paths, ledger, folders).counts()
        | {"arriving": folders.count(paths.claims, parse_file_name)},
        "paused": is_paused(ledger),
        "current_model": pointed(paths.current_model),
        "services": services,
        "disk": disk,
        "gpus": gpus or [],
        "alerts": _with_disk(alerts(ledger), disk),
        "time": time.time(),
    }


def _preparing(paths: RealmPaths, services: list[dict[str, Any]], snapshot: dict) -> dict[str, Any] | None:
    """What is done with a quest's rows before its battle: by the trainer, else by the daemon, which asks a teacher."""
    running = {service["name"] for service in services if service["state"] == "running"}
    own = snapshot.get("preparing") if "trainer" in running else None
    return own or (read_json(paths.asking) if "daemon" in running else None)


def _hero(paths: RealmPaths, config: Config, snapshot: dict, ledger: Ledger) -> dict[str, Any]:
    name, hero = config.hero.name, snapshot.get("hero", {})
    if hero.get("name", name) != name:  # who was switched off
        hero = {}
    step = hero.get("global_step", _tip_step(paths, ledger, name))
    xp = ledger.one("SELECT COALESCE(SUM(xp), 0) AS xp FROM battles WHERE hero=?", (name,))["xp"]
    return {
        "name": name,
        "model": hero.get("model"),
        "parameters": hero.get("parameters"),
        "global_step": step,
        "level": lore.level(step),
        "xp": xp,
        "title": lore.title(step),
        "vocabulary": hero.get("vocabulary"),
        "mastered": _mastered(paths, name),
    }


def _mastered(paths: RealmPaths, hero: str) -> dict[str, list[int]]:
    """`progress.mastered`, asked anew only when the tip has moved: an open page wants to know twice a second."""
    tip = pointed(paths.tip)
    try:
        written = os.stat(paths.vault / tip / MANIFEST).st_mtime_ns if tip else None
    except FileNotFoundError:
        written = None
    return _mastered_since(paths, hero, tip, written)


@lru_cache(maxsize=1)  # no more, or what came while it was read would be found under the tip before
def _mastered_since(paths: RealmPaths, hero: str, tip: str | None, written: int | None) -> dict[str, list[int]]:
    return mastered(paths, hero)


def _tip_step(paths: RealmPaths, ledger: Ledger, hero: str) -> int:
    """The hero's step while the trainer is still loading it."""
    row = ledger.one("SELECT step FROM checkpoints WHERE id=? AND hero=?", (pointed(paths.tip), hero))
    return row["step"] if row else 0


def _disk(paths: RealmPaths, ledger: Ledger) -> dict[str, Any]:
    used = ledger.one("SELECT COALESCE(SUM(bytes), 0) AS used FROM checkpoints WHERE gone IS NULL")["used"]
    return about(paths) | {"used_by_vault_bytes": used}


def _with_disk(known: list[dict[str, Any]], disk: dict[str, Any]) -> list[dict[str, Any]]:
    """The alerts and what the disk says now, which needs no row: a full disk may have taken none."""
    if disk["state"] not in (Level.NOT_CLAIMING.word, Level.PAUSED.word):
        return known
    now = {"code": "disk_low", "text": disk["text"], "since": disk["since"]}
    return [now, *(alert for alert in known if alert["code"] != "disk_low")]


def alerts(ledger: Ledger, since_seconds: float = 86400.0) -> list[dict[str, Any]]:
    """What went wrong in the last day and was not mended since, newest first, each complaint once, the newest hundred."""
    marks, since = ", ".join("?" * len(WARNINGS)), time.time() - since_seconds
    rows = ledger.all(  # two searches of two indexes: the log may be long
        "SELECT code, text, MAX(time) AS since, MAX(id) AS id FROM ("
        "SELECT * FROM events WHERE level='alert' AND time > ? UNION ALL "
        f"SELECT * FROM events WHERE level<>'alert' AND code IN ({marks}) AND time > ?"
        ") GROUP BY code, text ORDER BY since DESC LIMIT ?",
        (since, *WARNINGS, since, MOST_ALERTS),
    )
    mended = {code: _mended(ledger, code) for code in {row["code"] for row in rows}}
    return [{key: row[key] for key in ("code", "text", "since")} for row in rows if row["id"] > mended[row["code"]]]


def _mended(ledger: Ledger, code: str) -> int:
    """The newest event that shows that an alert's reason is gone."""
    signs = MENDED_BY.get(code, ())
    newest = " UNION ALL ".join(["SELECT MAX(id) AS id FROM events WHERE code=?"] * len(signs))
    return (ledger.one(f"SELECT MAX(id) AS id FROM ({newest})", signs)["id"] or 0) if signs else 0


def quest_in_battle(paths: RealmPaths, queue: TrainingQueue) -> int | None:
    """The quest that a skip means: the one the trainer shows, else the one it takes up next.

    Beside it may lie one that is trained and waits for its checkpoint.
    """
    claimed = [quest.id for quest in queue.processing()]
    shown = (read_json(paths.status, {}).get("battle") or {}).get("quest_id")
    return shown if shown in claimed else next(iter(claimed), None)


def service_states(paths: RealmPaths) -> list[dict[str, Any]]:
    """Every service with pid, state, restarts and age of its heartbeat; `stopped` where no supervisor lives."""
    table = read_json(paths.services, {})
    known = {service["name"]: service for service in table.get("services", [])}
    supervisor = table.get("supervisor", {})
    supervised = same_process(supervisor.get("pid"), supervisor.get("started"))
    return [_service(paths, name, known.get(name, {}), supervised) for name in SERVICES]


def _service(paths: RealmPaths, name: str, known: dict[str, Any], supervised: bool) -> dict[str, Any]:
    alive = same_process(known.get("pid"), known.get("started"))
    beat = heartbeat_age(paths, name)
    state = known.get("state", "off" if name == "oracle" else "stopped")
    if not alive and (state == "running" or not supervised) and state != "off":
        state = "stopped"
    if state == "running" and (beat is None or beat > _granted(paths, name)):
        state = "starting" if beat is None else "silent"
    return {
        "name": name,
        "pid": known.get("pid") if alive else None,
        "state": state,
        "restarts": known.get("restarts", 0),
        "heartbeat_age_seconds": beat if alive else None,
    }


def _granted(paths: RealmPaths, name: str) -> float:
    """Seconds of silence that say nothing about a service: more where it said that it would be busy for long."""
    beat = read_beat(paths.heartbeats / name)
    return max(STALE_SECONDS, beat.silence or 0.0) if beat else STALE_SECONDS


def heartbeat_age(paths: RealmPaths, name: str) -> float | None:
    """Seconds since the service `name` last beat, or None if it never did."""
    try:
        return max(0.0, time.time() - os.stat(paths.heartbeats / name).st_mtime)
    except FileNotFoundError:
        return None
