"""What the pages show, as plain dictionaries: the realm in, words and numbers out. It knows no HTML and no HTTP.

`now` is the part that changes by the second. The pages are rendered with it and the event stream repeats it, so that a
number is put into words in one place only.
"""

import time
from dataclasses import dataclass
from typing import Any

from core.checkpoints import pointed
from core.disk import Level
from core.paths import PRIORITIES
from core.steps import read_previews
from monitoring.servers.tavern import vault_views
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.words import compact, duration, number, percent, precise, size, tiny

STATES = {
    "battle": "In battle",
    "idle": "At rest",
    "preparing": "Preparing",
    "saving": "Saving",
    "paused": "Paused",
    "loading": "Waking",
    "starting": "Waking",
    "blocked": "Blocked",
    "silent": "Silent",
    "stopped": "Asleep",
    "failed": "Given up",
}
START = "bash scripts/start.sh"


def now(realm: Realm) -> dict[str, Any]:
    """`text` and `value` for elements of the pages by name; `versions` tell which parts of a page have grown old."""
    status, machine = realm.status(), realm.machine()
    text, value = _hero(status["hero"])
    for more_text, more_value in (_battle(status["battle"] or {}), _machine(machine), _gpus(status["gpus"])):
        text, value = text | more_text, value | more_value
    state = "paused" if status["paused"] and status["state"] in ("idle", "battle", "paused") else status["state"]
    text |= {
        "state": STATES.get(state, state),
        "title": _title(status, text),
        "disk.free": size(status["disk"]["free_bytes"]),
        "disk.vault": size(status["disk"]["used_by_vault_bytes"]),
    }
    return {"state": state, "text": text, "value": value, "versions": _versions(realm, status, state)}


def _versions(realm: Realm, status: dict, state: str) -> dict[str, str]:
    battle, hero = status["battle"] or {}, status["hero"]
    services = " ".join(f"{service['name']}:{service['state']}" for service in status["services"])
    alerts = " ".join(f"{alert['code']}@{alert['since']}" for alert in status["alerts"])
    queue = " ".join(map(str, status["queue"].values()))
    versions = {
        "hero": f"{pointed(realm.paths.tip)} {hero['level']} {hero['name']} {hero['model']}",
        "battle": f"{state} {battle.get('quest_id')}",
        "previews": f"{battle.get('quest_id')} {battle.get('previewed_step')}",
        "queue": queue,
        "services": services,
        "events": str(realm.newest_event()),
        "steps": str(hero["global_step"]),
    }
    return versions | {
        "next": f"{state} {queue} {services} {status['disk']['state']}",
        "alerts": alerts,
        "board": f"{queue} {versions['events']} {_arriving_key(realm)}",
        **vault_views.keys(realm),
    }


def _arriving_key(realm: Realm) -> str:
    folders = (*map(realm.paths.inbox_for, PRIORITIES), realm.paths.claims)
    return " ".join(f"{folder.name}:{folder.stat().st_mtime_ns}" for folder in folders if folder.is_dir())


def _title(status: dict, text: dict) -> str:
    battle = status["battle"]
    return f"{text['battle.percent']} {battle['quest']}" if battle else "The Realm of Training"


def _hero(hero: dict) -> tuple[dict[str, str], dict[str, float]]:
    step, level = hero["global_step"], hero["level"]
    text = {
        "hero.level": number(level),
        "hero.title": hero["title"],
        "hero.xp": number(hero["xp"]),
        "hero.step": number(step),
        "hero.parameters": compact(hero["parameters"]),
        "hero.next": f"{number(level * 1000 - step)} steps to level {number(level + 1)}",
    }
    return text, {"hero.level": (step % 1000) / 1000}


