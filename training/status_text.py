"""The realm's status as people read it in a terminal: a page for `status`, a line for `start-all --foreground`."""

import time
from typing import Any

from core.logs import visible
from training.terminal import bytes_text, duration_text, number_text, styled

_GOOD = {"running", "off"}
PREPARING = {"sparring": "sparring over", "asking": "asking a teacher about"}


def page(status: dict[str, Any], tavern: str | None = None) -> str:
    """All of it, a topic a line; `tavern`: the link to it, where it runs."""
    lines = [
        ("Hero", _hero(status["hero"])),
        ("Battle", _battle(status)),
        ("Queue", _queue(status["queue"])),
        ("Services", _services(status["services"])),
        ("Disk", _disk(status["disk"])),
    ]
    lines += [("Tavern", tavern)] if tavern else []
    lines += [("GPU", _gpu(gpu)) for gpu in status["gpus"]]
    lines += [
        ("Alert", f"{styled(visible(alert['text']), 'red')} ({_ago(alert['since'])})") for alert in status["alerts"]
    ]
    return "\n".join(f"{styled(f'{name:9}', 'gold')} {text}" for name, text in lines)


def line(status: dict[str, Any]) -> str:
    """What matters, on one line without colours."""
    queue, services = status["queue"], status["services"]
    ill = [f"{service['name']} {service['state']}" for service in services if service["state"] not in _GOOD]
    waiting = sum(queue[state] for state in ("high", "normal", "low"))
    return " | ".join([_battle(status), f"{waiting} waiting, {queue['recently_completed']} done", *ill])


def _hero(hero: dict[str, Any]) -> str:
    size = f", {number_text(hero['parameters'])} parameters" if hero["parameters"] else ""
    skills = ", ".join(f"{name} {max(levels)}" for name, levels in hero.get("mastered", {}).items())
    return (
        f"{styled(hero['name'], 'bold')}, level {hero['level']} {hero['title']}, step {hero['global_step']}, "
        f"{hero['xp']:.1f} XP{size}{_in_brackets(hero['model'])}{f'; mastered {skills}' if skills else ''}"
    )


def _in_brackets(text: Any) -> str:
    return f" ({visible(str(text))})" if text else ""


def _battle(status: dict[str, Any]) -> str:
    battle = status["battle"]
    if (preparing := status["preparing"]) and battle is None:
        left = preparing["eta_seconds"]
        to_go = "" if left is None else f", {duration_text(left)} to go"
        paused = ", paused" if status["paused"] else ""
        doing = PREPARING.get(preparing.get("kind"), "preparing")
        return f"{doing} {visible(str(preparing['quest']))}, {preparing['share']:.0%}{to_go}{paused}"
    if battle is None:
        return "paused" if status["paused"] else "none"
    facts = [f"{visible(str(battle['quest']))} step {battle['step']}/{battle['total_steps']}"]
    facts += [
        f"{name} {battle[key]:.3f}"
        for name, key in (("loss", "loss"), ("validation", "validation_loss"))
        if battle.get(key)
    ]
    facts += [str(battle["zone"])] if battle.get("zone") else []
    facts += [f"{number_text(battle['tokens_per_second'])} tokens/s"] if battle.get("tokens_per_second") else []
    facts += [f"{100 * battle['mfu']:.0f} % MFU"] if battle.get("mfu") else []
    facts += [f"gradient norm {battle['gradient_norm']:.3g}"] if battle.get("gradient_norm") is not None else []
    facts += [f"{duration_text(battle['eta_seconds'])} to go"] if battle.get("eta_seconds") is not None else []
    return ", ".join(facts + (["paused"] if status["paused"] else []))


def _queue(queue: dict[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in queue.items())


def _services(services: list[dict[str, Any]]) -> str:
    return ", ".join(
        f"{service['name']} {styled(service['state'], 'green' if service['state'] in _GOOD else 'red')}"
        + (f" (restarted {service['restarts']}×)" if service["restarts"] else "")
        for service in services
    )


def _disk(disk: dict[str, Any]) -> str:
    free = f"{bytes_text(disk['free_bytes'])} free"
    free = free if disk["state"] == "ok" else styled(f"{free}, {disk['state'].replace('_', ' ')}", "red")
    return f"{free}, {bytes_text(disk['used_by_vault_bytes'])} in the Vault"


def _gpu(gpu: dict[str, Any]) -> str:
    return ", ".join(f"{name} {visible(str(value))}" for name, value in gpu.items() if value is not None)


def _ago(moment: float) -> str:
    return f"{duration_text(max(0.0, time.time() - moment))} ago"
