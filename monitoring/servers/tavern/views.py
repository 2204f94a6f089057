"""What the pages show, as plain dictionaries: the realm in, words and numbers out. It knows no HTML and no HTTP.

`now` is the part that changes by the second. The pages are rendered with it and the event stream repeats it, so that a
number is put into words in one place only.
"""

from typing import Any

from core.checkpoints import pointed
from core.paths import PRIORITIES
from core.progress import progress
from core.skills import skill
from core.skills import skills as known_skills
from core.steps import read_previews
from monitoring.servers.tavern import arena_views, boards, tongues, vault_views, work
from monitoring.servers.tavern.build import BUILD
from monitoring.servers.tavern.realm import Realm
from monitoring.servers.tavern.words import NOTHING, about, compact, duration, number, percent, precise, size, tiny


def now(realm: Realm) -> dict[str, Any]:
    """`text` and `value` for elements of the pages by name; `plain`: texts that the plain tongue says differently;
    `versions` tell which parts of a page have grown old."""
    status, machine = realm.status(), realm.machine()
    text, value = _hero(status["hero"])
    for more_text, more_value in (_battle(status["battle"] or {}), _machine(machine), _gpus(status["gpus"])):
        text, value = text | more_text, value | more_value
    state = "paused" if status["paused"] and status["state"] in ("idle", "battle", "paused") else status["state"]
    text |= {
        "state": tongues.state_words(state),
        "title": _title(status, text),
        "queue.eta": about(realm.queue_seconds()),
        "disk.free": size(status["disk"]["free_bytes"]),
        "disk.vault": size(status["disk"]["used_by_vault_bytes"]),
    }
    plain, versions = tongues.plain_now(state, status["hero"]), _versions(realm, status, state)
    return {"state": state, "text": text, "plain": plain, "value": value, "versions": versions}


def _versions(realm: Realm, status: dict, state: str) -> dict[str, str]:
    battle, hero = status["battle"] or {}, status["hero"]
    services = " ".join(f"{service['name']}:{service['state']}" for service in status["services"])
    alerts = " ".join(f"{alert['code']}@{alert['since']}" for alert in status["alerts"])
    queue = " ".join(map(str, status["queue"].values()))
    versions = {
        "hero": f"{pointed(realm.paths.tip)} {hero['level']} {hero['name']} {hero['model']}",
        "battle": f"{state} {battle.get('quest_id')}",
        "dice": f"{battle.get('quest_id')} {_last_roll(battle)}",
        "previews": f"{battle.get('quest_id')} {battle.get('previewed_step')}",
        "queue": queue,
        "services": services,
        "events": str(realm.newest_event()),
        "jobs": f"{realm.newest_event()} {work.version(realm)}",
        "steps": str(hero["global_step"]),
    }
    return versions | {
        "next": f"{state} {queue} {services} {status['disk']['state']}",
        "alerts": alerts,
        "tavern": BUILD,
        "board": f"{queue} {boards.version(realm)} {_arriving_key(realm)}",
        **vault_views.keys(realm),
        **arena_views.keys(realm),
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
        "rest": "" if get("zone") else "at rest" if not battle else NOTHING,
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


def hero(realm: Realm) -> dict[str, Any]:
    seed = pointed(realm.paths.tip) or realm.config.hero.name
    return {"hero": realm.status()["hero"], "seed": seed, "skills": skills(realm)}


def skills(realm: Realm) -> list[dict[str, Any]]:
    """Skills with quests of their own: how many are trained, the levels mastered, and the newest score of the level above.

    Of a skill that nobody examines, the share of answers that were right at the last look.
    """
    hero = realm.config.hero.name
    trained = realm.ledger.all(
        "SELECT skill, COUNT(*) AS quests FROM quests WHERE +state='recently_completed' AND skill IS NOT NULL AND EXISTS "
        "(SELECT 1 FROM battles WHERE battles.quest=quests.id AND +battles.hero=?) GROUP BY skill",
        (hero,),
    )
    looks = realm.ledger.all(
        "SELECT skill, value, MAX(looks.id) FROM (SELECT * FROM evaluations WHERE hero=? AND kind='preview' "
        "ORDER BY id DESC LIMIT 500) AS looks JOIN quests ON quests.id = looks.quest WHERE skill IS NOT NULL GROUP BY skill",
        (hero,),
    )
    right = {look["skill"]: look["value"] for look in looks}
    asked = {one["name"]: one for one in progress(realm.paths, realm.config, realm.ledger)} if trained else {}
    return [row | _standing(row["skill"], asked.get(row["skill"].upper()), right) for row in trained]


def _standing(name: str, asked: dict[str, Any] | None, right: dict[str, float]) -> dict[str, Any]:
    score = asked and asked["score"]
    return {
        "title": _skill_title(name),
        "mastered": len(asked["mastered"]) if asked else 0,
        "level": asked["frontier"] if score else None,
        "right": score["accuracy"] if score else right.get(name),
    }


def _skill_title(name: str) -> str:
    return skill(name).title if name.upper() in known_skills() else name


def battle(realm: Realm) -> dict[str, Any]:
    status = realm.status()
    last = None if status["battle"] else work.last_battle(realm)
    return {"battle": status["battle"], "paused": status["paused"], "last": last}


def dice(realm: Realm) -> dict[str, Any] | None:
    """The last rolls of the battle, newest first, with monster and experience; None where it is not rolled."""
    return (realm.status()["battle"] or {}).get("dice")


def _last_roll(battle: dict) -> int | None:
    rolls = (battle.get("dice") or {}).get("rolls")
    return rolls[0]["step"] if rolls else None


def previews(realm: Realm) -> dict[str, Any] | None:
    """The newest look at the hero's answers, with the name of its quest."""
    look = next(iter(read_previews(realm.paths.metrics, limit=1, hero=realm.config.hero.name)), None)
    if look is None:
        return None
    row = realm.ledger.one("SELECT stem FROM quests WHERE id=?", (look["quest"],))
    return look | {"stem": row["stem"] if row else f"quest {look['quest']}"}


def log(realm: Realm, limit: int = 14) -> list[dict[str, Any]]:
    """The newest events, newest first."""
    return list(reversed(realm.ledger.events(limit=limit)))


def alerts(realm: Realm) -> list[dict[str, Any]]:
    return realm.status()["alerts"]


def services(realm: Realm) -> list[dict[str, Any]]:
    return realm.status()["services"]