def _battle(battle: dict) -> tuple[dict[str, str], dict[str, float]]:
    get = battle.get
    step, total = get("step"), get("total_steps")
    text = {
        "step": number(step),
        "total": number(total),
        "percent": percent(step, total),
        "loss": precise(get("loss")),
        "validation_loss": precise(get("validation_loss")),
        "damage": precise(get("damage"), 3),
        "strain": precise(get("strain"), 3),
        "zone": get("zone") or "",
        "eta": duration(get("eta_seconds")),
        "tokens_per_second": compact(get("tokens_per_second")),
        "mfu": percent(get("mfu")),
        "best_validation_loss": precise(get("best_validation_loss")),
        "token_accuracy": percent(get("token_accuracy")),
        "preview_score": percent(get("preview_score")),
        "learning_rate": tiny(get("learning_rate")),
        "gradient_norm": precise(get("gradient_norm"), 3),
    }
    progress = step / total if step and total else 0.0
    return {f"battle.{name}": words for name, words in text.items()}, {"battle.progress": progress}


def _machine(machine: dict) -> tuple[dict[str, str], dict[str, float]]:
    text = {"machine.cpu": f"{machine['cpu_percent']:.0f} %"}
    value = {"machine.cpu": machine["cpu_percent"] / 100}
    for name in ("memory", "disk"):
        used, total = machine[f"{name}_used_bytes"], machine[f"{name}_total_bytes"]
        text[f"machine.{name}"] = f"{size(used)} of {size(total)}"
        value[f"machine.{name}"] = used / max(1, total)
    return text, value


def _gpus(gpus: list[dict]) -> tuple[dict[str, str], dict[str, float]]:
    text, value = {}, {}
    for gpu in gpus:
        known = {key: reading for key, reading in gpu.items() if reading is not None}
        readings = []
        if "utilization_percent" in known:
            readings.append(f"{known['utilization_percent']} %")
        if "memory_used_bytes" in known:
            readings.append(f"{size(known['memory_used_bytes'])} of {size(gpu['memory_total_bytes'])}")
        if "temperature_celsius" in known:
            readings.append(f"{known['temperature_celsius']} °C")
        if "power_watts" in known:
            readings.append(f"{known['power_watts']:.0f} W")
        text[f"gpu.{gpu['index']}"] = " · ".join(readings) or "no readings"
        value[f"gpu.{gpu['index']}"] = known.get("utilization_percent", 0) / 100
    return text, value


@dataclass(frozen=True)
class Next:
    """What happens next. `kind`: go, idle or blocked; `command` and `verb`: what a person can type or press."""

    kind: str
    title: str
    text: str
    command: str | None = None
    verb: str | None = None


def what_next(realm: Realm) -> Next:
    status = realm.status()
    state, disk = status["state"], status["disk"]
    services = {service["name"]: service["state"] for service in status["services"]}
    waiting = sum(status["queue"][priority] for priority in PRIORITIES)
    if services["watchdog"] == "stopped" and services["trainer"] != "running":
        return Next("blocked", "The realm is asleep", "No service runs, so nothing is trained. Wake it with", START)
    if disk["state"] in (Level.NOT_CLAIMING.word, Level.PAUSED.word):
        return Next("blocked", "The disk is almost full", disk["text"])
    if state == "blocked":
        text = f"What it wants to write does not fit into {size(disk['free_bytes'])}. Free space; it goes on by itself."
        return Next("blocked", "The trainer waits for room on the disk", text)
    if state in ("starting", "loading"):
        return Next("idle", "The hero wakes up", "The model is being loaded.")
    if services["trainer"] != "running":
        return Next(
            "blocked",
            f"The trainer is in state {services['trainer']}",
            "Its log says why:",
            "python -m training logs trainer",
        )
    if status["paused"]:
        return Next(
            "idle",
            "Paused",
            "The hero keeps its place in the quest and waits for you.",
            verb=None if status["battle"] else "resume",
        )
    if services["daemon"] != "running":
        return Next(
            "blocked",
            f"The daemon is in state {services['daemon']}",
            "Files in the inbox are not taken. Its log says why:",
            "python -m training logs daemon",
        )
    if status["battle"]:
        return Next("go", "The battle is on", _after_battle(waiting))
    if preparing := status["preparing"]:
        text = f"{preparing['share']:.0%} of {preparing['quest']} is turned into tokens; then the battle begins."
        return Next("go", "A quest is being prepared", text)
    if waiting:
        return Next("go", "A quest is being taken up", f"{number(waiting)} waiting. The first step is seconds away.")
    return Next("idle", "All quiet", "No quest waits. Drop a .jsonl anywhere on this page, and the battle begins.")


def _after_battle(waiting: int) -> str:
    if not waiting:
        return "No quest waits behind it. Drop another .jsonl whenever you like."
    return "One quest waits behind it." if waiting == 1 else f"{number(waiting)} quests wait behind it."


def hero(realm: Realm) -> dict[str, Any]:
    status = realm.status()
    return {"hero": status["hero"], "seed": pointed(realm.paths.tip) or realm.config.hero.name}


def battle(realm: Realm) -> dict[str, Any]:
    status = realm.status()
    last = None if status["battle"] else next(iter(jobs(realm, limit=1)), None)
    return {"battle": status["battle"], "paused": status["paused"], "last": last}


def previews(realm: Realm) -> dict[str, Any] | None:
    """The newest look at the hero's answers, with the name of its quest."""
    look = next(iter(read_previews(realm.paths.metrics, limit=1)), None)
    if look is None:
        return None
    row = realm.ledger.one("SELECT stem FROM quests WHERE id=?", (look["quest"],))
    return look | {"stem": row["stem"] if row else f"quest {look['quest']}"}


def log(realm: Realm, limit: int = 14) -> list[dict[str, Any]]:
    """The newest events, newest first."""
    return list(reversed(realm.ledger.events(limit=limit)))


def jobs(realm: Realm, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
    """Battles, newest first; `before`: only those with a smaller id."""
    rows = realm.ledger.all(
        "SELECT battles.*, quests.stem FROM battles LEFT JOIN quests ON quests.id = battles.quest WHERE battles.id < ? "
        "ORDER BY battles.id DESC LIMIT ?",
        (before or 1 << 62, limit),
    )
    running = realm.status()["battle"] or {}
    return [_job(row, running) for row in rows]


def totals(realm: Realm) -> dict[str, float]:
    """Everything the hero has gone through."""
    return realm.ledger.one(
        "SELECT COUNT(*) AS battles, COALESCE(SUM(tokens), 0) AS tokens, "
        "COALESCE(SUM(seconds), 0) AS seconds, COALESCE(SUM(xp), 0) AS xp FROM battles"
    )


def _job(row: dict, running: dict) -> dict[str, Any]:
    """A battle's row for people; the running one has its losses and its speed from the trainer's snapshot."""
    live = row["state"] == "running" and running.get("quest_id") == row["quest"]
    told = (
        "id",
        "quest",
        "school",
        "state",
        "total_steps",
        "start_step",
        "loss",
        "validation_loss_before",
        "validation_loss",
        "xp",
        "reason",
        "started",
        "finished",
    )
    job = {name: row[name] for name in told}
    job |= {
        "kind": "battle",
        "live": live,
        "stem": row["stem"] or f"quest {row['quest']}",
        "step": _steps_done(row),
        "seconds": row["finished"] - row["started"] if row["finished"] else row["seconds"] or None,
        "tokens_per_second": row["tokens"] / row["seconds"] if row["seconds"] else None,
    }
    if live:
        now_known = {name: running.get(name) for name in ("step", "loss", "validation_loss", "tokens_per_second")}
        return job | now_known | {"seconds": time.time() - row["started"]}
    return job | {"state": "interrupted"} if row["state"] == "running" else job


def _steps_done(row: dict) -> int | None:
    if row["state"] == "done":
        return row["total_steps"]
    return None if row["end_step"] is None else row["end_step"] - row["start_step"]


def alerts(realm: Realm) -> list[dict[str, Any]]:
    return realm.status()["alerts"]


def services(realm: Realm) -> list[dict[str, Any]]:
    return realm.status()["services"]
